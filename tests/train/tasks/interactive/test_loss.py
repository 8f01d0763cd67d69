"""The loss of all passes as a function that JAX differentiates, against the gradient that its blocks add up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import random_params
from example_training import PICO, nano_batch


@pytest.fixture(scope="module")
def given():
    """Settings, parameters of the heads, features, and what else the loss takes."""
    from samjax.execution import Execution
    from samjax.train.config import InteractionConfig, LossConfig
    from samjax.train.tasks.interactive.loss import Given
    from samjax.train.tasks.interactive.passes import PassSettings
    from samjax.types import Features

    settings = PassSettings(PICO, InteractionConfig(corrections=1, refinements=0), LossConfig(), Execution(), 0.0)
    params = jax.tree.map(jnp.asarray, random_params(PICO, 1))
    heads = {name: params[name] for name in ("prompt_encoder", "mask_decoder")}
    features = Features(jax.random.normal(jax.random.key(3), (3, *PICO.grid, PICO.width), jnp.float32))
    batch = jax.tree.map(jnp.asarray, nano_batch(3, ragged=True))
    keys = jax.random.split(jax.random.key(2), 3)
    return settings, heads, features, Given(batch, keys, None, jnp.zeros((), jnp.float32))


@pytest.fixture(scope="module")
def loss(given):
    from samjax.train.tasks.interactive.loss import passes_loss

    settings, *_, more = given
    return lambda heads, features: passes_loss(settings, (1, 2), heads, features, more)


@pytest.fixture(scope="module")
def summed(given):
    from samjax.train.tasks.interactive import blocks

    settings, heads, features, (batch, keys, origin, balanced) = given
    run = functools.partial(blocks.gradient, settings, (1, 2), heads, batch, keys, origin, balanced)
    return jax.jit(run)(features)


def test_value_and_gradient_are_those_of_the_blocks(loss, summed, given):
    _, heads, features, _ = given
    tripled = jax.value_and_grad(lambda *inputs: (3 * (found := loss(*inputs))[0], found[1]), (0, 1), has_aux=True)
    (value, terms), (of_heads, of_features) = jax.jit(tripled)(heads, features)
    gradient, expected = summed
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), terms, expected)
    np.testing.assert_allclose(value, 3 * expected.total.sum(), rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda ours, other: close(ours, 3 * other), of_heads, gradient.params)
    close(of_features.image, 3 * gradient.features.image)
    assert np.linalg.norm(gradient.features.image) > 1e-3


def test_the_loss_alone_needs_no_gradient(loss, summed, given):
    _, heads, features, _ = given
    value, terms = jax.jit(loss)(heads, features)
    np.testing.assert_allclose(value, summed[1].total.sum(), rtol=1e-5)  # the program is another, and so its rounding
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), terms, summed[1])


@pytest.mark.heavy
def test_what_is_constant_gets_no_gradient_and_costs_none(loss, summed, given):
    """One head's scale alone: its gradient is that of the whole, for much less work."""
    _, heads, features, _ = given

    def of_scale(scale):
        decoder = dict(heads["mask_decoder"], output_upscaling=dict(heads["mask_decoder"]["output_upscaling"]))
        decoder["output_upscaling"]["1"] = {**decoder["output_upscaling"]["1"], "scale": scale}
        return loss({**heads, "mask_decoder": decoder}, features)[0]

    scale = heads["mask_decoder"]["output_upscaling"]["1"]["scale"]
    program = jax.jit(jax.grad(of_scale)).lower(scale).compile()
    expected = summed[0].params["mask_decoder"]["output_upscaling"]["1"]["scale"]
    np.testing.assert_allclose(program(scale), expected, rtol=1e-4, atol=1e-6)
    whole = jax.jit(jax.grad(lambda *inputs: loss(*inputs)[0], (0, 1))).lower(heads, features).compile()
    assert program.cost_analysis()["flops"] < 0.75 * whole.cost_analysis()["flops"]
