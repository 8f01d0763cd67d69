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
from samjax.ops.batching import mesh_of

_TOO_OLD = tuple(f"TPU v{generation}" for generation in (2, 3, 4))  # which do not roll lanes by rows
_LANES, _COLUMNS, _MAX_SIDE = 128, 16, 128
_LOGITS = 1 << 20  # of a block over a whole grid, of which a gradient has four at a time, 4 MiB each
_KEYS = 40 << 20  # bytes on chip of keys, values (2 each) and the sums of their gradients (4); a v5p has 64 MiB in all


@dataclasses.dataclass(frozen=True)
class TPUKernel(AttentionForm):
    """Blocks of queries against all keys of a head, or of a window, which stay on chip."""

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
        group, channels = math.lcm(work.head_dim, _LANES), work.heads * work.head_dim
        if channels % group:
            return f"heads of {work.head_dim} channels must together have a multiple of {group}, not {channels}"
        if max(work.grid) > _MAX_SIDE:
            return f"a side has at most {_MAX_SIDE} tokens, not {max(work.grid)}"
        keys = work.grid[0] * _padded(work.grid[1]) * group * 12
        if work.extent == "grid" and keys > _KEYS:
            return f"keys and values would take {keys >> 20} MiB on chip, more than {_KEYS >> 20}"
        return None

    def over_grid(self, qkv: Float[Array, "H W QKV"], tables: Tables, heads: int) -> Float[Array, "H W C"]:
        from samjax.ops.attention.tpu import block, grid  # loads Pallas

        height, width = qkv.shape[:2]
        columns = _padded(width)
        most = max(1, min(self.queries, _LOGITS // (height * columns)) // columns)
        rows = max(divisor for divisor in range(1, min(most, height) + 1) if height % divisor == 0)
        layout = block.Layout((height, width), columns, rows, *self._devices(qkv, heads))
        padded = jnp.pad(qkv, ((0, 0), (0, columns - width), (0, 0))) if columns > width else qkv
        y: Any = grid.over_grid(padded, tables, layout)
        return y[:, :width]

    def over_windows(
        self, projected: Float[Array, "H W QKV"], bias: Float[Array, " QKV"], size: int, tables: Tables, heads: int
    ) -> Float[Array, "H W C"]:
        from samjax.ops.attention.tpu import block, windows  # loads Pallas

        layout = block.Layout((size, size), _padded(size), size, *self._devices(projected, heads))
        return windows.over_windows(projected, bias, tables, layout)

    def _devices(self, qkv: Float[Array, "H W QKV"], heads: int) -> tuple[int, int, bool, AbstractMesh | None]:
        """The last fields of a layout."""
        head_dim = qkv.shape[-1] // (3 * heads)
        return head_dim, math.lcm(head_dim, _LANES), self.interpret, mesh_of(qkv)


@functools.cache
def _attached_kind() -> str:
    """What JAX calls this machine's TPUs, "TPU v5 lite" for instance; empty if it has none."""
    try:
        return jax.local_devices(backend="tpu")[0].device_kind
    except RuntimeError:
        return ""


def _padded(columns: int) -> int:
    return -(-columns // _COLUMNS) * _COLUMNS
