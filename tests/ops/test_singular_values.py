"""Changes of singular values against NumPy's decomposition of the matrix as the paper writes it."""

import numpy as np
import pytest

from samjax.ops.singular_values import add_singular, decompose


@pytest.fixture(params=[(3, 3, 4, 6), (1, 1, 9, 6), (9, 6), (1, 1, 4, 6)], ids=str)
def kernel(request):
    return np.random.RandomState(0).standard_normal(request.param).astype(np.float32)


def test_singular_values_are_those_of_outputs_by_inputs_and_window(kernel):
    torch_layout = np.moveaxis(kernel, -1, 0)  # out first; the order of the other axes does not matter
    expected = np.linalg.svd(torch_layout.reshape(6, -1).astype(np.float64), compute_uv=False)
    u, values, v = decompose(kernel)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert (u.shape[1], v.shape) == (len(values), (len(values), 6))


def test_shifted_values_are_the_new_singular_values(kernel):
    u, values, v = decompose(kernel)
    shift = np.linspace(0.3, 0.1, len(values), dtype=np.float32)
    changed = np.asarray(add_singular(kernel, u, shift, v))
    assert changed.shape == kernel.shape
    found = np.linalg.svd(changed.reshape(-1, 6).astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(found, np.asarray(values) + shift, rtol=1e-5)


def test_without_a_shift_the_kernel_stays_bit_for_bit(kernel):
    u, values, v = decompose(kernel)
    np.testing.assert_array_equal(add_singular(kernel, u, np.zeros_like(values), v), kernel)
