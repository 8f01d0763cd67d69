"""Self-attention over a grid with decomposed relative position (MViTv2, arXiv 2112.01526), whoever implements it.

Every token attends to every token of its grid: the logit of query (qh, qw) and key (kh, kw) is their scaled product
plus (unscaled q)·Rh[qh - kh] + (unscaled q)·Rw[qw - kw], as in the reference (`add_decomposed_rel_pos`). An
implementation takes the projection as it is, queries, keys and values side by side, and gives what the output
projection takes, so that one which works on another layout than heads by rows by columns need not go through it.
"""

import abc
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from samjax.ops import windows
from samjax.ops.batching import map_batch
from samjax.ops.mixed import add_bias

Platform = Literal["cpu", "gpu", "tpu"]
Extent = Literal["grid", "windows"]
Tables = tuple[Float[Array, "Lh D"], Float[Array, "Lw D"]]  # of relative positions, 2 * side - 1 rows each


class Workload(NamedTuple):
    """What is to be computed where."""

    platform: Platform
    dtype: jnp.dtype  # of queries, keys and values
    grid: tuple[int, int]  # rows and columns of tokens
    window: int | None  # rows and columns of a window within which tokens attend; None: over the whole grid
    heads: int
    head_dim: int  # channels of a head

    @property
    def extent(self) -> Extent:
        return "grid" if self.window is None else "windows"

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of tokens that attend to each other."""
        return self.grid if self.window is None else (self.window, self.window)


class AttentionForm(abc.ABC):
    """A form of attention over a grid: an implementation, as a frozen dataclass whose fields are its own options."""

    def unsupported(self, work: Workload) -> str | None:
        """Why this implementation cannot run so; None if it can."""
        return None

    @abc.abstractmethod
    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        """Attention over one grid; see `grid_attention`."""

    def over_windows(
        self, projected: Float[Array, "H W QKV"], bias: Float[Array, " QKV"], size: int, tables: Tables, heads: int
    ) -> Float[Array, "H W C"]:
        """Attention within windows of a grid; see `window_attention`."""

        @jax.checkpoint  # a gradient would keep the logits of all windows
        def within(window):
            return self.over_grid(window, tables, heads)

        qkv = windows.partition(add_bias(windows.pad_to_windows(projected, size), bias), size)
        grid = (projected.shape[0], projected.shape[1])
        return windows.merge(map_batch(within, qkv, together=self.windows_together), grid)

    @property
    def windows_together(self) -> int | None:
        """Windows that are computed together; None: all."""
        return None


def grid_attention(
    qkv: Float[Array, "H W QKV"], tables: Tables, heads: int, how: AttentionForm
) -> Float[Array, "H W C"]:
    """Every token of a grid attends to every token of it.

    Args:
        qkv: queries, keys and values of all heads, as the projection gives them: in this order, head after head.
        tables: of relative positions, for rows and for columns: entry i is the offset i - (side - 1) of query to key.
        heads: their number.
        how: the implementation.

    Raises:
        ValueError: a table does not have 2 * side - 1 rows.
    """
    _check_tables(tables, (qkv.shape[0], qkv.shape[1]))
    return how.over_grid(qkv, tables, heads)


def window_attention(
    projected: Float[Array, "H W QKV"],
    bias: Float[Array, " QKV"],
    size: int,
    tables: Tables,
    heads: int,
    how: AttentionForm,
) -> Float[Array, "H W C"]:
    """Every token of each window of `size` x `size` attends to every token of it.

    Windows that go beyond the grid, below and to the right, are filled with tokens whose projection is the bias alone,
    and they are attended to: the reference pads with zeros after the norm. So bias and projection come apart, and
    nothing that only pads is projected.

    Args:
        projected: queries, keys and values of all heads, as in `grid_attention`, without the projection's bias.
        bias: of the projection.
        size: rows and columns of a window.
        tables: of relative positions within a window.
        heads: their number.
        how: the implementation.

    Raises:
        ValueError: a table does not have 2 * size - 1 rows.
    """
    _check_tables(tables, (size, size))
    return how.over_windows(projected, bias, size, tables, heads)


def _check_tables(tables: Tables, grid: tuple[int, int]) -> None:
    for table, side in zip(tables, grid, strict=True):
        if len(table) != 2 * side - 1:
            raise ValueError(f"a relative position table for {side} tokens has {2 * side - 1} rows, got {len(table)}")


def split_heads(qkv: Float[Array, "H W QKV"], heads: int) -> Float[Array, "3 heads H W D"]:
    """Queries, keys and values by heads."""
    height, width = qkv.shape[:2]
    return qkv.reshape(height, width, 3, heads, -1).transpose(2, 3, 0, 1, 4)


def merge_heads(x: Float[Array, "heads H W D"]) -> Float[Array, "H W C"]:
    """Heads side by side, as the output projection takes them."""
    return x.transpose(1, 2, 0, 3).reshape(*x.shape[1:3], -1)


def relative_positions(table: Float[Array, "L D"], size: int) -> Float[Array, "size size D"]:
    """The table's entries for all pairs of cells along an axis of `size` cells: [q, k] is that of the offset q - k.

    Offsets run from -(size - 1) to size - 1, so L is 2 size - 1: the reference's `get_rel_pos` (image_encoder.py) where
    there are as many queries as keys.
    """
    offsets = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[offsets]
