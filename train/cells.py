"""Sets of pixels packed into cells (see `samjax.train.batch`), on the device: counting, sampling and boxing them.

A cell is an integer whose r² bits are the pixels of the model's input under one pixel of the low-resolution output.
Sets are united, cut and complemented by the operators of integers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt

from samjax.ops.broadcasting import with_rank
from samjax.ops.resize import resize_matrix


def counts(cells: UInt[Array, "*B h w"]) -> Int32[Array, "*B h w"]:
    """The number of pixels of each cell that are set."""
    return lax.population_count(cells).astype(jnp.int32)


def photo(size: Int32[Array, "2"], grid: tuple[int, int], ratio: int, dtype: jnp.dtype) -> UInt[Array, "h w"]:
    """The set of pixels that belong to a photo of `size` (height, width) and not to the padding below and beside it."""
    y, x = (
        jnp.arange(side * ratio, dtype=jnp.int32).reshape(side, ratio) < extent
        for side, extent in zip(grid, size, strict=True)
    )
    inside = y[:, None, :, None] & x[None, :, None, :]
    bits = jnp.asarray(1 << np.arange(ratio**2), dtype).reshape(ratio, ratio)
    return jnp.where(inside, bits, 0).astype(dtype).sum((2, 3), dtype=dtype)


def upsample(logits: Float32[Array, "*B h w"], ratio: int) -> Float32[Array, "*B H W"]:
    """Low-resolution logits bilinearly at the size of the model's input, as inference does first."""
    rows, columns = (jnp.asarray(resize_matrix(side, side * ratio), jnp.float32) for side in logits.shape[-2:])
    return jnp.einsum("Yy,...yx,Xx->...YX", rows, logits, columns, precision=lax.Precision.HIGHEST)


def from_logits(logits: Float32[Array, "*B h w"], photo: UInt[Array, "h w"], ratio: int) -> UInt[Array, "*B h w"]:
    """The masks that logits are at the size of the model's input: where they are positive there, in the photo."""
    *batch, height, width = logits.shape
    positive = upsample(logits, ratio).reshape(*batch, height, ratio, width, ratio) > 0
    bits = jnp.asarray(1 << np.arange(ratio**2), photo.dtype).reshape(ratio, 1, ratio)
    bits = jnp.where(positive, bits, 0).astype(photo.dtype)
    return bits.sum((-3, -1), dtype=photo.dtype) & with_rank(photo, logits.ndim)


def iou(masks: UInt[Array, "*B h w"], target: UInt[Array, "h w"]) -> Float32[Array, "*B"]:
    """IoU of masks with one other; 0 where both are empty."""
    target = with_rank(target, masks.ndim)
    both, either = (counts(cells).sum((-1, -2), dtype=jnp.int32) for cells in (masks & target, masks | target))
    return both.astype(jnp.float32) / jnp.maximum(either, 1).astype(jnp.float32)


def sample_pixel(
    key: Key[Array, ""], cells: UInt[Array, "h w"], ratio: int
) -> tuple[Float32[Array, "2"], Bool[Array, ""]]:
    """(x, y) of a pixel of the set, each with the same probability, and whether there is one at all.

    Counted, not weighed: one integer is drawn below the number of pixels, and its row, cell and bit are looked up.
    """
    number = counts(cells)
    in_rows = number.sum(1, dtype=jnp.int32)
    total = in_rows.sum(dtype=jnp.int32)
    rank = jax.random.randint(key, (), 0, jnp.maximum(total, 1), jnp.int32)
    row, rank = _find(in_rows, rank)
    column, rank = _find(number[row], rank)
    bit, _ = _find(((cells[row, column] >> jnp.arange(ratio**2, dtype=cells.dtype)) & 1).astype(jnp.int32), rank)
    xy = jnp.stack([column * ratio + bit % ratio, row * ratio + bit // ratio])
    return xy.astype(jnp.float32), total > 0


def _find(number: Int32[Array, " n"], rank: Int32[Array, ""]) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
    """Finds which of n bins, holding `number` items each, has the item of this rank, and its rank within the bin."""
    before = jnp.cumsum(number, dtype=jnp.int32) - number
    index = jnp.minimum((before + number <= rank).sum(dtype=jnp.int32), len(number) - 1)
    return index, rank - before[index]


def box(cells: UInt[Array, "h w"], ratio: int) -> Float32[Array, "4"]:
    """(x0, y0, x1, y1): the first and last column and row with a pixel of the set; zeros for the empty set."""
    bits = np.arange(ratio**2).reshape(ratio, ratio)

    def extent(axis: int) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
        # One integer for each row (column) of cells has the bits that any of its cells has.
        union = lax.reduce(cells, np.zeros((), cells.dtype), lax.bitwise_or, (1 - axis,))
        lines = jnp.asarray((1 << (bits if axis == 0 else bits.T)).sum(1), cells.dtype)
        used = ((union[:, None] & lines[None]) != 0).reshape(-1)
        first, after = (lax.argmax(lines, 0, jnp.int32) for lines in (used, used[::-1]))
        return first, jnp.where(used.any(), len(used) - 1 - after, 0)

    (y0, y1), (x0, x1) = extent(0), extent(1)
    return jnp.stack([x0, y0, x1, y1]).astype(jnp.float32)
