"""Attention within windows of a grid, a strip of windows beside each other after the other."""

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
    index,
    on_mesh,
    table_gradient,
)
from samjax.ops.attention.tpu.sizes import COLUMNS, padded


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def over_windows(
    projected: Float[Array, "H W QKV"],
    bias: Float[Array, " QKV"],
    tables: tuple[Float[Array, "L D"], Float[Array, "L D"]],
    layout: Layout,
) -> Float[Array, "H W C"]:
    """Attention within windows of a grid, which go beyond it below and to the right."""
    return on_mesh(_windows, layout)(projected, bias, tables)


def _windows_forward(projected: Any, bias: Any, tables: Any, layout: Layout) -> Any:
    return over_windows(projected, bias, tables, layout), (projected, bias, tables)


def _windows_backward(layout: Layout, saved: Any, out: Any) -> Any:
    return cast_like(on_mesh(_windows_gradient, layout)(*saved, out), saved)


def _fill(strip: Any, ref: Any, bias: Any, rows: Any) -> None:
    """Copies a strip's tokens with the projection's bias; those below `rows` or beyond the grid are the bias alone."""
    width = ref.shape[1]
    x = ref[...].astype(jnp.float32)
    strip[:, :width] = jnp.where(index(x.shape, 0) < rows, x, 0.0) + bias[None]
    if strip.shape[1] > width:
        strip[:, width:] = jnp.broadcast_to(bias[None], (strip.shape[0], strip.shape[1] - width, strip.shape[2]))


def _columns(width: int, layout: Layout) -> tuple[int, int]:
    """Windows beside each other on a grid of `width` columns, and columns of a strip that holds all of each."""
    count = -(-width // layout.grid[1])
    last = (count - 1) * layout.grid[1] + layout.columns
    return count, padded(max(last, width), COLUMNS)


def _windows(
    projected: Float[Array, "H W QKV"],
    bias: Float[Array, " QKV"],
    tables: tuple[Float[Array, "L D"], Float[Array, "L D"]],
    layout: Layout,
) -> Float[Array, "H W C"]:
    """Attention within windows of a grid, which go beyond it below and to the right."""
    height, width, channels = *projected.shape[:2], projected.shape[-1] // 3
    groups, group, size = channels // layout.group, layout.group, layout.grid[0]
    count, columns = _columns(width, layout)

    def kernel(q, k, v, bias, by_row, by_column, where, out, q_strip, k_strip, v_strip, result):
        rows = height - pallas.program_id(1) * size
        strips = (q_strip, k_strip, v_strip)
        for i, (strip, ref) in enumerate(zip(strips, (q, k, v), strict=True)):
            _fill(strip, ref, bias[i : i + 1, :].astype(jnp.float32), rows)
        constants = [x[...] for x in (by_row, by_column, where)]
        for i in range(count):
            at = pallas.ds(i * size, layout.columns)
            qkv = [strip[:, at].reshape(-1, group).astype(q.dtype) for strip in strips]
            result[:, at] = attend(qkv, constants, layout, 0).reshape(size, layout.columns, group)
        out[...] = result[:, :width].astype(out.dtype)

    def block(at):
        return pallas.BlockSpec((size, width, group), lambda g, s: (s, 0, at * groups + g))

    given = [
        *((projected, block(at)) for at in range(3)),
        (bias.reshape(3, channels), pallas.BlockSpec((3, group), lambda g, s: (0, g))),
        *constants_of(tables, layout, size, gradient=False),
    ]
    result = jax.ShapeDtypeStruct((height, width, channels), projected.dtype)
    scratch = [pltpu.VMEM((size, columns, group), jnp.float32)] * 4
    return call(kernel, layout, (groups, -(-height // size)), given, [(result, block(0))], scratch)[0]


def _windows_gradient(
    projected: Float[Array, "H W QKV"],
    bias: Float[Array, " QKV"],
    tables: tuple[Float[Array, "L D"], Float[Array, "L D"]],
    d_out: Float[Array, "H W C"],
    layout: Layout,
) -> tuple[Float[Array, "H W QKV"], Float32[Array, " QKV"], tuple[Float32[Array, "L D"], Float32[Array, "L D"]]]:
    """The gradient of `_windows`, where `d_out` is that in its result.

    Each strip is written in three steps, queries, keys and values, into one array as the projection has it.
    """
    height, width, channels = *projected.shape[:2], projected.shape[-1] // 3
    groups, group, size = channels // layout.group, layout.group, layout.grid[0]
    count, columns = _columns(width, layout)

    def kernel(q, k, v, bias, d_result, *refs):
        constants, (d_qkv, d_bias, d_rows, d_columns), scratch = refs[:6], refs[6:10], refs[10:]
        number, part = pallas.program_id(1), pallas.program_id(2)
        strips, gradients = scratch[:4], scratch[4:]

        @pallas.when((number == 0) & (part == 0))
        def _():
            for sums in (d_bias, d_rows, d_columns):
                sums[...] = jnp.zeros(sums.shape, sums.dtype)

        @pallas.when(part == 0)
        def _():
            nothing = jnp.zeros((1, group), jnp.float32)
            biases = (*(bias[i : i + 1, :].astype(jnp.float32) for i in range(3)), nothing)
            for strip, ref, of_bias in zip(strips, (q, k, v, d_result), biases, strict=True):
                _fill(strip, ref, of_bias, height - number * size)
            for gradient in gradients:
                gradient[...] = jnp.zeros(gradient.shape, gradient.dtype)
            given_constants = [x[...] for x in constants]
            for i in range(count):
                at = pallas.ds(i * size, layout.columns)
                *qkv, d_out = (strip[:, at] for strip in strips)
                d_out = jnp.where(index(d_out.shape, 1) < size, d_out, 0.0)  # the next window has its own
                *qkv, d_out = (x.reshape(-1, group).astype(q.dtype) for x in (*qkv, d_out))
                *of_qkv, row_table, column_table = attend_gradient(qkv, d_out, given_constants, layout, 0)
                for gradient, of_part in zip(gradients, of_qkv, strict=True):
                    gradient[:, at] = of_part.reshape(size, layout.columns, group)
                d_rows[...] += row_table
                d_columns[...] += column_table
            for i, gradient in enumerate(gradients):
                d_bias[i : i + 1, :] += gradient[...].sum((0, 1))[None]

        for i, gradient in enumerate(gradients):

            @pallas.when(part == i)
            def _(gradient=gradient):
                d_qkv[...] = gradient[:, :width].astype(d_qkv.dtype)

    def block(at):
        return pallas.BlockSpec((size, width, group), lambda g, s, part: (s, 0, at * groups + g))

    of_group = functools.partial(pallas.BlockSpec, index_map=lambda g, s, part: (0, g))
    given = [
        *((projected, block(at)) for at in range(3)),
        (bias.reshape(3, channels), of_group((3, group))),
        (d_out, block(0)),
        *constants_of(tables, layout, size, gradient=True),
    ]
    results = [
        (
            jax.ShapeDtypeStruct(projected.shape, projected.dtype),
            pallas.BlockSpec((size, width, group), lambda g, s, part: (s, 0, part * groups + g)),
        ),
        (jax.ShapeDtypeStruct((3, channels), jnp.float32), of_group((3, group))),
        *[(jax.ShapeDtypeStruct((layout.lanes, channels), jnp.float32), of_group((layout.lanes, group)))] * 2,
    ]
    scratch = [pltpu.VMEM((size, columns, group), jnp.float32)] * 7
    grid = (groups, -(-height // size), 3)
    d_qkv, d_bias, *d_tables = call(kernel, layout, grid, given, results, scratch)
    by_row, by_column = (table_gradient(x, layout, axis) for axis, x in enumerate(d_tables))
    return d_qkv, d_bias.reshape(-1), (by_row, by_column)


over_windows.defvjp(_windows_forward, _windows_backward)
