"""Kernels for TPUs: attention over a grid, or within windows of one, that reads and writes the projections' layout.

A program works for as many heads as fill whole rows of 128 lanes: two of 64 channels, eight of 80. It reads their
queries, keys and values out of the projection and keeps the keys and values on chip, so that nothing but the projection
and the result moves. Heads are told apart by masks of lanes: a product over 128 lanes of which 64 are zero costs the
matrix unit what one over 64 does, and no lane is ever shifted.

Of relative position a query has one logit for each row and one for each column of keys. They are one more product: the
query times all rows of a table, rolled so that lane i holds key row i, times a constant with a one where a key lies in
that row. A last lane, where needed, tells keys that only pad. The gradient rolls back; with lanes in reverse that is
the same roll, and the hardware has only this one.

The layout of a window's tokens: its columns are padded to 16, a tile of bfloat16, with the columns that follow in the
grid; as queries they are overwritten by the next window, as keys they are masked.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float, Float32

from samjax.ops.attention.tpu.sizes import LANES, padded
from samjax.ops.batching import on_every_device

VMEM = 100 << 20  # bytes on chip that a program may use; `TPUKernel.unsupported` refuses what would not fit in 64 MiB
_MASKED = -1e30  # the logit of a key that only pads


class Layout(NamedTuple):
    """Sizes that a program is made for."""

    grid: tuple[int, int]  # rows and columns of tokens that attend to each other
    columns: int  # the same columns, padded to a multiple of `COLUMNS`
    rows: int  # of queries, in one block
    head_dim: int
    group: int  # channels of the heads that a program works for
    interpret: bool
    mesh: AbstractMesh | None  # whose devices each run the programs of their part of a batch

    @property
    def lanes(self) -> int:
        """Lanes for what a query's relative positions add: by row, by column, and one for keys that only pad."""
        used = max(2 * max(self.grid) - 1, self.grid[0] + self.columns + self.pads)
        return padded(used, LANES)

    @property
    def pads(self) -> bool:
        return self.columns > self.grid[1]

    @property
    def heads(self) -> list[tuple[int, int, int, int]]:
        """Each head's first and last channel, within whole registers from a first to a last lane."""
        ends = [(i, i + self.head_dim) for i in range(0, self.group, self.head_dim)]
        return [(start, stop, start // LANES * LANES, padded(stop, LANES)) for start, stop in ends]


def _dot(a: Any, b: Any, axes: tuple[int, int]) -> Any:
    """The product over axis `axes[0]` of a and `axes[1]` of b, in float32."""
    exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dims = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32, precision=exact)


def index(shape: tuple[int, ...], axis: int) -> Any:
    """Each element's index along an axis."""
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def _roll(x: Any, layout: Layout, axis: int, first: Any) -> Any:
    """(T, lanes) whose lane of the offset 0 comes to lie on the lane of the query's own row (axis 0) or column (1).

    `first` is the row or column of the first query. Of lanes in reverse it is the inverse.
    """
    grid = x.reshape(-1, layout.columns, layout.lanes)
    shift = (first - (layout.grid[axis] - 1) + (layout.grid[0] if axis else 0)) % layout.lanes
    return pltpu.roll(grid, jnp.int32(shift), 2, stride=1, stride_axis=axis).reshape(x.shape)


def _position_logits(q: Any, tables: Sequence[Any], layout: Layout, row: Any) -> Any:
    """What the queries' relative positions add to logits: lane i for key row i, lane H + i for key column i."""
    by_row, by_column = (
        _roll(_dot(q, table, (1, 1)), layout, axis, first)
        for axis, (table, first) in enumerate(zip(tables, (row, 0), strict=True))
    )
    lane = index(by_row.shape, 1)
    height, used = layout.grid[0], layout.grid[0] + layout.columns
    added = jnp.where(lane < height, by_row, jnp.where(lane < used, by_column, 0.0))
    return jnp.where(lane == used, 1.0, added) if layout.pads else added


def _position_logits_gradient(
    added: Any, q: Any, tables: Sequence[Any], layout: Layout, row: Any
) -> tuple[Any, tuple[Any, Any]]:
    """The gradient of `_position_logits` in the queries and the tables; all lanes are in reverse."""
    lane = layout.lanes - 1 - index(added.shape, 1)
    height, used = layout.grid[0], layout.grid[0] + layout.columns
    by_row = _roll(jnp.where(lane < height, added, 0.0), layout, 0, row).astype(q.dtype)
    by_column = _roll(jnp.where((lane >= height) & (lane < used), added, 0.0), layout, 1, 0).astype(q.dtype)
    dq = _dot(by_row, tables[0], (1, 0)) + _dot(by_column, tables[1], (1, 0))
    return dq, (_dot(by_row, q, (0, 0)), _dot(by_column, q, (0, 0)))


def _weights(q: Any, k: Any, added: Any, where: Any, scale: float) -> tuple[Any, Any]:
    """Softmax over all keys, not yet divided by its sum, and the sum."""
    logits = _dot((q.astype(jnp.float32) * scale).astype(q.dtype), k, (1, 1))
    logits = logits + _dot(added.astype(q.dtype), where, (1, 0))
    weights = jnp.exp(logits - logits.max(1, keepdims=True))
    return weights, weights.sum(1, keepdims=True)


def attend(qkv: Sequence[Any], constants: Sequence[Any], layout: Layout, row: Any) -> Any:
    """The result of a block of queries for all heads of a program, (T, group).

    Args:
        qkv: queries (T, group), keys and values (S, group), row by row of the grid, `Layout.columns` in each.
        constants: of `constants_of`: two tables of relative positions (lanes, group), and the keys' places (lanes, S).
        layout: the sizes.
        row: the grid's row of the first query.
    """
    q, k, v = qkv
    *tables, where = constants
    result = {}
    for start, stop, low, high in layout.heads:
        lane = index((len(q), high - low), 1) + low
        mine = (lane >= start) & (lane < stop)
        q_head = jnp.where(mine, q[:, low:high], jnp.zeros((), q.dtype))
        added = _position_logits(q_head, [table[:, low:high] for table in tables], layout, row)
        weights, sums = _weights(q_head, k[:, low:high], added, where, layout.head_dim**-0.5)
        attended = jnp.where(mine, _dot(weights.astype(q.dtype), v[:, low:high], (1, 0)) / sums, 0.0)
        _add(result, attended, low, high)
    return _side_by_side(result)


def _add(registers: dict[int, Any], x: Any, low: int, high: int) -> None:
    """Adds x, of lanes from `low` to `high`, to registers by their first lane."""
    for lane in range(low, high, LANES):
        part = x[:, lane - low : lane - low + LANES]
        registers[lane] = registers[lane] + part if lane in registers else part


def _side_by_side(registers: dict[int, Any]) -> Any:
    parts = [registers[lane] for lane in sorted(registers)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, 1)


def attend_gradient(
    qkv: Sequence[Any], d_out: Any, constants: Sequence[Any], layout: Layout, row: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """The gradient of `attend` in queries, keys, values and both tables, whose lanes are in reverse.

    Args:
        qkv: as for `attend`.
        d_out: (T, group) the gradient in the result of `attend`.
        constants: as for `attend`, and the same three with their lanes in reverse.
        layout: the sizes.
        row: the grid's row of the first query.
    """
    q, k, v = qkv
    by_row, by_column, where, *reverse_tables, reverse_where = constants
    dq, dk, dv, d_rows, d_columns = {}, {}, {}, {}, {}
    scale = layout.head_dim**-0.5
    for start, stop, low, high in layout.heads:
        lane = index((len(q), high - low), 1) + low
        mine = (lane >= start) & (lane < stop)
        zero = jnp.zeros((), q.dtype)
        q_head, d_head = jnp.where(mine, q[:, low:high], zero), jnp.where(mine, d_out[:, low:high], zero)
        k_head, v_head = k[:, low:high], v[:, low:high]
        added = _position_logits(q_head, (by_row[:, low:high], by_column[:, low:high]), layout, row)
        weights, sums = _weights(q_head, k_head, added, where, scale)
        weights = weights / sums
        d_weights = _dot(d_head, v_head, (1, 1))
        d_logits = weights * (d_weights - (weights * d_weights).sum(1, keepdims=True))
        d_logits = d_logits.astype(q.dtype)
        d_added, tables = _dot(d_logits, reverse_where, (1, 1)), [table[:, low:high] for table in reverse_tables]
        dq_of_positions, of_tables = _position_logits_gradient(d_added, q_head, tables, layout, row)
        _add(dq, jnp.where(mine, scale * _dot(d_logits, k_head, (1, 0)) + dq_of_positions, 0.0), low, high)
        _add(dk, scale * _dot(d_logits, q_head, (0, 0)), low, high)
        _add(dv, _dot(weights.astype(q.dtype), d_head, (0, 0)), low, high)
        _add(d_rows, of_tables[0], low, high)
        _add(d_columns, of_tables[1], low, high)
    dq, dk, dv, d_rows, d_columns = map(_side_by_side, (dq, dk, dv, d_rows, d_columns))
    return dq, dk, dv, d_rows, d_columns


def _places(layout: Layout, rows: int, dtype: Any) -> Array:
    """(lanes, rows of keys * columns): ones where a key lies in a row or column; the last lane tells what only pads."""
    (height, width), columns = layout.grid, layout.columns
    where = np.zeros((layout.lanes, rows, columns), np.float32)
    where[np.arange(rows), np.arange(rows)] = 1
    where[height + np.arange(width), :, np.arange(width)] = 1
    if layout.pads:
        where[height + columns, :, width:] = _MASKED
    return jnp.asarray(where.reshape(layout.lanes, -1), dtype)


def _laid_out(table: Float[Array, "L D"], layout: Layout) -> Float[Array, "lanes group"]:
    """A table from the last offset to the first, once for each head of a program."""
    table = jnp.pad(jnp.flip(table, 0), ((0, layout.lanes - len(table)), (0, 0)))
    return jnp.tile(table, (1, layout.group // layout.head_dim))


def table_gradient(d_table: Float32[Array, "lanes group"], layout: Layout, axis: int) -> Float32[Array, "L D"]:
    """The gradient in a table, of what `attend_gradient` gives."""
    by_head = d_table.reshape(layout.lanes, -1, layout.head_dim).sum(1)
    return by_head[1 - 2 * layout.grid[axis] :]


def call(
    kernel: Callable[..., None],
    layout: Layout,
    grid: tuple[int, ...],
    given: list[tuple[Any, Any]],
    results: list[tuple[Any, Any]],
    scratch: list[Any],
) -> Any:
    """`pallas_call` of arrays and results with their block specifications. The first grid axis is the heads' group."""
    order: tuple[Any, ...] = ("parallel", *("arbitrary",) * (len(grid) - 1))
    with jax.enable_x64(False):  # TPUs have no 64-bit numbers, and grid indices would be that
        return pallas.pallas_call(
            kernel,
            grid=grid,
            in_specs=[spec for _, spec in given],
            out_specs=[spec for _, spec in results],
            out_shape=[shape for shape, _ in results],
            scratch_shapes=scratch,
            compiler_params=pltpu.CompilerParams(dimension_semantics=order, vmem_limit_bytes=VMEM),
            interpret=layout.interpret,
        )(*(array for array, _ in given))


def constants_of(tables: Sequence[Any], layout: Layout, rows: int, *, gradient: bool) -> list[tuple[Any, Any]]:
    """What `attend` takes of tables and of `rows` rows of keys, or `attend_gradient`; every program has them whole."""
    constants = [*(_laid_out(table, layout) for table in tables), _places(layout, rows, tables[0].dtype)]
    if gradient:
        constants += [jnp.flip(array, 0) for array in constants]
    return [(array, pallas.BlockSpec(array.shape, lambda *_: (0, 0))) for array in constants]


def on_mesh(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A function of arrays and a layout as one of arrays, run by every device of the layout's mesh."""
    return on_every_device(functools.partial(function, layout=layout), layout.mesh)


def cast_like(gradient: Any, given: Any) -> Any:
    """A gradient in the dtypes of what it is in."""
    return jax.tree.map(lambda x, like: x.astype(like.dtype), gradient, given)
