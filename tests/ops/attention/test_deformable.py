"""Deformable attention against its definition in float64; `tests/parity` has PyTorch's form, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import attention

SIZES = ((3, 2), (5, 4), (1, 7))
deformable_attention = jax.jit(attention.deformable_attention, static_argnums=1)


def drawn(queries=6, heads=2, points=3, channels=4):
    random = np.random.RandomState(0)
    values = random.standard_normal((sum(h * w for h, w in SIZES), heads, channels)).astype(np.float32)
    places = random.uniform(-0.2, 1.2, (queries, heads, len(SIZES), points, 2)).astype(np.float32)
    weights = random.random_sample((queries, heads, len(SIZES), points)).astype(np.float32)
    return values, places, weights / weights.sum((2, 3), keepdims=True)


def definition(values, places, weights):
    result, start = 0, 0
    for level, (rows, columns) in enumerate(SIZES):
        grid = values[start : start + rows * columns].astype(np.float64).reshape(rows, columns, *values.shape[1:])
        x, y = np.moveaxis(places[:, :, level].astype(np.float64) * (columns, rows), -1, 0)
        of_columns = np.maximum(0, 1 - np.abs(x[..., None] - (np.arange(columns) + 0.5)))
        of_rows = np.maximum(0, 1 - np.abs(y[..., None] - (np.arange(rows) + 0.5)))
        result = result + np.einsum("tnph,tnpw,hwnd,tnp->tnd", of_rows, of_columns, grid, weights[:, :, level])
        start += rows * columns
    return result


def test_each_head_sums_its_points_of_all_levels():
    values, places, weights = drawn()
    found = deformable_attention(values, SIZES, places, weights)
    np.testing.assert_allclose(found, definition(values, places, weights), atol=1e-6)


def test_half_precision_values_are_summed_in_float32():
    values, places, weights = drawn()
    half = jnp.asarray(values, jnp.bfloat16)
    found = deformable_attention(half, SIZES, places, weights)
    assert found.dtype == jnp.bfloat16
    expected = definition(np.asarray(half.astype(jnp.float32)), places, weights)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)


def test_levels_that_do_not_add_up_to_the_values_are_refused():
    values, places, weights = drawn()
    with pytest.raises(ValueError, match="have 33 cells, got values of 32"):
        deformable_attention(values[:-1], SIZES, places, weights)
