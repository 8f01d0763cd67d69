"""Attention within shifted windows against its definition in float64."""

import jax
import numpy as np
import pytest

from samjax.ops import attention

shifted_window_attention = jax.jit(attention.shifted_window_attention, static_argnames=("window", "shift"))


@pytest.mark.parametrize("shift", [0, 1])
def test_cells_attend_within_the_shifted_windows_and_edges_do_not_meet(shift):
    """Windows begin at `shift`, so those at the edges are cut; a bias belongs to each offset (row, column)."""
    window, (height, width), heads = 3, (6, 9), 2
    random = np.random.RandomState(0)
    q, k, v = (random.standard_normal((height, width, heads, 4)).astype(np.float32) for _ in range(3))
    table = random.standard_normal(((2 * window - 1) ** 2, heads)).astype(np.float32)
    found = np.asarray(shifted_window_attention(q, k, v, table, window=window, shift=shift))

    cells = list(np.ndindex(height, width))
    number = {cell: ((cell[0] - shift) // window, (cell[1] - shift) // window) for cell in cells}
    for cell in cells:
        others = [other for other in cells if number[other] == number[cell]]
        offsets = [(cell[0] - r + window - 1) * (2 * window - 1) + cell[1] - c + window - 1 for r, c in others]
        for head in range(heads):
            keys, values = (np.array([x[other][head] for other in others], np.float64) for x in (k, v))
            logits = keys @ q[cell][head] / 2 + table[offsets, head]
            weights = np.exp(logits - logits.max())
            np.testing.assert_allclose(found[cell][head], weights / weights.sum() @ values, atol=1e-5)
