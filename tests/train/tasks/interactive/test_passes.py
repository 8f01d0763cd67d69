"""The passes and their gradients, against the same thing written as a plain loop over passes and masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import random_params

from samjax.config import DecoderConfig, SamConfig, ViTConfig
from samjax.execution import Execution
from samjax.model import decode
from samjax.types import Embedding, Features, Perturbation, Prompts

MODEL = SamConfig(
    ViTConfig(width=16, depth=1, heads=2, global_blocks=(0,), image_size=(32, 32), patch_size=8),
    DecoderConfig(depth=1, heads=2, mlp_dim=24, iou_head_dim=12, iou_head_depth=2),
    width=16,
    mask_channels=16,
)
RATIO = 2
SIZES = np.array([[32, 32], [27, 32]], np.int32)
SLOTS = 3


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    # Only the comparison of one program with another matters here.
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def settings(dropout=0.0, loss=None, **interaction):
    from samjax.train.config import InteractionConfig, LossConfig
    from samjax.train.tasks.interactive.passes import PassSettings

    chosen = InteractionConfig(**{"corrections": 2, "refinements": 1, **interaction})
    return PassSettings(MODEL, chosen, LossConfig(**(loss or {})), Execution(), dropout)


@functools.cache
def heads():
    params = jax.tree.map(jnp.asarray, random_params(MODEL, seed=1))
    return {name: params[name] for name in ("prompt_encoder", "mask_decoder")}


@functools.cache
def features():
    return jnp.asarray(np.random.RandomState(2).standard_normal((2, 4, 4, 16)), jnp.float32)


def insides():
    y, x = np.mgrid[:32, :32]
    return np.stack([(y < height) & (x < width) for height, width in SIZES])


def masks():
    y, x = np.mgrid[:32, :32]
    random = np.random.RandomState(3)
    shapes = [(x - a) ** 2 + (y - b) ** 2 < c**2 for a, b, c in random.uniform(6, 20, (2 * SLOTS, 3))]
    return np.array(shapes).reshape(2, SLOTS, 32, 32) & insides()[:, None]


def block(which=None):
    """Two photos with three slots each, of which one is not a mask."""
    from samjax.train.batch import pack_cells
    from samjax.train.tasks.interactive.passes import MaskBlock
    from samjax.train.tasks.interactive.user import Target

    which = masks() if which is None else which
    inside = np.broadcast_to(insides()[:, None], which.shape)
    target = Target(jnp.asarray(pack_cells(which, RATIO)), jnp.asarray(pack_cells(inside, RATIO)))
    valid = jnp.array([[True, True, True], [True, True, False]])
    return MaskBlock(target, valid, jax.random.split(jax.random.key(4), (2, SLOTS)))


@functools.cache
def compiled(how):
    from samjax.train.tasks.interactive.passes import gradient

    return jax.jit(functools.partial(gradient, how))


def ours(how, given=None, size=SIZES, image=slice(None)):
    given = given or block()
    return compiled(how)(heads(), Features(features()[image]), given, jnp.asarray(size), jnp.float32(0.5))


@functools.partial(jax.jit, static_argnames=("how", "multimask"))
def one_pass(how, params, image, slots, logits, size, parts, pixels, weights, multimask):
    """One prompt of one image: the loss's terms and the logits to carry on."""
    from samjax.train.tasks.interactive.losses import mask_loss

    has_mask = None if logits is None else jnp.ones(1, bool)
    slots, logits, weights = jax.tree.map(lambda x: x[None], (slots, logits, weights))
    prompts = Prompts(slots.points, slots.labels, jnp.ones(1, bool), logits, has_mask)
    embedding = Embedding(image, size, size)
    change = Perturbation(weights)
    prediction = decode(MODEL, params, embedding, prompts, Execution(), multimask=multimask, perturbation=change)
    logits, iou = prediction.logits[0], prediction.iou[0]
    at_input = how.loss.resolution == "input"
    upsampled = jax.image.resize(logits, (len(logits), 32, 32), "linear")
    mask, inside = (part[None] for part in pixels)
    found = (upsampled > 0) & inside
    both, either = (x.sum((1, 2)).astype(jnp.float32) for x in (found & mask, found | mask))
    compared = upsampled if at_input else logits
    terms = mask_loss(how.loss, compared, iou, *parts, jnp.array(True), jnp.float32(0.5), both / either)
    return terms, logits[jnp.argmax(iou)]


def plain(how):
    """Gradient and terms by differentiating a loop over images, masks and passes, one after the other.

    What is random comes from `samjax.train.tasks.interactive.user`, with the keys that the block names.
    """
    from samjax.train.tasks.interactive import user

    given = block()
    carry_gradient, at_input = how.interaction.carry_gradient, how.loss.resolution == "input"
    first_prompt = jax.jit(user.first_prompt, static_argnums=(0, 3))
    click = jax.jit(user.click, static_argnums=5)

    def of_one(trained, image, slot):
        params, all_features = trained
        target = jax.tree.map(lambda x: x[image, slot], given.target)
        first, schedule, clicking, dropping = jax.random.split(given.key[image, slot], 4)
        mask, inside = masks()[image, slot], insides()[image]
        parts = [mask, inside & ~mask]
        if not at_input:
            parts = [part.reshape(16, RATIO, 16, RATIO).mean((1, 3)) for part in parts]
        parts = [jnp.asarray(part, jnp.float32) for part in parts]
        slots = first_prompt(how.interaction, first, target, RATIO)
        is_click = [False, *np.asarray(user.click_schedule(how.interaction, schedule)).tolist()]
        logits, terms = None, []
        for number in range(how.interaction.passes):
            if is_click[number]:
                drawn = jax.lax.stop_gradient(logits) > 0
                before = jnp.int32(sum(is_click[:number]))
                slots = click(jax.random.fold_in(clicking, number), slots, before, drawn, target, RATIO)
            weights = None
            if how.dropout:
                kept = jax.random.bernoulli(jax.random.fold_in(dropping, number), 1 - how.dropout, (1, 3, 5 + 4, 16))
                weights = jnp.where(kept, jnp.float32(1 / (1 - how.dropout)), 0)
            is_box = int(slots.labels[0]) == 2
            multimask = number == 0 and (how.interaction.box_multimask or not is_box)
            carried = logits if carry_gradient else jax.lax.stop_gradient(logits)
            where = all_features[image], slots, carried, jnp.asarray(SIZES[image])
            one_terms, logits = one_pass(how, params, *where, parts, (mask, inside), weights, multimask)
            terms.append(one_terms)
        return terms

    def total(trained):
        terms = [of_one(trained, *where) for where in np.argwhere(np.asarray(given.valid)).tolist()]
        summed = [jax.tree.map(lambda *leaves: sum(leaves), *of_pass) for of_pass in zip(*terms, strict=True)]
        return sum(of_pass.total for of_pass in summed), summed

    (_, terms), gradient = jax.value_and_grad(total, has_aux=True)((heads(), features()))
    return gradient, jax.tree.map(lambda *leaves: jnp.stack(leaves), *terms)


def assert_alike(ours, expected, tolerance=1e-3):
    """Up to rounding, which norms of few channels make larger: relative to the largest number of each array, or of all
    where an array is next to nothing: the biases of an attention's keys have no gradient but by rounding."""
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        bar = tolerance * max(float(abs(other).max()), 1e-3 * largest)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=bar)


OTHERWISE = {"carry_gradient": True, "box_multimask": False, "box_probability": 0.7}
WAYS = {
    "defaults": lambda: settings(),
    "carried gradient": lambda: settings(carry_gradient=True),
    "all otherwise": lambda: settings(
        0.3, {"resolution": "input", "balanced": 1.0, "iou_of": "all", "iou_error": "absolute"}, **OTHERWISE
    ),
}


@pytest.mark.parametrize(
    "way",
    [pytest.param(name, marks=() if name == "defaults" else pytest.mark.heavy) for name in WAYS],
)
def test_gradient_and_terms_are_those_of_a_plain_loop(way):
    how = WAYS[way]()
    gradient, terms = ours(how)
    expected, expected_terms = plain(how)
    assert terms.total.shape == (how.interaction.passes,)
    assert_alike(terms, expected_terms)
    assert_alike((gradient.params, gradient.features), expected)


def test_the_first_prompts_of_these_tests_are_points_and_boxes():
    from samjax.train.tasks.interactive.user import first_prompt

    for way in ("defaults", "all otherwise"):
        interaction, labels = WAYS[way]().interaction, set()
        for where in np.argwhere(np.asarray(block().valid)).tolist():
            key, target = jax.tree.map(lambda x: x[*where], (block().key, block().target))  # noqa: B023
            first, *_ = jax.random.split(key, 4)
            labels.add(int(first_prompt(interaction, first, target, RATIO).labels[0]))
        assert labels == {1, 2}


@functools.cache
def one_by_one():
    """Blocks of a single mask, each with its gradient, by (image, slot)."""
    results = {}
    for image, slot in np.ndindex(2, SLOTS):
        alone = jax.tree.map(lambda x: x[image : image + 1, slot : slot + 1], block())  # noqa: B023
        where = slice(image, image + 1)
        results[image, slot] = ours(settings(), alone, SIZES[where], where)
    return results


def test_blocks_of_one_mask_sum_to_the_block_of_all():
    gradient, terms = ours(settings())
    parts = one_by_one()
    of_params, summed_terms = jax.tree.map(lambda *x: sum(x), *[(part.params, rest) for part, rest in parts.values()])
    of_features = [sum(parts[image, slot][0].features.image for slot in range(SLOTS)) for image in range(2)]
    assert_alike((of_params, jnp.concatenate(of_features)), (gradient.params, gradient.features.image))
    assert_alike(summed_terms, terms)


def test_what_is_no_mask_contributes_exactly_zero():
    for leaf in jax.tree.leaves(one_by_one()[1, 2]):
        assert (np.asarray(leaf) == 0).all()


def test_what_stands_in_the_slot_of_no_mask_changes_nothing():
    before = ours(settings())
    for junk in (np.zeros((32, 32), bool), insides()[1]):
        others = masks()
        others[1, 2] = junk
        after = ours(settings(), block(others))
        for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(one, other)
    others = masks()
    others[1, 1] = junk  # of a mask that is one, it does
    assert not np.array_equal(ours(settings(), block(others))[1].total, before[1].total)


@pytest.mark.heavy
def test_the_mean_over_passes_is_the_sum_divided_by_their_number():
    from samjax.sharding import make_mesh
    from samjax.train.batch import Batch
    from samjax.train.config import InteractionConfig, LossConfig, OptimConfig, RunConfig, TrainConfig
    from samjax.train.optim import make_optimizer
    from samjax.train.state import fresh_params, init_state
    from samjax.train.step import make_step

    mesh = make_mesh(1, devices=jax.devices()[:1])
    random = np.random.RandomState(0)
    image = random.randint(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    photos = np.arange(2)
    batch = Batch(image, SIZES, block().target.mask, block().valid, photos.astype(np.uint32), photos.astype(np.int32))
    metrics = {}
    for over_passes in ("sum", "mean"):
        config = TrainConfig(
            interaction=InteractionConfig(corrections=2, refinements=1),
            loss=LossConfig(over_passes=over_passes),
            optim=OptimConfig(warmup_steps=0),
            run=RunConfig(steps=10),
        )
        optimizer = make_optimizer(config.optim, MODEL, 10)
        state = init_state(config, MODEL, fresh_params(config, MODEL, mesh), optimizer, mesh)
        _, metrics[over_passes] = make_step(config, MODEL, optimizer, mesh)(state, batch)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(metrics["mean"][name], metrics["sum"][name] / 4, rtol=1e-5)
    np.testing.assert_allclose(metrics["sum"]["loss"], metrics["sum"]["terms"].total.sum(), rtol=1e-6)
