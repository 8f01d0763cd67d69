"""Attention between tokens and an image: projections folded into few tokens change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.attention import Projection, image_logits, image_to_tokens, masked_attention, tokens_to_image
from samjax.ops.attention.tokens import folds

# float32 sums of at most a few dozen terms in another order
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
HEADS, DEPTH, CHANNELS, PLACES = 2, 3, 6, 7
few_and_many = pytest.mark.parametrize("tokens", [3, 5], ids=["few tokens, folded", "many, projected"])


def normal(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def projection(seed: int) -> Projection:
    return Projection(*normal(seed, (CHANNELS, HEADS, DEPTH), (HEADS, DEPTH)))


def projected(x: jax.Array, by: Projection) -> jax.Array:
    return jnp.einsum("sc,cnd->snd", x, by.kernel) + by.bias[None]


def test_masked_keys_have_no_influence():
    q, k, v = normal(2, (3, 2, 4), (5, 2, 4), (5, 2, 4))
    valid = jnp.array([True, False, True, True, False])
    masked = masked_attention(q, k, v, valid)
    without = masked_attention(q, k[valid], v[valid])
    np.testing.assert_allclose(masked, without, **TOLERANCE)


def test_huge_logits_do_not_overflow():
    q, k, v = normal(3, (3, 2, 4), (5, 2, 4), (5, 2, 4))
    assert jnp.isfinite(masked_attention(1e6 * q, 1e6 * k, v)).all()


@pytest.mark.parametrize(("tokens", "folded"), [(3, True), (4, False)])
def test_tokens_are_folded_where_that_is_less_work(tokens, folded):
    """By multiplications for one image token: T·heads·C of folded logits, C·heads·D of a projection."""
    assert folds(tokens, DEPTH) == folded
    assert (tokens * HEADS * CHANNELS <= CHANNELS * HEADS * DEPTH) == folded


def test_a_projection_is_a_linear_layer():
    (x,), by = normal(0, (PLACES, CHANNELS)), projection(1)
    np.testing.assert_allclose(by(x), projected(x, by), **TOLERANCE)


@few_and_many
def test_tokens_attend_to_an_image_as_to_its_projections(tokens):
    q, image, position = normal(4, (tokens, HEADS, DEPTH), (PLACES, CHANNELS), (PLACES, CHANNELS))
    k, v = projection(5), projection(6)
    ours = tokens_to_image(q, image + position, image, k, v)
    expected = masked_attention(q, projected(image + position, k), projected(image, v))
    np.testing.assert_allclose(ours, expected, **TOLERANCE)


@few_and_many
@pytest.mark.parametrize("at_hand", [True, False], ids=["queries at hand", "queries to be projected"])
def test_an_image_attends_to_tokens_as_its_projection_would(tokens, at_hand):
    shapes = (PLACES, CHANNELS), (tokens, HEADS, DEPTH), (tokens, HEADS, DEPTH), (HEADS, DEPTH, CHANNELS), (CHANNELS,)
    image, k, v, out_kernel, out_bias = normal(5, *shapes)
    valid, by = jnp.arange(tokens) != 1, projection(7)
    q = projected(image, by)
    logits = image_logits(q if at_hand else by, image, k)
    ours = image_to_tokens(logits, v, out_kernel, out_bias, valid)
    plain = jnp.einsum("snd,ndc->sc", masked_attention(q, k, v, valid), out_kernel) + out_bias[None]
    np.testing.assert_allclose(ours, plain, **TOLERANCE)
