"""A kernel for TPUs that reads the projection as it is and keeps the keys on chip (`block`)."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float

from samjax.ops.attention.grid import AttentionForm, Tables, Workload
from samjax.ops.attention.tpu.sizes import COLUMNS, LANES, padded
from samjax.ops.batching import largest_divisor, mesh_of

_TOO_OLD = tuple(f"TPU v{generation}" for generation in (2, 3, 4))  # which do not roll lanes by rows
_MAX_SIDE = 128  # tokens
# Of the 64 MiB on a v5p's chip, the smallest, blocks of so many logits take 24, which leaves so many bytes for arrays.
_LOGITS, _ARRAYS = 1 << 20, 34 << 20


@dataclasses.dataclass(frozen=True)
class TPUKernel(AttentionForm):
    """Blocks of queries against all keys of a head, or of a window, which stay on chip.

    XLA cannot split a kernel over a mesh. Where arguments lie on one (`jax.device_put`), each device runs it on its
    part of a batch; arguments that are only placed by `in_shardings` do not show that. In `jax.shard_map` of your own
    give `check_vma=False`.
    """

    queries: int = 256  # at most, of a block over a whole grid
    interpret: bool = False  # computed by JAX, step by step, wherever it is: for tests

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"a block must have at least one query, got queries={self.queries}")

    def unsupported(self, work: Workload) -> str | None:
        if work.platform != "tpu" and not self.interpret:
            return "it is a kernel for TPUs"
        if not self.interpret and _attached_kind().startswith(_TOO_OLD):
            return f"it needs a TPU v5 or later, not {_attached_kind()}"
        if work.dtype != jnp.bfloat16 and not self.interpret:
            return f"it computes in bfloat16, not {work.dtype}"
        if reason := _ungrouped(work.heads, work.head_dim):
            return reason
        if max(work.sides) > _MAX_SIDE:
            return f"a side has at most {_MAX_SIDE} tokens, not {max(work.sides)}"
        (height, width), group = work.sides, math.lcm(work.head_dim, LANES)
        rows = 1 if work.window is None else height  # of queries, in the smallest block
        if rows * height * padded(width, COLUMNS) ** 2 > _LOGITS:
            return f"{height} x {width} tokens have more logits than fit on chip"
        if work.window is None:
            arrays = (
                height * padded(width, COLUMNS) * group * (2 * 2 + 2 * 4)
            )  # keys, values, and sums of their gradients
        else:  # seven strips in float32, and five blocks twice
            arrays = height * group * (7 * 4 * padded(work.grid[1] + width, COLUMNS) + 5 * 2 * 2 * work.grid[1])
        if arrays > _ARRAYS:
            return f"its arrays would take {arrays >> 20} MiB on chip, more than {_ARRAYS >> 20}"
        return None

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        from samjax.ops.attention.tpu import block, grid  # loads Pallas

        height, width = qkv.shape[:2]
        columns = padded(width, COLUMNS)
        most = max(1, min(self.queries, _LOGITS // (height * columns)) // columns)
        rows = largest_divisor(height, most)
        layout = block.Layout((height, width), columns, rows, *self._devices(qkv, heads))
        wide = jnp.pad(qkv, ((0, 0), (0, columns - width), (0, 0))) if columns > width else qkv
        y: Any = grid.over_grid(wide, tables, layout)
        return y[:, :width]

    def over_windows(
        self, projected: Float[Array, "H W QKV"], bias: Float[Array, " QKV"], size: int, tables: Tables, heads: int
    ) -> Float[Array, "H W C"]:
        from samjax.ops.attention.tpu import block, windows  # loads Pallas

        layout = block.Layout((size, size), padded(size, COLUMNS), size, *self._devices(projected, heads))
        return windows.over_windows(projected, bias, tables, layout)

    def _devices(self, qkv: Float[Array, "H W QKV"], heads: int) -> tuple[int, int, bool, AbstractMesh | None]:
        """The last fields of a layout. Raises ValueError if heads do not fill whole registers."""
        head_dim = qkv.shape[-1] // (3 * heads)
        if reason := _ungrouped(heads, head_dim):
            raise ValueError(f"TPUKernel cannot be used: {reason}")
        return head_dim, math.lcm(head_dim, LANES), self.interpret, mesh_of(qkv)


def _ungrouped(heads: int, head_dim: int) -> str | None:
    """Why the heads cannot be dealt to programs that work on whole registers; None if they can."""
    group, channels = math.lcm(head_dim, LANES), heads * head_dim
    if channels % group == 0:
        return None
    return f"heads of {head_dim} channels must together have a multiple of {group}, not {channels}"


@functools.cache
def _attached_kind() -> str:
    """What JAX calls this machine's TPUs, "TPU v5 lite" for instance; empty if it has none."""
    try:
        return jax.local_devices(backend="tpu")[0].device_kind
    except RuntimeError:
        return ""
