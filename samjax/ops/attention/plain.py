"""The plain form: all logits of a grid, heads·(H·W)², exist at once. Right for windows, and the others' oracle."""

import dataclasses

from jaxtyping import Array, Float

from samjax.ops.attention.grid import AttentionForm, Tables, merge_heads, relative_positions, split_heads
from samjax.ops.attention.softmax import softmax_times
from samjax.ops.mixed import einsum


@dataclasses.dataclass(frozen=True)
class Plain(AttentionForm):
    """All at once."""

    windows_together: int | None = None  # pyright: ignore[reportIncompatibleMethodOverride]  (a field)

    def __post_init__(self) -> None:
        if self.windows_together is not None and self.windows_together < 1:
            raise ValueError(f"windows_together must be at least 1, or None for all, got {self.windows_together}")

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        q, k, v = split_heads(qkv, heads)
        return merge_heads(plain_attention(q, k, v, *tables))


def plain_attention(
    q: Float[Array, "heads H W D"],
    k: Float[Array, "heads H W D"],
    v: Float[Array, "heads H W D"],
    rel_pos_h: Float[Array, "Lh D"],
    rel_pos_w: Float[Array, "Lw D"],
) -> Float[Array, "heads H W D"]:
    """The attention of `grid_attention` for queries, keys and values by heads. Raises ValueError as that does."""
    heads, height, width, depth = q.shape
    rel_h = einsum("nhwd,hkd->nhwk", q, relative_positions(rel_pos_h, height))
    rel_w = einsum("nhwd,wkd->nhwk", q, relative_positions(rel_pos_w, width))
    logits = grid_logits(q, k.reshape(heads, -1, depth), rel_h, rel_w)
    return softmax_times(logits, v.reshape(heads, -1, depth)).reshape(q.shape)


def grid_logits(
    q: Float[Array, "*B T W D"],
    k: Float[Array, "*B S D"],
    rel_h: Float[Array, "*B T W H"],
    rel_w: Float[Array, "*B T W W"],
) -> Float[Array, "*B TW S"]:
    """Logits of T rows of queries against all keys: scaled q·k plus the bias of the key's row and of its column."""
    *batch, rows, columns, depth = q.shape
    q = q.reshape(*batch, rows * columns, depth)
    logits = einsum("...td,...sd->...ts", q * depth**-0.5, k)
    logits = logits.reshape(*batch, rows, columns, rel_h.shape[-1], rel_w.shape[-1])
    logits = logits + rel_h[..., :, None] + rel_w[..., None, :]
    return logits.reshape(*batch, rows * columns, -1)
