"""Self-attention over a grid with decomposed relative position (MViTv2, arXiv 2112.01526), whoever implements it.

Every token attends to every token of its grid: the logit of query (qh, qw) and key (kh, kw) is their scaled product
plus (unscaled q)·Rh[qh - kh] + (unscaled q)·Rw[qw - kw], as in the reference (`add_decomposed_rel_pos`). An
implementation takes the projection as it is, queries, keys and values side by side, and gives what the output
projection takes, so that one which works on another layout than heads by rows by columns need not go through it.
"""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from samjax.ops.batching import map_batch

Tables = tuple[Float[Array, "Lh D"], Float[Array, "Lw D"]]  # of relative positions, 2 * side - 1 rows each


class AttentionForm(abc.ABC):
    """A form of attention over a grid: an implementation, as a frozen dataclass whose fields are its own options."""

    def unsupported(self, platform: str, dtype: jnp.dtype, grid: tuple[int, int], head_dim: int) -> str | None:
        """Why this implementation cannot run so; None if it can.

        Args:
            platform: "cpu", "gpu" or "tpu".
            dtype: of queries, keys and values.
            grid: (rows, columns) of tokens that attend to each other.
            head_dim: channels of a head.
        """
        return None

    @abc.abstractmethod
    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        """Attention over one grid; see `grid_attention`."""

    def over_windows(
        self, qkv: Float[Array, "windows H W QKV"], tables: Tables, heads: int
    ) -> Float[Array, "windows H W C"]:
        """Attention within each window of a grid; see `grid_attention`."""

        @jax.checkpoint  # a gradient would keep the logits of all windows
        def within(window):
            return self.over_grid(window, tables, heads)

        return map_batch(within, qkv, together=self.windows_together)

    @property
    def windows_together(self) -> int | None:
        """Windows that are computed together; None: all."""
        return None


def grid_attention(
    qkv: Float[Array, "*windows H W QKV"], tables: Tables, heads: int, how: AttentionForm
) -> Float[Array, "*windows H W C"]:
    """Every token of a grid, or of each window of one, attends to every token of it.

    Args:
        qkv: queries, keys and values of all heads, as the projection gives them: in this order, head after head.
        tables: of relative positions, for rows and for columns: entry i is the offset i - (side - 1) of query to key.
        heads: their number.
        how: the implementation.

    Raises:
        ValueError: a table does not have 2 * side - 1 rows.
    """
    return how.over_windows(qkv, tables, heads) if qkv.ndim == 4 else how.over_grid(qkv, tables, heads)


def split_heads(qkv: Float[Array, "H W QKV"], heads: int) -> Float[Array, "3 heads H W D"]:
    """Queries, keys and values by heads."""
    height, width = qkv.shape[:2]
    return qkv.reshape(height, width, 3, heads, -1).transpose(2, 3, 0, 1, 4)


def merge_heads(x: Float[Array, "heads H W D"]) -> Float[Array, "H W C"]:
    """Heads side by side, as the output projection takes them."""
    return x.transpose(1, 2, 0, 3).reshape(*x.shape[1:3], -1)


def relative_positions(table: Float[Array, "L D"], size: int) -> Float[Array, "size size D"]:
    """The table's entries for all pairs of cells along an axis of `size` cells: [q, k] is that of the offset q - k.

    Offsets run from -(size - 1) to size - 1: the reference's `get_rel_pos` (image_encoder.py) where there are as many
    queries as keys. Raises ValueError unless L = 2 size - 1.
    """
    if table.shape[0] != 2 * size - 1:
        raise ValueError(f"a relative position table for {size} tokens has {2 * size - 1} rows, got {table.shape[0]}")
    offsets = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[offsets]
