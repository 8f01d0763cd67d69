"""Sine positions against the published formula in float64."""

import numpy as np
import pytest

from samjax.ops.sines import sine_positions


@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
def test_half_of_the_features_are_the_row_s_and_half_the_column_s(size):
    features = 12
    expected = np.zeros((*size, features))
    for row, column in np.ndindex(size):
        for half, (place, side) in enumerate(((row, size[0]), (column, size[1]))):
            scaled = (place + 1) / (side + 1e-6) * 2 * np.pi
            for i in range(features // 2):
                phase = scaled / 10000 ** (2 * (i // 2) / (features // 2))
                expected[row, column, half * features // 2 + i] = np.cos(phase) if i % 2 else np.sin(phase)
    np.testing.assert_allclose(sine_positions(size, features), expected.reshape(-1, features), atol=2e-6)
