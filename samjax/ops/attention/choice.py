"""Which implementation computes attention where: one table, by platform, extent, dtype and shape.

The first row whose platform and extent match and whose form supports the shape wins; each row names the measurement
behind it, or says that there is none.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from samjax.ops.attention.blocked import Blocked
from samjax.ops.attention.grid import AttentionForm
from samjax.ops.attention.plain import Plain

Platform = Literal["cpu", "gpu", "tpu"]
Extent = Literal["grid", "windows"]


class Choice(NamedTuple):
    """A row of the table."""

    platform: Platform
    extent: Extent
    how: AttentionForm
    measured: str


CHOICES: tuple[Choice, ...] = (
    # One small thing after the other, so that it stays in cache.
    Choice("cpu", "grid", Blocked(rows=8), "docs/benchmarks.md, encoder on two cores"),
    Choice("cpu", "windows", Plain(windows_together=1), "docs/benchmarks.md, encoder on two cores"),
    # Large batches; all logits of a whole grid would not fit in memory.
    Choice("gpu", "grid", Blocked(rows=8, heads_together=True), "unmeasured"),
    Choice("gpu", "windows", Plain(), "unmeasured"),
    Choice("tpu", "grid", Blocked(rows=8, heads_together=True), "unmeasured"),
    Choice("tpu", "windows", Plain(), "unmeasured"),
)


def choose(
    platform: Platform,
    extent: Extent,
    dtype: jnp.dtype,
    grid: tuple[int, int],
    head_dim: int,
    asked: AttentionForm | None = None,
) -> AttentionForm:
    """The implementation for attention over grids of (rows, columns) tokens with heads of `head_dim` channels.

    With `asked` that one. Raises ValueError, with the reasons, if it cannot run so, or if no row's can.
    """
    if asked is not None:
        if reason := asked.unsupported(platform, dtype, grid, head_dim):
            raise ValueError(f"{asked} cannot compute attention over {grid[0]} x {grid[1]} tokens here: {reason}")
        return asked
    reasons = []
    for row in CHOICES:
        if (row.platform, row.extent) == (platform, extent):
            reason = row.how.unsupported(platform, dtype, grid, head_dim)
            if reason is None:
                return row.how
            reasons.append(f"{row.how}: {reason}")
    raise ValueError(f"no form of attention over {extent} runs on {platform}: {'; '.join(reasons) or 'there is none'}")
