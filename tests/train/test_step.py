"""The training step as a whole: what it computes does not depend on the mesh, on pieces, or on what only pads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from example_training import PICO, nano_batch


@pytest.fixture(scope="module")
def config():
    from samjax.train.config import InteractionConfig, LossConfig, OptimConfig, RunConfig, TrainConfig

    return TrainConfig(
        interaction=InteractionConfig(corrections=1, refinements=0),
        loss=LossConfig(balanced=0.5),
        optim=OptimConfig(ema=0.9),
        run=RunConfig(steps=1000, batch=6, images_together=2, masks_together=2, drop_path=0.2, dropout=0.1),
    )


@pytest.fixture(scope="module")
def mesh():
    from samjax.sharding import make_mesh

    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def descent():
    """Plain gradient descent, whose rate stands in the state: with rate 1 the update is the gradient."""
    return optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)


@pytest.fixture(scope="module")
def program(config, mesh, descent):
    """The step of a small model, compiled once for all tests."""
    from samjax.train.step import make_step

    return make_step(config, PICO, descent, mesh)


@pytest.fixture
def start(config, mesh, descent):
    """A fresh state at a learning rate. The step consumes it, so each call makes one."""
    from samjax.train.state import fresh_params, init_state

    def start(rate: float = 1.0):
        state = init_state(config, PICO, fresh_params(config, PICO, mesh), descent, mesh)
        rates = state.opt_state.hyperparams
        rates["learning_rate"] = jax.device_put(np.float32(rate), rates["learning_rate"].sharding)
        return state

    return start


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def gradient(program, start, batch):
    """The change that a step takes off the parameters at rate 1, and its metrics."""
    state = start()
    before = flat(state.params)
    state, metrics = program(state, batch)
    return before.astype(np.float64) - flat(state.params), jax.device_get(metrics)


def valid_only(batch, images):
    """The batch with no valid mask but those of some images."""
    return dataclasses.replace(batch, valid=batch.valid & np.isin(np.arange(len(batch.valid)), images)[:, None])


def test_loss_and_gradient_are_means_over_all_valid_masks_of_the_batch(program, start):
    """Not means of the images' means: each image weighs as many masks as it has, none, one or two."""
    batch = nano_batch(6, ragged=True)
    whole, metrics = gradient(program, start, batch)
    assert metrics["masks"] == batch.valid.sum() == 6
    parts = [gradient(program, start, valid_only(batch, images)) for images in ([0, 1], [2, 3], [4, 5])]
    counts = [int(part["masks"]) for _, part in parts]
    assert counts == [1, 2, 3]
    expected = sum(count * part for count, (part, _) in zip(counts, parts, strict=True)) / 6
    assert np.linalg.norm(whole - expected) <= 1e-5 * np.linalg.norm(expected)
    losses = [part["loss"] for _, part in parts]
    np.testing.assert_allclose(metrics["loss"], np.dot(counts, losses) / 6, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(whole), rtol=1e-4)


def test_a_batch_without_a_valid_mask_changes_nothing(program, start):
    batch = nano_batch(6)
    change, metrics = gradient(program, start, valid_only(batch, []))
    assert metrics["finite"]
    assert metrics["loss"] == 0
    assert metrics["masks"] == 0
    assert not change.any()


def test_what_stands_in_padding_makes_no_difference(program, start):
    """Neither beyond the photo's size, nor in slots without a mask."""
    batch = nano_batch(6, ragged=True)
    image, cells = batch.image.copy(), batch.cells.copy()
    for picture, (height, width) in zip(image, batch.size, strict=True):
        picture[height:] = picture[:, width:] = 255
    cells[~batch.valid] = 15
    assert (image != batch.image).any()
    assert (cells != batch.cells).any()
    padded = dataclasses.replace(batch, image=image, cells=cells)
    np.testing.assert_array_equal(gradient(program, start, padded)[0], gradient(program, start, batch)[0])


def test_random_draws_follow_the_photo_and_not_its_place_in_the_batch(program, start):
    batch = nano_batch(6)
    turned = jax.tree.map(lambda x: np.roll(x, 2, 0), batch)
    others = dataclasses.replace(batch, position=batch.position + np.uint32(6))
    expected, same, different = (gradient(program, start, each)[0] for each in (batch, turned, others))
    assert np.linalg.norm(same - expected) <= 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(different - expected) > 0.02 * np.linalg.norm(expected)


def test_what_is_not_finite_leaves_the_state_bit_for_bit(program, start):
    state = start()
    kernel = state.params["mask_decoder"]["iou_prediction_head"]["layers"]["0"]["kernel"]
    state.params["mask_decoder"]["iou_prediction_head"]["layers"]["0"]["kernel"] = kernel.at[0, 0].set(jnp.nan)
    before = jax.device_get(state)
    after, metrics = program(state, nano_batch(6))
    assert not metrics["finite"]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(jax.device_get(after)), strict=True):
        np.testing.assert_array_equal(old.reshape(-1).view(np.uint8), new.reshape(-1).view(np.uint8))


def test_the_average_follows_the_parameters(program, start):
    """It keeps min(0.9, (1 + t) / (10 + t)) of itself at step t."""
    state, average = start(0.01), None
    for step in range(3):
        average = flat(state.ema)
        state, _ = program(state, nano_batch(6))
        keeps = min(0.9, (1 + step) / (10 + step))
        expected = keeps * average + (1 - keeps) * flat(state.params)
        np.testing.assert_allclose(flat(state.ema), expected, rtol=1e-5, atol=1e-7)
    assert state.step == 3


def test_one_batch_is_learnt(program, start):
    """The loss of the same photos falls to half."""
    batch, state, losses = nano_batch(6), start(0.02), []
    for _ in range(150):
        state, metrics = program(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) / 2, losses[::10]


def lowered(config, mesh):
    """The program of a step, not compiled."""
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state
    from samjax.train.step import make_step

    optimizer = make_optimizer(config.optim, PICO, config.run.steps)
    state = abstract_state(config, PICO, optimizer, mesh)
    return make_step(config, PICO, optimizer, mesh).lower(state, nano_batch(6))


EARLY = (r"^image_encoder/(patch_embed|pos_embed|blocks)", r"^mask_decoder/transformer")  # of a network, frozen


def test_what_is_frozen_costs_nothing_and_stays_bit_for_bit(config, mesh):
    """The logged norm is that of the gradient which clipping sees: of what is trained."""
    from samjax.model import abstract_params
    from samjax.train.optim import make_optimizer
    from samjax.train.state import abstract_state, fresh_params, init_state
    from samjax.train.step import make_step

    optim = dataclasses.replace(config.optim, clip_norm=1e-3, weight_decay=0.1, learning_rate=1e-2, warmup_steps=0)
    partly = dataclasses.replace(config, optim=dataclasses.replace(optim, frozen=EARLY))
    sgd = optax.chain(optax.sgd(1.0))
    state = init_state(partly, PICO, fresh_params(partly, PICO, mesh), sgd, mesh)
    before = jax.device_get(state)
    after, metrics = make_step(partly, PICO, sgd, mesh)(state, nano_batch(6))
    change = jax.tree.map(lambda old, new: old.astype(np.float64) - new, before.params, jax.device_get(after.params))
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(flat(change)), rtol=1e-4)
    assert not {"blocks", "pos_embed"} & set(after.params["image_encoder"])
    assert "transformer" not in after.ema["mask_decoder"]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after.frozen), before.frozen)

    # What is not in the optimiser's state is not in its updates either: weight decay does not reach it.
    ours = abstract_state(partly, PICO, make_optimizer(partly.optim, PICO, 1000), mesh)
    trained = sum(leaf.size for leaf in jax.tree.leaves(ours.params))
    assert 0 < trained < sum(leaf.size for leaf in jax.tree.leaves(abstract_params(PICO))) / 2
    assert sum(leaf.size for leaf in jax.tree.leaves(ours.opt_state) if leaf.ndim) == 2 * trained


@pytest.fixture(scope="module")
def text(config, mesh):
    """The program of a step of this file's model, not compiled."""
    return lowered(config, mesh).as_text("hlo")


def test_the_gradient_of_frozen_parts_is_not_computed(config, mesh, text):
    def products(*frozen):
        partly = dataclasses.replace(config, optim=dataclasses.replace(config.optim, frozen=frozen))
        return lowered(partly, mesh).as_text("hlo").count(" dot(")

    whole = text.count(" dot(")
    without_encoder = products("^image_encoder/")
    assert without_encoder < whole - 10  # two for each of the encoder's own
    # Nothing before the neck has a gradient, and it is not gone through either.
    assert without_encoder < products("^image_encoder/(?!neck)") < without_encoder + 5
    assert products("^mask_decoder/") < whole - 10


def test_bfloat16_is_for_computing_and_float32_for_keeping(config, mesh, text):
    half = dataclasses.replace(config, run=dataclasses.replace(config.run, compute_dtype="bfloat16"))
    program = lowered(half, mesh)
    state, metrics = program.out_info
    kept = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.ema, metrics["loss"]))}
    assert kept == {jnp.dtype("float32")}
    assert program.as_text("hlo").count(" bf16[") > 100
    assert text.count(" bf16[") == 0
