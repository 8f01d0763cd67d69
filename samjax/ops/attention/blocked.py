"""A loop over heads and blocks of queries, each against all keys: only one block's logits exist at a time."""

import dataclasses

import jax
from jax import lax
from jaxtyping import Array, Float

from samjax.ops.attention.grid import AttentionForm, Tables, merge_heads, relative_positions, split_heads
from samjax.ops.attention.plain import grid_logits
from samjax.ops.attention.softmax import einsum, softmax_times


@dataclasses.dataclass(frozen=True)
class Blocked(AttentionForm):
    """Blocks of image rows of queries: on CPU their logits stay in cache, on accelerators they bound the memory."""

    rows: int = 8  # of a block, lowered to the nearest divisor of H: 8·64 x 4096 float32 logits are 8 MB
    heads_together: bool = False  # all heads in one block

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a block must have at least one row, got rows={self.rows}")

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        q, k, v = split_heads(qkv, heads)
        _, height, width, depth = q.shape
        rows = max(divisor for divisor in range(1, min(self.rows, height) + 1) if height % divisor == 0)
        rel_h, rel_w = (relative_positions(table, side) for table, side in zip(tables, (height, width), strict=True))

        def one_head(qkv):
            q, k, v = qkv
            row_bias = einsum("hwd,hkd->hwk", q, rel_h)
            column_bias = einsum("hwd,wkd->hwk", q, rel_w)
            k, v = k.reshape(-1, depth), v.reshape(-1, depth)

            @jax.checkpoint  # a gradient would keep the logits of all blocks
            def one_block(block):
                q, row_bias, column_bias = block
                return softmax_times(grid_logits(q, k, row_bias, column_bias), v)

            blocks = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), (q, row_bias, column_bias))
            return lax.map(one_block, blocks).reshape(height, width, depth)

        return merge_heads(jax.vmap(one_head)((q, k, v)) if self.heads_together else lax.map(one_head, (q, k, v)))
