"""Attention within windows that are shifted from block to block (Swin, arXiv 2103.14030, section 3.2)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from samjax.ops.attention.softmax import softmax_times
from samjax.ops.mixed import einsum
from samjax.ops.windows import merge, partition

_APART = -100.0  # added where two cells of a window are no neighbours in the grid, as published


def shifted_window_attention(
    q: Float[Array, "Hp Wp heads D"],
    k: Float[Array, "Hp Wp heads D"],
    v: Float[Array, "Hp Wp heads D"],
    table: Float32[Array, "offsets heads"],
    window: int,
    shift: int,
) -> Float[Array, "Hp Wp heads D"]:
    """Attends within windows of a grid that is rolled by `shift` cells up and left, and rolls the result back.

    Args:
        q: queries, unscaled, of a grid whose sides are multiples of `window`.
        k: keys.
        v: values.
        table: learned biases of the (2·window - 1)² offsets (row, column) between two cells of a window.
        window: cells along its side.
        shift: cells; 0 is none.
    """
    height, width, heads, channels = q.shape
    q, k, v = (
        partition(jnp.roll(x, (-shift, -shift), (0, 1)), window).reshape(-1, window * window, heads, channels)
        for x in (q, k, v)
    )
    logits = einsum("wtnd,wsnd->wnts", q * channels**-0.5, k)
    bias = table.astype(jnp.float32)[relative_offsets(window)]  # (T, S, heads)
    logits = logits + jnp.moveaxis(bias, 2, 0)[None]
    if shift:
        regions = _regions((height, width), window, shift)
        apart = np.where(regions[:, :, None] != regions[:, None], np.float32(_APART), np.float32(0))
        logits = logits + apart[:, None]
    y = jnp.moveaxis(softmax_times(logits, jnp.moveaxis(v, 2, 1)), 1, 2)  # (windows, T, heads, D)
    y = merge(y.reshape(-1, window, window, heads, channels), (height, width))
    return jnp.roll(y, (shift, shift), (0, 1))


def relative_offsets(window: int) -> Int[np.ndarray, "T T"]:
    """The row of the table for each pair of cells of a window: of their offset (row, column), row by row."""
    row, column = np.divmod(np.arange(window * window), window)
    rows, columns = (x[:, None] - x[None] + window - 1 for x in (row, column))
    return rows * (2 * window - 1) + columns


def _regions(grid: tuple[int, int], window: int, shift: int) -> Int[np.ndarray, "windows T"]:
    """Numbers of the parts of a rolled grid: cells of a window with other numbers come from opposite edges."""
    parts = [(np.arange(side) >= side - window).astype(int) + (np.arange(side) >= side - shift) for side in grid]
    numbers = parts[0][:, None] * 3 + parts[1][None]
    windows = numbers.reshape(grid[0] // window, window, grid[1] // window, window).swapaxes(1, 2)
    return windows.reshape(-1, window * window)
