"""The loop over blocks: how a batch is cut does not change what is summed, nor which draws a mask gets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_training import PICO, nano_batch

IMAGES, SLOTS = 4, 3


def test_slots_are_cut_into_columns_and_padded():
    from samjax.train.tasks.interactive.blocks import _columns

    x = jnp.arange(2 * 3 * 4).reshape(2, 3, 4)
    columns = np.asarray(_columns(x, 2))
    assert columns.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(columns[0], x[:, :2])
    np.testing.assert_array_equal(columns[1, :, 0], x[:, 2])
    assert not columns[1, :, 1].any()
    np.testing.assert_array_equal(_columns(x, 3)[0], x)


@pytest.fixture
def summed(monkeypatch):
    """The loop's sums and the number of blocks it computed, by the images and masks of a block.

    The passes are replaced by whole numbers that depend on mask, key, photo and features, so that sums are exact.
    """
    from samjax.execution import Execution
    from samjax.train.config import InteractionConfig, LossConfig
    from samjax.train.tasks.interactive import blocks
    from samjax.train.tasks.interactive.passes import Gradient, PassSettings
    from samjax.types import Features

    computed = []

    def passes(settings, heads, features, block, size, balanced_weight, wanted):
        jax.debug.callback(lambda: computed.append(1))
        area = jax.lax.population_count(block.target.mask).sum((2, 3), dtype=jnp.int32)
        inside = jax.lax.population_count(block.target.photo).sum((2, 3), dtype=jnp.int32)
        drawn = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, 100, jnp.int32)))(block.key)
        found = jnp.where(block.valid, area + inside + 7 * drawn + size.sum(1, keepdims=True, dtype=jnp.int32), 0)
        by_image = found.sum(1, dtype=jnp.int32).astype(jnp.float32)
        terms = jax.tree.map(lambda term: term + by_image.sum(), blocks.no_terms(settings.interaction))
        of_features = Features(by_image[:, None, None, None] * features.image)
        return Gradient(jax.tree.map(lambda leaf: leaf * by_image.sum(), heads), of_features), terms

    monkeypatch.setattr(blocks.passes, "gradient", passes)
    settings = PassSettings(PICO, InteractionConfig(corrections=1, refinements=0), LossConfig(), Execution(), 0.0)
    batch = jax.tree.map(jnp.asarray, nano_batch(IMAGES, SLOTS, ragged=True))  # 0, 1, 2 and 3 masks
    batch = dataclasses.replace(batch, valid=batch.valid.at[3].set(False))
    height, width = PICO.grid
    features = jnp.arange(IMAGES, dtype=jnp.float32)[:, None, None, None] + jnp.ones((1, height, width, PICO.width))
    keys = jax.random.split(jax.random.key(2), IMAGES)

    def summed(images, masks):
        computed.clear()
        heads = {"weight": jnp.ones(2)}
        more = batch, keys, None, jnp.zeros(()), Features(features)
        found = blocks.gradient(settings, (images, masks), heads, *more)
        found = jax.device_get(found)
        jax.effects_barrier()
        return found, len(computed)

    return summed


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 1), (None, 2)])  # three do not divide four photos: two are taken
def test_blocks_sum_to_the_whole_batch(summed, block):
    whole, _ = summed(None, SLOTS)
    assert whole[0].params["weight"].all()
    cut, _ = summed(*block)
    jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_images_without_a_mask_get_no_gradient(summed):
    (gradient, _), _ = summed(1, 2)
    assert gradient.features.image.any((1, 2, 3)).tolist() == [False, True, True, False]


def test_blocks_without_a_mask_are_not_computed(summed):
    assert summed(1, 1)[1] == 3  # the masks that there are: none, one, two and none
    assert summed(1, 2)[1] == 2
    assert summed(None, SLOTS)[1] == 1


@pytest.fixture
def asked(monkeypatch):
    """The prompts that the decoder is given by a loss: (is it the first pass, points, labels) of each valid mask.

    The decoder finds nothing: it is replaced, as it takes long to compile.
    """
    from samjax.sharding import make_mesh
    from samjax.train.config import InteractionConfig, RunConfig, TrainConfig
    from samjax.train.state import fresh_params
    from samjax.train.tasks import make_task
    from samjax.train.tasks.interactive import passes
    from samjax.types import Prediction

    found = []

    def noted(is_first, points, labels, valid):
        asked_for = zip(points[valid].tolist(), labels[valid].tolist(), strict=True)
        found.extend((is_first, *prompt) for prompt in asked_for)

    def listening(config, params, embedding, prompts, execution, *, multimask, **options):
        is_first = prompts.masks is None
        jax.debug.callback(lambda *given: noted(is_first, *given), prompts.points, prompts.labels, prompts.valid)
        iou = jnp.zeros((*prompts.valid.shape, 3 if multimask else 1))
        return Prediction(jnp.zeros((*iou.shape, *config.mask_size)), iou, prompts.valid)

    monkeypatch.setattr(passes, "decode", listening)
    mesh = make_mesh(1, devices=jax.devices()[:1])

    def asked(batch, masks_together=2, **interaction):
        found.clear()
        config = TrainConfig(
            interaction=InteractionConfig(corrections=1, refinements=0, **interaction),
            run=RunConfig(batch=IMAGES, images_together=2, masks_together=masks_together),
        )
        params = fresh_params(config, PICO, mesh)
        task, key = make_task(config, PICO, mesh), jax.random.key(0)
        jax.block_until_ready(jax.jit(lambda batch: task.loss(params, batch, key, jnp.int32(0))[0])(batch))
        jax.effects_barrier()
        return list(found)

    return asked


def test_the_decoder_is_given_recorded_clicks_first_and_sampled_ones_later(asked):
    """Whichever block a mask is in. Sampled clicks are whole pixels, so that nobody else can have put these there."""
    batch = nano_batch(IMAGES, SLOTS, ragged=True)  # 0, 1, 2 and 3 masks
    clicks = np.zeros((IMAGES, SLOTS, 3), np.float32)
    for row, slot in np.argwhere(batch.valid):
        clicks[row, slot] = row + 0.25, slot + 0.75, 1
    clicks[3, 1] = 0  # has none
    batch = dataclasses.replace(batch, clicks=clicks)
    shown = sorted(clicks[clicks[..., 2] == 1][:, :2].tolist())
    for together in (2, 3):
        prompts = asked(batch, together, recorded_share=1.0, box_probability=1.0)
        first = [(points, labels) for is_first, points, labels in prompts if is_first]
        later = [(points, labels) for is_first, points, labels in prompts if not is_first]
        assert len(first) == len(later) == 6
        for found in (first, later):
            assert sorted(points[0] for points, labels in found if labels[0] == 1) == shown
            assert sum(labels[:2] == [2, 3] for _, labels in found) == 1  # the mask without a click: its box
        assert all(labels[2] == -2 for _, labels in first)
        assert all(labels[2] in (0, 1) and points[2] == list(map(round, points[2])) for points, labels in later)
