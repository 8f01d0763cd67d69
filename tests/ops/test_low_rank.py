"""Low-rank changes of a matrix against their definition in float64."""

import numpy as np
import pytest

from samjax.ops.low_rank import add_low_rank


def drawn(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("first", [0, 5, 10])
def test_a_block_of_columns_is_changed_by_the_scaled_product(first):
    kernel, a, b = drawn(0, 7, 15), drawn(1, 7, 2), drawn(2, 2, 5)
    expected = kernel.astype(np.float64)
    expected[:, first : first + 5] += 0.5 * (a.astype(np.float64) @ b)
    changed = np.asarray(add_low_rank(kernel, a, b, 0.5, first))
    np.testing.assert_allclose(changed, expected, rtol=0, atol=1e-6)
    others = np.r_[0:first, first + 5 : 15]
    np.testing.assert_array_equal(changed[:, others], kernel[:, others])


def test_nothing_changes_where_a_factor_is_zero():
    kernel = drawn(0, 7, 15)
    np.testing.assert_array_equal(add_low_rank(kernel, drawn(1, 7, 2), np.zeros((2, 15), np.float32), 3.0), kernel)
