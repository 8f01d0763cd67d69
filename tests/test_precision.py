"""Where a program turns on 64 bits, samjax's own programs stay what they are: nothing is float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL
from example_training import PICO, nano_batch

from samjax import Embedding, Execution, Prompts, transforms
from samjax.amg import program
from samjax.model import abstract_params, decode, encode, init_params
from samjax.ops import boxes
from samjax.sharding import make_mesh
from samjax.types import Features, Perturbation

HOW = Execution.for_backend("gpu")


def shape(*sizes: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def doubles(jaxpr) -> list[str]:
    """Operations of a traced program whose results are float64 or complex128, loops and calls included."""
    found = []
    for equation in jaxpr.eqns:
        results = [getattr(variable.aval, "dtype", None) for variable in equation.outvars]
        found += [f"{equation.primitive} {dtype}" for dtype in results if dtype in (jnp.float64, jnp.complex128)]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += doubles(inner)
    return found


def assert_no_doubles(function, *arguments):
    """Traced with 64 bits turned on, nothing is computed in float64 and no result has 64 bits."""
    with jax.enable_x64(True):
        traced = jax.make_jaxpr(function)(*arguments)
    assert doubles(traced.jaxpr) == []
    assert [variable.aval for variable in traced.jaxpr.outvars if variable.aval.dtype.itemsize == 8] == []


def embedding(config=SMALL) -> Embedding:
    size = jnp.zeros(2, jnp.int32)
    return Embedding(jnp.zeros((*config.grid, config.width), jnp.float32), size, size)


def test_parameters():
    with jax.enable_x64(True):
        fresh = abstract_params.__wrapped__(SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    assert_no_doubles(lambda key: init_params(SMALL, key), jax.random.key(0))


@pytest.mark.parametrize("how", [Execution(), HOW, Execution(compute_dtype="bfloat16")])
def test_encode(how):
    pixels, weights = shape(2, *SMALL.image_size, 3), shape(2, SMALL.image_encoder.depth, 2)
    arguments = abstract_params(SMALL), pixels, weights
    assert_no_doubles(lambda params, x, w: encode(SMALL, params, x, how, perturbation=Perturbation(w)), *arguments)


@pytest.mark.parametrize("with_mask", [False, True])
def test_decode(with_mask):
    masks = [np.zeros(SMALL.mask_size)] if with_mask else None
    prompts = Prompts.of([[[3, 4]]], masks=masks)

    def run(params, embedding, prompts):
        return decode(SMALL, params, embedding, prompts, HOW, multimask=True)

    assert_no_doubles(run, abstract_params(SMALL), embedding(), prompts)


@pytest.mark.parametrize("nms", ["box", "mask"])
def test_the_search_for_masks(nms):
    region = program.Region(shape(30, 2), shape(dtype=jnp.int32), shape(4), shape(4))
    limits = program.Limits(*[shape()] * 4)

    def run(params, embedding, region, frame, limits):
        some = params, embedding, region, frame, limits
        judged = program.judge(SMALL, *some, HOW, points_per_batch=8, nms=nms)
        return program.choose(judged, region, limits, nms=nms)

    frame = program.frame_of((60, 90), SMALL)
    assert_no_doubles(run, abstract_params(SMALL), embedding(), region, frame, limits)


def test_the_bits_of_masks():
    def run(params, embedding, points, which, frame):
        return program.pack_masks(program.decode_survivors(SMALL, params, embedding, points, which, HOW), frame, HOW)

    arguments = shape(5, 2), shape(5, dtype=jnp.int32), program.frame_of((60, 90), SMALL)
    assert_no_doubles(run, abstract_params(SMALL), embedding(), *arguments)


def test_upscaling_and_suppression():
    frame = transforms.upscaling((60, 90), SMALL)
    assert_no_doubles(
        lambda logits, *frame: transforms._upscale(logits, *frame, threshold=0.0), shape(3, 32, 32), *frame
    )
    assert_no_doubles(boxes.keep_by_nms, shape(8, 4), shape(8), shape(8, dtype=bool), shape())


def recipes():
    from samjax.train.config import InteractionConfig, LossConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

    return {
        "every random draw": TrainConfig(
            model=ModelConfig(window=24),
            interaction=InteractionConfig(corrections=2, refinements=2),
            loss=LossConfig(balanced=0.5),
            optim=OptimConfig(ema=0.9, clip_norm=1.0),
            run=RunConfig(batch=4, images_together=2, masks_together=2, drop_path=0.2, dropout=0.1),
        ),
        "rematerialised": TrainConfig(
            interaction=InteractionConfig(corrections=1, refinements=0, carry_gradient=True, box_multimask=False),
            loss=LossConfig(resolution="input", iou_of="all", iou_error="absolute"),
            optim=OptimConfig(optimizer="muon", schedule="poly"),
            run=RunConfig(batch=4, accumulate=2, compute_dtype="bfloat16"),
        ),
    }


@pytest.mark.parametrize("name", ["every random draw", "rematerialised"])
def test_a_training_step(name):
    from samjax.train import optim, step
    from samjax.train.state import abstract_state

    config, mesh = recipes()[name], make_mesh(devices=jax.devices()[:1])
    optimizer = optim.make_optimizer(config.optim, PICO, config.run.steps)
    batch = nano_batch(4)
    if config.model.window:
        batch = dataclasses.replace(batch, image=batch.image[:, :24, :24], cells=batch.cells[..., :12, :12])
    state = abstract_state(config, PICO, optimizer, mesh)
    with jax.enable_x64(True):
        wide = abstract_state(config, PICO, optimizer, mesh)
    assert [leaf.dtype for leaf in jax.tree.leaves(wide)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert_no_doubles(step.make_step(config, PICO, optimizer, mesh), state, batch)


def test_validation():
    from samjax.train.tasks.interactive import validation

    batch = nano_batch(2)
    masks = validation._Masks(batch.size, batch.valid, batch.cells)

    def answer(params, features, masks, points, labels, before):
        return validation._answer(PICO, params, features, masks, HOW, points, labels, before, multimask=False)

    features = Features(jnp.zeros((2, *PICO.grid, PICO.width), jnp.float32))
    points, labels = shape(2, 2, 3, 2), shape(2, 2, 3, dtype=jnp.int32)
    before = shape(2, 2, *PICO.mask_size)
    assert_no_doubles(answer, abstract_params(PICO), features, masks, points, labels, before)
    assert_no_doubles(lambda params, batch: validation._encode(PICO, params, batch, HOW), abstract_params(PICO), batch)
    assert_no_doubles(lambda cells: validation._boxes(cells, ratio=2), batch.cells)


@pytest.mark.parametrize("draw", ["first_prompt", "click_schedule", "noisy_box"])
def test_random_draws_are_the_same(draw):
    """With another dtype a draw would have another value."""
    from samjax.train.tasks.interactive import user

    config = recipes()["every random draw"].interaction
    cells = jnp.asarray(nano_batch(1).cells[0, 0])
    arguments = {
        "first_prompt": (user.Target(cells, cells | 15), 2),
        "click_schedule": (),
        "noisy_box": (jnp.array([3.0, 4.0, 20.0, 17.0], jnp.float32), jnp.array([31.0, 31.0], jnp.float32)),
    }[draw]
    key = jax.random.key(7)
    expected = jax.jit(lambda key: getattr(user, draw)(config, key, *arguments))(key)
    with jax.enable_x64(True):
        found = jax.jit(lambda key: getattr(user, draw)(config, key, *arguments))(key)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
