"""Every form of attention with the published models' heads: values and gradients, in float32 and bfloat16.

The kernel for TPUs is interpreted, and cuDNN's construction is computed by XLA.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.attention import Blocked, CuDNN, Folded, Plain, TPUKernel, grid_attention, window_attention

FORMS = {
    "blocked": Blocked(heads_together=True),
    "folded": Folded(),
    "cuDNN's construction": CuDNN(implementation="xla"),
    "TPU kernel": TPUKernel(interpret=True),
}
CASES = {  # grid, channels of a head, window
    "14x14": ((14, 14), 64, None),
    "20x13": ((20, 13), 64, None),
    "13x20 in windows": ((13, 20), 64, 14),
}
LARGE = {
    "64x64": ((64, 64), 64, None, "float32"),
    "64x64, bfloat16": ((64, 64), 64, None, "bfloat16"),
    "48x80": ((48, 80), 64, None, "float32"),
    "48x80, bfloat16": ((48, 80), 64, None, "bfloat16"),
    "48x80 in windows": ((48, 80), 64, 14, "float32"),
    "20x13, 80 channels": ((20, 13), 80, None, "float32"),
    "20x13 in windows, 80 channels": ((20, 13), 80, 14, "float32"),
}
HEADS = {64: 4, 80: 8}  # two and one of the groups that the kernel works for
# The largest error, in units of the largest number, of values and of gradients. float32: sums of thousands of terms in
# other orders; measured are 1.1e-6 and 1.3e-6. bfloat16: the inputs are exact, so this is the rounding of weights, of
# folded logits and of results; measured are 0.64 % and 1.7 %.
BOUNDS = {"float32": (2e-6, 3e-6), "bfloat16": (0.01, 0.025)}


@functools.cache
def case(grid: tuple[int, int], head_dim: int, window: int | None) -> tuple:
    """A projection, its bias, tables, and a gradient in the result, all of which bfloat16 holds exactly."""
    random = np.random.default_rng(0)
    sides = (window, window) if window else grid
    channels = HEADS[head_dim] * head_dim

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * random.standard_normal(shape), jnp.bfloat16).astype(jnp.float32)

    tables = tuple(normal(2 * side - 1, head_dim, scale=0.1) for side in sides)
    return normal(*grid, 3 * channels), normal(3 * channels), tables, normal(*grid, channels)


def attend(how, head_dim, window, projected, bias, tables):
    if window:
        return window_attention(projected, bias, window, tables, HEADS[head_dim], how)
    return grid_attention(projected, tables, HEADS[head_dim], how)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def value_and_gradient(how, head_dim, window, given, out):
    value, gradient = jax.vjp(functools.partial(attend, how, head_dim, window), *given)
    return value, gradient(out)


def definition(qkv, tables, heads) -> np.ndarray:
    """Attention over a grid in float64."""
    height, width = qkv.shape[:2]
    q, k, v = np.moveaxis(np.asarray(qkv, np.float64).reshape(height, width, 3, heads, -1), 2, 0)
    offsets = [np.arange(side)[:, None] - np.arange(side) + side - 1 for side in (height, width)]
    by_row, by_column = (np.asarray(table, np.float64)[i] for table, i in zip(tables, offsets, strict=True))
    result = np.empty_like(q)
    for n in range(heads):
        logits = np.einsum("hwd,ijd->hwij", q[:, :, n] / np.sqrt(q.shape[-1]), k[:, :, n], optimize=True)
        logits += np.einsum("hwd,hid->hwi", q[:, :, n], by_row)[..., None]
        logits += np.einsum("hwd,wjd->hwj", q[:, :, n], by_column)[:, :, None]
        weights = np.exp(logits - logits.max((2, 3), keepdims=True))
        weights /= weights.sum((2, 3), keepdims=True)
        result[:, :, n] = np.einsum("hwij,ijd->hwd", weights, v[:, :, n], optimize=True)
    return result.reshape(height, width, -1)


@functools.cache
def expected(grid, head_dim, window) -> np.ndarray:
    projected, bias, tables, _ = case(grid, head_dim, window)
    if not window:
        return definition(projected, tables, HEADS[head_dim])
    padded = np.pad(projected, ((0, -grid[0] % window), (0, -grid[1] % window), (0, 0))) + np.asarray(bias)
    result = np.zeros((*padded.shape[:2], padded.shape[2] // 3))
    for row, column in itertools.product(*(range(0, side, window) for side in padded.shape[:2])):
        place = np.s_[row : row + window, column : column + window]
        result[place] = definition(padded[place], tables, HEADS[head_dim])
    return result[: grid[0], : grid[1]]


@functools.cache
def expected_gradient(grid, head_dim, window):
    """Of the plain form in float32, whose value is compared with the definition as well."""
    *given, out = case(grid, head_dim, window)
    return value_and_gradient(Plain(), head_dim, window, given, out)[1]


def furthest(found, expected) -> float:
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-9))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("of", CASES.values(), ids=CASES)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions(form, of, dtype):
    check(form, of, dtype)


@pytest.mark.heavy
@pytest.mark.parametrize("of", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions_at_full_size(form, of):
    check(form, of[:3], of[3])


def check(form, of, dtype):
    *given, out = jax.tree.map(lambda x: x.astype(dtype), case(*of))
    with jax.numpy_dtype_promotion("standard"):  # XLA's form of `jax.nn.dot_product_attention` relies on it
        value, gradient = value_and_gradient(FORMS[form], *of[1:], given, out)
    of_values, of_gradients = BOUNDS[dtype]
    assert value.dtype == dtype
    assert furthest(value, expected(*of)) <= of_values
    for found, true in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient(*of)), strict=True):
        assert found.dtype == dtype
        assert furthest(found, true) <= of_gradients


@pytest.mark.parametrize("window", [None, 14], ids=["grid", "windows"])
def test_the_plain_form_is_the_definition(window):
    *given, _ = case((20, 13), 64, window)
    assert furthest(attend(Plain(), 64, window, *given), expected((20, 13), 64, window)) <= 1e-6
