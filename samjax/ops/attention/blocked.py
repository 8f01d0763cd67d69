"""A loop over heads and blocks of queries, each against all keys: only one block's logits exist at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from samjax.ops.attention.grid import AttentionForm, Tables, merge_heads, relative_positions, split_heads
from samjax.ops.attention.plain import grid_logits
from samjax.ops.attention.softmax import softmax_times
from samjax.ops.batching import largest_divisor
from samjax.ops.mixed import einsum


@dataclasses.dataclass(frozen=True)
class Blocked(AttentionForm):
    """Blocks of image rows of queries: on CPU their logits stay in cache, on accelerators they bound the memory."""

    rows: int = 8  # of a block, lowered to the nearest divisor of H: 8·64 x 4096 float32 logits are 8 MB
    heads_together: bool = False  # all heads in one block

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a block must have at least one row, got rows={self.rows}")

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        grid = (qkv.shape[0], qkv.shape[1])
        rel_h, rel_w = (relative_positions(table, side) for table, side in zip(tables, grid, strict=True))

        def prepare(q, k, v):
            bias = einsum("hwd,hkd->hwk", q, rel_h), einsum("hwd,wkd->hwk", q, rel_w)
            return (q, *bias), (k.reshape(-1, k.shape[-1]), v.reshape(-1, v.shape[-1]))

        def attend(block, keys):
            (q, row_bias, column_bias), (k, v) = block, keys
            return softmax_times(grid_logits(q, k, row_bias, column_bias), v)

        return by_blocks(prepare, attend, qkv, heads, self.rows, heads_together=self.heads_together)


def by_blocks(
    prepare: Callable[..., tuple[Any, Any]],
    attend: Callable[[Any, Any], Float[Array, "T D"]],
    qkv: Float[Array, "H W QKV"],
    heads: int,
    rows: int,
    *,
    heads_together: bool,
) -> Float[Array, "H W C"]:
    """Attention for one head, or all, and one block of `rows` image rows of queries after the other.

    Args:
        prepare: of a head's queries, keys and values, each (H, W, D), makes what `attend` takes: arrays of (H, W, ...),
            of which it gets blocks, and what it gets whole.
        attend: the result for a block of queries.
        qkv: queries, keys and values of all heads, as in `grid_attention`.
        heads: their number.
        rows: of a block, lowered to the nearest divisor of H.
        heads_together: all heads in one block.
    """
    q, k, v = split_heads(qkv, heads)
    _, height, width, depth = q.shape
    rows = largest_divisor(height, rows)

    def one_head(qkv):
        queries, keys = prepare(*qkv)

        @jax.checkpoint  # a gradient would keep the logits of all blocks
        def one_block(block):
            return attend(block, keys)

        blocks = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), queries)
        return lax.map(one_block, blocks).reshape(height, width, depth)

    return merge_heads(jax.vmap(one_head)((q, k, v)) if heads_together else lax.map(one_head, (q, k, v)))
