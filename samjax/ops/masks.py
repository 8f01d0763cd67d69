"""Masks at the photo's size made from low-resolution logits, a block of columns at a time: their measures, their bits.

The float logits of a whole photo never exist. Everything runs down the columns first, as run-length encoding does.
Coordinates are whole numbers that name pixels of the resized picture, counted from its upper left; a pixel belongs to
the mask if its logit is above the threshold.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8, UInt32

from samjax.ops.resize import Banded, map_row_blocks


class Frame(NamedTuple):
    """The resizing of low-resolution logits to a picture of `size`; what blocks have beyond it does not count."""

    rows: Banded  # h rows of logits to at least the picture's height
    columns: Banded  # w columns of logits to at least its width
    size: Int32[Array | np.ndarray, "2"]  # (height, width), pixels


class Measures(NamedTuple):
    """Measurements of one mask at the picture's size that mask generation needs."""

    area: Int32[Array, ""]  # pixels
    box: Int32[Array, "4"]  # (x0, y0, x1, y1) of the outermost pixels, inclusive; all 0 for an empty mask
    stability: Float32[Array, ""]  # IoU of the masks cut off above and below the threshold; NaN if both are empty


def measure(
    logits: Float[Array | np.ndarray, "h w"],
    frame: Frame,
    threshold: Float32[Array, ""] | float,
    offset: Float32[Array, ""] | float,
) -> Measures:
    """Area, box and stability of the mask that low-resolution logits make of the frame's picture.

    The stability is the reference's `calculate_stability_score` (utils/amg.py): the number of pixels above
    threshold + offset over that above threshold - offset, both in units of the logits.
    """

    def measure_block(block: Float32[Array, "columns H"], start: Int32[Array, ""]):
        block = jnp.where(_inside((block.shape[0], block.shape[1]), start, frame.size), block, -jnp.inf)
        # Three counts in one sum, ten bits each: sums of booleans are what this loop would spend most of its time on.
        counts = (block > threshold + offset).astype(jnp.int32)
        counts += (block > threshold).astype(jnp.int32) << 10
        counts += (block > threshold - offset).astype(jnp.int32) << 20
        counts = counts.sum(0, dtype=jnp.int32)
        inner, mask, outer = counts & 1023, counts >> 10 & 1023, counts >> 20
        inner, area, outer = (part.sum(dtype=jnp.int32) for part in (inner, mask, outer))
        return inner, area, outer, mask > 0, block.max(1) > threshold

    inner, area, outer, rows, columns = map_row_blocks(
        measure_block, logits.T, frame.columns, frame.rows, frame.size[1]
    )
    x0, x1 = _extent(columns.ravel())
    y0, y1 = _extent(rows.any(0))
    inner, area, outer = (counts.sum(dtype=jnp.int32) for counts in (inner, area, outer))
    stability = inner.astype(jnp.float32) / outer.astype(jnp.float32)
    return Measures(area, jnp.stack([x0, y0, x1, y1]), stability)


def pack(
    logits: Float[Array | np.ndarray, "h w"], frame: Frame, threshold: Float32[Array, ""] | float
) -> UInt8[Array, "W bytes"]:
    """Packs the mask that low-resolution logits make of the frame's picture into bits, one row for each of its columns.

    The topmost pixel of a column is the highest bit of its first byte. There are as many columns and rows as the
    frame's blocks have; those beyond its size are background.
    """

    def pack_block(block: Float32[Array, "columns H"], start: Int32[Array, ""]):
        return jnp.packbits((block > threshold) & _inside((block.shape[0], block.shape[1]), start, frame.size), axis=1)

    bits = map_row_blocks(pack_block, logits.T, frame.columns, frame.rows, frame.size[1])
    return bits.reshape(-1, bits.shape[-1])


def outermost(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) of the outermost pixels of a mask on the host, as the reference counts; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(rows) else None


def unpack(
    bits: UInt8[np.ndarray, "W bytes"], size: tuple[int, int]
) -> tuple[Bool[np.ndarray, "h w"], tuple[int, int]]:
    """Cuts the mask's box out of the bits of `pack`, on the host: the mask within it, and its upper left pixel (x, y).

    `size` is the (height, width) of the picture in pixels. An empty mask gives an array of shape (0, 0) and (0, 0).
    """
    height, width = size
    columns = np.flatnonzero(bits[:width].any(1))
    if not len(columns):
        return np.zeros((0, 0), bool), (0, 0)
    x0, x1 = columns[0], columns[-1] + 1
    mask = np.unpackbits(bits[x0:x1], axis=1, count=height).view(bool)
    rows = np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(bits[x0:x1], axis=0), count=height))
    y0, y1 = rows[0], rows[-1] + 1
    return mask[:, y0:y1].T, (int(x0), int(y0))


def overlaps(
    masks: UInt32[Array, "N words"], others: UInt32[Array, "M words"], iou_threshold: Float32[Array, ""] | float
) -> Bool[Array, "N M"]:
    """True for pairs of masks whose IoU is above the threshold; never for two empty ones.

    Masks are given as bits in any order of pixels, the same for all, 32 to a word; bits that fill up words are 0.
    """

    def areas_of(bits: UInt32[Array, "*M words"]) -> Int32[Array, "*M"]:
        return lax.population_count(bits).sum(-1, dtype=jnp.int32)

    def row(mask: UInt32[Array, " words"]) -> Bool[Array, " M"]:
        both, area = areas_of(mask[None] & others), areas_of(mask)
        return both.astype(jnp.float32) > iou_threshold * (area + areas - both).astype(jnp.float32)

    areas = areas_of(others)
    return lax.map(row, masks)


def _inside(
    shape: tuple[int, int], start: Int32[Array, ""], size: Int32[Array | np.ndarray, "2"]
) -> Bool[Array, "columns H"]:
    """True for the pixels of a block of columns, the first being column `start`, that are part of the picture."""
    columns, rows = (jnp.arange(side, dtype=jnp.int32) for side in shape)
    return (start + columns < size[1])[:, None] & (rows < size[0])[None]


def _extent(present: Bool[Array, " N"]) -> tuple[Int32[Array, ""], Int32[Array, ""]]:
    """First and last index that is present, 0 and 0 where none is."""
    first, after = (lax.argmax(part, 0, jnp.int32) for part in (present, present[::-1]))
    return first, jnp.where(present.any(), len(present) - 1 - after, 0)
