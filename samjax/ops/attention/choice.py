"""Which implementation computes attention where: one table, by platform, extent, dtype and shape.

The first row whose platform and extent match and whose form supports the shape wins; each row names the measurement
behind it, or says that there is none.
"""

from typing import NamedTuple

from samjax.ops.attention.blocked import Blocked
from samjax.ops.attention.cudnn import CuDNN
from samjax.ops.attention.folded import Folded
from samjax.ops.attention.grid import AttentionForm, Extent, Platform, Workload
from samjax.ops.attention.plain import Plain
from samjax.ops.attention.tpu import TPUKernel


class Choice(NamedTuple):
    """A row of the table."""

    platform: Platform
    extent: Extent
    how: AttentionForm
    measured: str


CHOICES: tuple[Choice, ...] = (
    # One small thing after the other, so that it stays in cache.
    Choice("cpu", "grid", Blocked(rows=8), "docs/benchmarks.md, Inference"),
    Choice("cpu", "windows", Plain(windows_together=1), "docs/benchmarks.md, Inference"),
    # Large batches. What is not plain is for half precision; plain over a whole grid would not fit in memory.
    Choice("gpu", "grid", CuDNN(), "unmeasured"),
    Choice("gpu", "grid", Folded(), "unmeasured"),
    Choice("gpu", "grid", Blocked(heads_together=True), "unmeasured"),
    Choice("gpu", "windows", CuDNN(), "unmeasured"),
    Choice("gpu", "windows", Plain(), "unmeasured"),
    Choice("tpu", "grid", TPUKernel(), "docs/benchmarks.md, Bytes on a TPU"),
    Choice("tpu", "grid", Folded(), "docs/benchmarks.md, Bytes on a TPU"),
    Choice("tpu", "grid", Blocked(heads_together=True), "docs/benchmarks.md, Bytes on a TPU"),
    Choice("tpu", "windows", TPUKernel(), "docs/benchmarks.md, Bytes on a TPU"),
    Choice("tpu", "windows", Plain(), "docs/benchmarks.md, Bytes on a TPU"),
)


def choose(work: Workload, asked: AttentionForm | None = None) -> AttentionForm:
    """The implementation for a workload; with `asked` that one.

    Raises ValueError, with the reasons, if that cannot run so, or if no row's can.
    """
    rows, columns = work.sides
    if asked is not None:
        if reason := asked.unsupported(work):
            raise ValueError(f"{asked} cannot compute attention over {rows} x {columns} tokens here: {reason}")
        return asked
    reasons = []
    for row in CHOICES:
        if (row.platform, row.extent) == (work.platform, work.extent):
            reason = row.how.unsupported(work)
            if reason is None:
                return row.how
            reasons.append(f"{row.how}: {reason}")
    told = "; ".join(reasons) or "there is none"
    raise ValueError(f"no form of attention over {work.extent} runs on {work.platform}: {told}")
