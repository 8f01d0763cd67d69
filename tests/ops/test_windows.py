import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from samjax.ops import windows

sides = st.integers(1, 13)


def numbered(height: int, width: int) -> jnp.ndarray:
    return jnp.arange(1, 2 * height * width + 1).reshape(height, width, 2)


@settings(max_examples=15)  # each size compiles
@given(height=sides, width=sides, size=st.integers(1, 6))
def test_merging_undoes_padding_and_partitioning(height, width, size):
    grid = numbered(height, width)
    parts = windows.partition(windows.pad_to_windows(grid, size), size)
    assert parts.shape == (-(-height // size) * -(-width // size), size, size, 2)
    np.testing.assert_array_equal(windows.merge(parts, (height, width)), grid)


def test_windows_come_in_row_major_order():
    grid = jnp.arange(24).reshape(4, 6)
    parts = windows.partition(grid, 2)
    np.testing.assert_array_equal(parts[0], [[0, 1], [6, 7]])
    np.testing.assert_array_equal(parts[1], [[2, 3], [8, 9]])
    np.testing.assert_array_equal(parts[3], [[12, 13], [18, 19]])


def test_padding_is_zeros_below_and_to_the_right():
    padded = windows.pad_to_windows(numbered(4, 5), 3)
    assert padded.shape == (6, 6, 2)
    assert (padded[4:] == 0).all()
    assert (padded[:, 5:] == 0).all()
    np.testing.assert_array_equal(padded[:4, :5], numbered(4, 5))


def test_a_grid_that_fits_is_not_padded():
    assert windows.pad_to_windows(numbered(4, 6), 2).shape == (4, 6, 2)
