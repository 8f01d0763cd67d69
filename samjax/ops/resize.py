"""Resizing as one small matrix per axis: `rows @ image @ columns.T`, with PyTorch's `interpolate` as the convention.

All of it is align_corners=False without antialiasing: sample i covers i to i + 1, its centre is at i + 0.5, and source
and target begin at the same edge. Samples are pixels, or entries of a table. Matrices are built on the host in
float64, so that several resizings and crops in a row compose into one matrix before anything is rounded. The composed
interpolation has few non-zeros a row, so large results are made 128 rows at a time from a window of the source. Numbers
of blocks and widths of windows come in few sizes, so photos of all sizes from 300 to 2000 pixels share two dozen
programs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Float64, Int32


def resize_matrix(
    source: int, target: int, method: Literal["linear", "cubic"] = "linear"
) -> Float64[np.ndarray, "target source"]:
    """The matrix that resizes an axis of `source` samples to `target` samples, both at least 1.

    "linear" and "cubic" (Keys' kernel with a = -0.75) are `torch.nn.functional.interpolate`'s bilinear and bicubic.
    Beyond the ends the first and the last sample are repeated.
    """
    if source == target:
        return np.eye(source)
    # The reference computes positions in float32; float64 would move some by 1e-4 of a pixel.
    position = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    if method == "linear":
        position = np.maximum(position, 0)
        taps = np.arange(0, 2)
        kernel = _linear
    else:
        taps = np.arange(-1, 3)
        kernel = _cubic
    first = np.floor(position).astype(int)
    index = first[:, None] + taps
    weight = kernel(position[:, None] - index)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], np.clip(index, 0, source - 1)), weight)
    return matrix


class Banded(NamedTuple):
    """A resizing matrix in blocks of rows.

    The few non-zeros of a row lie side by side, so a block needs a window of the source: a tenth of the whole product's
    work.
    """

    first: Int32[Array | np.ndarray, " blocks"]  # the source sample at which each block's window begins
    weights: Float32[Array | np.ndarray, "blocks rows window"]


def banded(matrix: Float[np.ndarray, "target source"], rows: int = 128, *, coarse: bool = False) -> Banded:
    """Cuts a resizing matrix into blocks of `rows` rows, filled up with rows of zeros.

    So that few shapes, hence programs, serve all sizes, there are 1, 2, 3, 4, 6, 8, 12, ... blocks (`coarse`: 1, 2, 4,
    8, ...), and the windows' width is a power of two from 8 on, or the source's where that is less.
    """
    target, source = matrix.shape
    count = -(-target // rows)
    size = 1 << (count - 1).bit_length()
    if not coarse and count <= size * 3 // 4:
        size = size * 3 // 4
    blocks = np.pad(matrix, ((0, size * rows - target), (0, 0))).reshape(size, rows, source)
    used = (blocks != 0).any(1)
    used[~used.any(1), 0] = True  # a block of zeros takes any window
    first, last = used.argmax(1), source - 1 - used[:, ::-1].argmax(1)
    window = min(max(8, 1 << int((last - first).max()).bit_length()), source)
    first = np.minimum(first, source - window)
    weights = [block[:, start : start + window] for block, start in zip(blocks, first, strict=True)]
    return Banded(first.astype(np.int32), np.stack(weights).astype(np.float32))


def map_row_blocks(
    function: Callable[[Float32[Array, "rows W2"], Int32[Array, ""]], Any],
    image: Float[Array | np.ndarray, "H W"],
    rows: Banded,
    columns: Banded,
    height: Int32[Array | np.ndarray, ""] | np.int32 | int,
) -> Any:
    """Resizes an image to `height` rows and gives each block of them, and the number of its first row, to `function`.

    H W are pixels of the source, W2 are all columns of the blocks of `columns`, also those that fill the last one up;
    `height` counts pixels of the result, and its last block may reach beyond it. Only one block exists at a time, in
    float32 on every backend. Returns what `function` does, stacked over blocks; blocks beyond `height` are not computed
    and have zeros.
    """
    wide = lax.map(lambda block: _product(block, jnp.asarray(image, jnp.float32).T), columns)
    wide = wide.reshape(-1, image.shape[0]).T  # (H, W2)
    count, size, _ = rows.weights.shape
    rows = jax.tree.map(jnp.asarray, rows)

    def at(number):
        number = jnp.asarray(number, jnp.int32)  # without jit, loops count in Python's integers
        block = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, number, keepdims=False), rows)
        return function(_product(block, wide), number * size)

    def visit(number, results):
        return jax.tree.map(lambda whole, new: whole.at[number].set(new), results, at(number))

    zeros = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), jax.eval_shape(at, jnp.int32(0)))
    return lax.fori_loop(0, (jnp.asarray(height, jnp.int32) + size - 1) // size, visit, zeros)


def _product(block: Banded, x: Float32[Array, "source N"]) -> Float32[Array, "rows N"]:
    """One block's rows of the matrix times `x`."""
    window = lax.dynamic_slice_in_dim(x, block.first, block.weights.shape[1])
    return jnp.matmul(block.weights, window, precision=lax.Precision.HIGHEST)


def resize_axis(
    x: Float[Array, "..."] | Float[np.ndarray, "..."], axis: int, size: int, method: Literal["linear", "cubic"]
) -> Float[Array, "..."]:
    """Resizes one axis of a table to `size` samples, in float32; the result has the table's dtype."""
    if x.shape[axis] == size:
        return jnp.asarray(x)
    matrix = jnp.asarray(resize_matrix(x.shape[axis], size, method), jnp.float32)
    product = jnp.tensordot(matrix, jnp.asarray(x, jnp.float32), (1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis).astype(x.dtype)


def _linear(distance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Weight of a source sample at a distance from the position, in source samples."""
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: Float[np.ndarray, "..."], a: float = -0.75) -> Float[np.ndarray, "..."]:
    """Keys' cubic convolution kernel, `_linear`'s counterpart (IEEE Trans. ASSP 29, 1981)."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
