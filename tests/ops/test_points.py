"""Sampling between cells against its definition in float64; `tests/parity` has PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import points as sampling
from samjax.ops.points import cell_centres

sample_points = jax.jit(sampling.sample_points)


def bilinear(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Each cell weighs max(0, 1 - |dx|)·max(0, 1 - |dy|) at a distance of (dx, dy) cells from its centre."""
    height, width, _ = grid.shape
    x, y = (points.astype(np.float64) * (width, height)).T
    of_columns = np.maximum(0, 1 - np.abs(x[:, None] - (np.arange(width) + 0.5)))
    of_rows = np.maximum(0, 1 - np.abs(y[:, None] - (np.arange(height) + 0.5)))
    return np.einsum("ph,pw,hwc->pc", of_rows, of_columns, grid.astype(np.float64))


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (6, 1)])
def test_values_are_interpolated_between_cells_and_zeros_lie_beyond_the_edges(size):
    random = np.random.RandomState(0)
    grid = random.standard_normal((*size, 3)).astype(np.float32)
    points = random.uniform(-0.4, 1.4, (60, 2)).astype(np.float32)
    np.testing.assert_allclose(sample_points(grid, points), bilinear(grid, points), atol=2e-6)


def test_centres_of_cells_have_the_cells_values():
    grid = np.random.RandomState(0).standard_normal((5, 7, 2)).astype(np.float32)
    sampled = sample_points(grid, cell_centres((5, 7)))
    np.testing.assert_allclose(sampled.reshape(grid.shape), grid, atol=1e-5)


def test_a_cell_stands_for_the_middle_of_its_pixels():
    """Cell (x, y) at stride 8: pixel coordinates ((x + 0.5)·8, (y + 0.5)·8) of an image of 24 x 16."""
    pixels = np.asarray(cell_centres((2, 3))) * (24, 16)
    np.testing.assert_allclose(pixels, [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]], rtol=1e-6)


def test_masks_of_booleans_are_sampled_as_numbers():
    mask = np.zeros((4, 4, 1), bool)
    mask[:, 2:] = True
    points = np.array([[0.5, 0.5], [0.875, 0.5], [0.125, 0.5]], np.float32)  # between the halves, within each
    np.testing.assert_allclose(sample_points(mask, points)[:, 0], [0.5, 1, 0], atol=1e-6)


def test_half_precision_grids_are_summed_in_float32():
    grid = jnp.full((4, 4, 1), 257, jnp.bfloat16) + jnp.arange(4, dtype=jnp.bfloat16)[None, :, None] * 2
    points = np.array([[0.4, 0.5]], np.float32)
    sampled = sample_points(grid, points)
    assert sampled.dtype == jnp.float32
    np.testing.assert_allclose(sampled, bilinear(np.asarray(grid.astype(jnp.float32)), points), rtol=1e-6)


def test_the_gradients_are_those_of_the_definition():
    random = np.random.RandomState(1)
    grid = random.standard_normal((5, 7, 3)).astype(np.float32)
    points = random.uniform(-0.1, 1.1, (9, 2)).astype(np.float32)
    out = random.standard_normal((9, 3)).astype(np.float32)
    in_grid, in_points = jax.grad(lambda *given: jnp.vdot(sample_points(*given), out), (0, 1))(grid, points)

    def loss(grid, points):
        return np.vdot(bilinear(grid, points), out)

    step = 1e-6
    for index in ((0, 0, 0), (2, 3, 1), (4, 6, 2)):
        moved = grid.astype(np.float64)
        moved[index] += step
        np.testing.assert_allclose(in_grid[index], (loss(moved, points) - loss(grid, points)) / step, atol=1e-4)
    for index in np.ndindex(points.shape):
        moved = points.astype(np.float64)
        moved[index] += step
        slope = (loss(grid, moved) - loss(grid, points.astype(np.float64))) / step
        np.testing.assert_allclose(in_points[index], slope, rtol=1e-3, atol=1e-3)
