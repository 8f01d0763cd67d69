"""Attention over a whole grid, its keys and values on chip."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Float32

from samjax.ops.attention.tpu.block import (
    Layout,
    attend,
    attend_gradient,
    call,
    cast_like,
    constants_of,
    on_mesh,
    table_gradient,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def over_grid(
    qkv: Float[Array, "H W QKV"], tables: tuple[Float[Array, "Lh D"], Float[Array, "Lw D"]], layout: Layout
) -> Float[Array, "H W C"]:
    """Attention of all tokens of a grid whose columns are padded to those of the layout."""
    return on_mesh(_grid, layout)(qkv, tables)


def _grid_forward(qkv: Any, tables: Any, layout: Layout) -> Any:
    return over_grid(qkv, tables, layout), (qkv, tables)


def _grid_backward(layout: Layout, saved: Any, out: Any) -> Any:
    return cast_like(on_mesh(_grid_gradient, layout)(*saved, out), saved)


def _grid(
    qkv: Float[Array, "H W QKV"], tables: tuple[Float[Array, "Lh D"], Float[Array, "Lw D"]], layout: Layout
) -> Float[Array, "H W C"]:
    """Attention of all tokens of a grid whose columns are padded to those of the layout."""
    height, columns, channels = len(qkv), layout.columns, qkv.shape[-1] // 3
    groups, group, rows = channels // layout.group, layout.group, layout.rows

    def kernel(q, k, v, by_row, by_column, where, out):
        row = pallas.program_id(1) * rows
        qkv = [x[...].reshape(-1, group) for x in (q, k, v)]
        result = attend(qkv, [x[...] for x in (by_row, by_column, where)], layout, row)
        out[...] = result.reshape(out.shape).astype(out.dtype)

    q = pallas.BlockSpec((rows, columns, group), lambda g, i: (i, 0, g))

    def keys(at):
        return pallas.BlockSpec((height, columns, group), lambda g, i: (0, 0, at * groups + g))

    given = [(qkv, q), (qkv, keys(1)), (qkv, keys(2)), *constants_of(tables, layout, height, gradient=False)]
    result = jax.ShapeDtypeStruct((height, columns, channels), qkv.dtype)
    return call(kernel, layout, (groups, height // rows), given, [(result, q)], [])[0]


def _grid_gradient(
    qkv: Float[Array, "H W QKV"],
    tables: tuple[Float[Array, "Lh D"], Float[Array, "Lw D"]],
    d_out: Float[Array, "H W C"],
    layout: Layout,
) -> tuple[Float[Array, "H W QKV"], tuple[Float32[Array, "Lh D"], Float32[Array, "Lw D"]]]:
    """The gradient of `_grid`, where `d_out` is that in its result.

    A program goes over the blocks three times: it computes, and writes what concerns the queries; then it writes what
    was summed on chip for the keys, and for the values. So all lies in one array, as the projection has it.
    """
    height, columns, channels = len(qkv), layout.columns, qkv.shape[-1] // 3
    groups, group, rows = channels // layout.group, layout.group, layout.rows
    blocks = height // rows

    def kernel(q, k, v, d_result, *refs):
        *constants, d_qkv, d_rows, d_columns, dk, dv = refs
        part, i = pallas.program_id(1), pallas.program_id(2)

        @pallas.when((part == 0) & (i == 0))
        def _():
            for sums in (dk, dv, d_rows, d_columns):
                sums[...] = jnp.zeros(sums.shape, sums.dtype)

        @pallas.when(part == 0)
        def _():
            *qkv, d_out = (x[...].reshape(-1, group) for x in (q, k, v, d_result))
            given_constants = [x[...] for x in constants]
            of_q, of_k, of_v, row_table, column_table = attend_gradient(qkv, d_out, given_constants, layout, i * rows)
            d_qkv[...] = of_q.reshape(d_qkv.shape).astype(d_qkv.dtype)
            dk[...] += of_k.reshape(dk.shape)
            dv[...] += of_v.reshape(dv.shape)
            d_rows[...] += row_table
            d_columns[...] += column_table

        for number, sums in ((1, dk), (2, dv)):

            @pallas.when(part == number)
            def _(sums=sums):
                d_qkv[...] = sums[pallas.ds(i * rows, rows)].astype(d_qkv.dtype)

    block = (rows, columns, group)
    q = pallas.BlockSpec(block, lambda g, part, i: (jnp.where(part == 0, i, blocks - 1), 0, g))

    def keys(at):
        # One buffer: a second would overlap computing with reading once for each group, for 10 MiB on chip in ViT-H.
        whole, one = (height, columns, group), pallas.Buffered(1)
        return pallas.BlockSpec(whole, lambda g, part, i: (0, 0, at * groups + g), pipeline_mode=one)

    given = [(qkv, q), (qkv, keys(1)), (qkv, keys(2)), (d_out, q), *constants_of(tables, layout, height, gradient=True)]
    d_table = jax.ShapeDtypeStruct((layout.lanes, channels), jnp.float32)
    of_group = pallas.BlockSpec((layout.lanes, group), lambda g, part, i: (0, g))
    results = [
        (qkv, pallas.BlockSpec(block, lambda g, part, i: (i, 0, part * groups + g))),
        (d_table, of_group),
        (d_table, of_group),
    ]
    results = [(jax.ShapeDtypeStruct(x.shape, x.dtype), spec) for x, spec in results]
    scratch = [pltpu.VMEM((height, columns, group), jnp.float32)] * 2
    d_qkv, *d_tables = call(kernel, layout, (groups, 3, blocks), given, results, scratch)
    by_row, by_column = (table_gradient(x, layout, axis) for axis, x in enumerate(d_tables))
    return d_qkv, (by_row, by_column)


over_grid.defvjp(_grid_forward, _grid_backward)
