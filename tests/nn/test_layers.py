import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax import lax

from samjax.nn.layers import Conv3x3, Dense, GroupNorm, LayerNorm, gelu
from samjax.nn.mask_decoder import ConvTranspose2x2

FLOAT32 = jnp.dtype("float32")


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def with_random_parameters(module, x):
    params = meta.unbox(module.init(jax.random.key(0), x))
    return jax.tree.map(lambda leaf: normal(*leaf.shape), params)


def test_gelu_is_the_exact_form():
    x = np.linspace(-4, 4, 101)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
def test_norms_use_the_biased_variance_and_their_epsilon(epsilon):
    x = 1e-3 * normal(5, 8)  # a small variance, so that the epsilon counts
    module = LayerNorm(8, epsilon)
    variables = with_random_parameters(module, x)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + epsilon)
    scale, bias = (np.asarray(variables["params"][name])[None] for name in ("scale", "bias"))
    expected = exact * scale + bias
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_group_norms_take_cells_and_neighbouring_channels_together():
    x = normal(3, 5, 8)
    module = GroupNorm(8, groups=4)
    variables = with_random_parameters(module, x)
    groups = np.asarray(x, np.float64).reshape(15, 4, 2)
    exact = (groups - groups.mean((0, 2), keepdims=True)) / np.sqrt(groups.var((0, 2), keepdims=True) + 1e-5)
    scale, bias = (np.asarray(variables["params"][name]) for name in ("scale", "bias"))
    np.testing.assert_allclose(module.apply(variables, x), exact.reshape(3, 5, 8) * scale + bias, rtol=1e-4, atol=1e-5)


def test_norms_are_computed_in_float32():
    """In bfloat16 the mean of values around 1000 would lose everything below 4."""
    x = (1000 + normal(3, 64)).astype(jnp.bfloat16)
    module = LayerNorm(64, 1e-6)
    variables = meta.unbox(module.init(jax.random.key(0), x))
    half = module.apply(variables, x)
    assert half.dtype == jnp.bfloat16
    exact = module.apply(variables, x.astype(jnp.float32))
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=2**-8)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_a_strided_convolution(patch):
    x = normal(8, 12, 3)
    module = Dense(3, 5, FLOAT32, patch=patch)
    params = with_random_parameters(module, x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    expected = lax.conv_general_dilated(
        x[None], kernel, (patch, patch), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(module.apply(params, x), expected[0] + bias[None, None], rtol=1e-5, atol=1e-5)


def test_the_3x3_convolution_sees_zeros_beyond_the_grid():
    x = jnp.ones((4, 5, 1))
    params = {"params": {"kernel": jnp.ones((3, 3, 1, 1))}}
    counts = Conv3x3(1, 1, FLOAT32, use_bias=False).apply(params, x)[:, :, 0]
    np.testing.assert_array_equal(counts[0], [4, 6, 6, 6, 4])
    np.testing.assert_array_equal(counts[1], [6, 9, 9, 9, 6])


def test_a_convolution_projected_onto_a_vector_is_that_product_of_its_output():
    x, onto = normal(4, 5, 6), normal(7)
    module = Conv3x3(6, 7, FLOAT32)
    params = with_random_parameters(module, x)
    projected = module.apply(params, x, onto, method="projected")
    np.testing.assert_allclose(projected, module.apply(params, x) @ onto, rtol=1e-4, atol=1e-4)


def test_the_transposed_convolution_spreads_each_place_over_its_own_2x2_pixels():
    x = normal(6, 3)
    module = ConvTranspose2x2(3, 4, FLOAT32)
    params = with_random_parameters(module, x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    result = module.apply(params, x)
    for y, x_offset in np.ndindex(2, 2):
        expected = x @ kernel[:, y, x_offset] + bias[None]
        np.testing.assert_allclose(result[:, y, x_offset], expected, rtol=1e-5, atol=1e-5)
