"""Relative position folded into queries and keys, so that attention is nothing but one product, softmax and product.

softmax(s q·k + q·Rh[qh - kh] + q·Rw[qw - kw]) = softmax(q'·k') with q' = [s q, q Rh[qh - ·], q Rw[qw - ·]] and
k' = [k, a one at the key's row, a one at its column]. The mathematics is the same; in half precision the terms of
relative position are rounded like queries and keys, which the forms that add a float32 bias do not do.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from samjax.ops.attention.blocked import by_blocks
from samjax.ops.attention.grid import AttentionForm, Tables, Workload, relative_positions
from samjax.ops.attention.softmax import softmax_times
from samjax.ops.mixed import einsum


@dataclasses.dataclass(frozen=True)
class Folded(AttentionForm):
    """Blocks of image rows of folded queries, each against all folded keys, by plain XLA."""

    rows: int = 8  # of a block, lowered to the nearest divisor of H
    heads_together: bool = True  # all heads in one block

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a block must have at least one row, got rows={self.rows}")

    def unsupported(self, work: Workload) -> str | None:
        if work.dtype == jnp.float32 and work.platform != "cpu":
            return "float32 products are rounded there by default, and relative positions with them"
        return None

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        def prepare(q, k, v):
            q, k = fold(q, k, tables)
            return q, (k.reshape(-1, k.shape[-1]), v.reshape(-1, v.shape[-1]))

        def attend(q, keys):
            k, v = keys
            return softmax_times(einsum("td,sd->ts", q.reshape(-1, q.shape[-1]), k), v)

        return by_blocks(prepare, attend, qkv, heads, self.rows, heads_together=self.heads_together)


def fold(
    q: Float[Array, "H W *heads D"], k: Float[Array, "H W *heads D"], tables: Tables
) -> tuple[Float[Array, "H W *heads _"], Float[Array, "H W *heads _"]]:
    """Queries and keys of D + H + W channels whose product is the logit, scale and relative position included."""
    height, width, *heads, depth = q.shape
    n = "n" * len(heads)
    by_row = einsum(f"hw{n}d,hkd->hw{n}k", q, relative_positions(tables[0], height)).astype(q.dtype)
    by_column = einsum(f"hw{n}d,wkd->hw{n}k", q, relative_positions(tables[1], width)).astype(q.dtype)
    ones = jnp.eye(height, dtype=k.dtype), jnp.eye(width, dtype=k.dtype)
    between = (1,) * len(heads)
    rows = jnp.broadcast_to(ones[0].reshape(height, 1, *between, height), (*q.shape[:-1], height))
    columns = jnp.broadcast_to(ones[1].reshape(1, width, *between, width), (*q.shape[:-1], width))
    return jnp.concatenate([q * depth**-0.5, by_row, by_column], -1), jnp.concatenate([k, rows, columns], -1)
