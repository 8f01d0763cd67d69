"""Batches that the data pipeline hands to a training step, and the packing of masks for the way to the device.

A mask at the size of the model's input is kept as CELLS: one integer for each pixel of the decoder's low-resolution
output, whose bits are the r x r input pixels under it (r = patch size / 4). That is an eighth of a byte a pixel, and
the step can take from it the mask itself, its area in each cell, or single pixels.
"""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt, UInt8, UInt32

from samjax.config import SamConfig
from samjax.ops.broadcasting import with_rank
from samjax.transforms import channel_statistics
from samjax.types import pytree

NO_CATEGORY = -1
NO_MASK = "there is no valid mask to validate on; check data.val, data.min_area and data.max_cover"
SomeArray = TypeVar("SomeArray", Array, np.ndarray)


@pytree
class Batch:
    """B photos with up to N masks each, in the INPUT frame: resized to fit, padded below and to the right."""

    image: UInt8[Array | np.ndarray, "B H W channels"]  # RGB, then others; what stands in the padding does not matter
    size: Int32[Array | np.ndarray, "B 2"]  # (height, width) of the photo inside the padded input, pixels
    cells: UInt[Array | np.ndarray, "B N h w"]  # `pack_cells` of the masks, nothing set in the padding
    valid: Bool[Array | np.ndarray, "B N"]  # which masks are masks; the others only pad
    position: UInt32[Array | np.ndarray, " B"]  # place in the run's order of photos; all random draws come from it
    record: Int32[Array | np.ndarray, " B"]  # which record of the data set a photo is
    # The data's own numbers of the masks' classes; NO_CATEGORY where they say none, or none that int32 can hold.
    categories: Int32[Array | np.ndarray, "B N"] | None = None
    # Features of the photos, where they are kept (`samjax.train.cached`): "image" the encoder's, others by the names of
    # taps. The pixels may then be missing, an image of 0 x 0.
    stored: dict[str, Float[Array | np.ndarray, "B _ _ _"]] | None = None
    # (x, y, 1) of each mask's first recorded click, integers naming pixels; zeros where it has none that can be shown.
    # None where training shows none (`interaction.recorded_share`).
    clicks: Float32[Array | np.ndarray, "B N 3"] | None = None


def pixels_of(batch: Batch) -> Float32[Array, "B H W channels"]:
    """The photos as the encoder takes them: normalised, then 0 in the padding, as by `samjax.transforms.to_pixels`."""
    return pixels_of_photos(batch.image, batch.size)


def pixels_of_photos(
    image: UInt8[Array | np.ndarray, "B H W channels"], size: Int32[Array | np.ndarray, "B 2"]
) -> Float32[Array, "B H W channels"]:
    """`pixels_of` for these fields of a batch."""
    return jax.vmap(_normalised)(image, size)


def _normalised(
    image: UInt8[Array | np.ndarray, "H W channels"], size: Int32[Array | np.ndarray, "2"]
) -> Float32[Array, "H W channels"]:
    y, x = (jnp.arange(side, dtype=jnp.int32) < extent for side, extent in zip(image.shape, size, strict=False))
    mean, std = (with_rank(jnp.asarray(channels), 3) for channels in channel_statistics(image.shape[-1]))
    pixels = (image.astype(jnp.float32) - mean) / std
    return jnp.where((y[:, None] & x[None])[:, :, None], pixels, 0)


def cell_dtype(ratio: int) -> np.dtype:
    """The smallest unsigned integer with ratio² bits. Raises ValueError beyond 32 bits."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if ratio**2 <= np.iinfo(dtype).bits:
            return np.dtype(dtype)
    raise ValueError(f"training packs masks into cells of at most 5 x 5 pixels (patch size 20), got {ratio} x {ratio}")


def cell_ratio(model: SamConfig) -> int:
    """INPUT pixels along a side of a cell. Raises ValueError if cells cannot have that size."""
    stride = model.image_encoder.stride
    if stride % 4:
        raise ValueError(
            f"training needs a patch size that is a multiple of 4, because masks have 4 x 4 cells a patch; got {stride}"
        )
    cell_dtype(stride // 4)  # refuses what does not fit an integer
    return stride // 4


def pack_cells(masks: Bool[np.ndarray, "*N H W"], ratio: int) -> UInt[np.ndarray, "*N h w"]:
    """Masks as cells of `ratio` x `ratio` pixels: bit number ratio·y + x of a cell is its pixel (y, x)."""
    dtype = cell_dtype(ratio)
    # One axis after the other, and whole slices at a time: several times faster than packing the bits of each cell.
    rows = [masks[..., y::ratio, :].astype(dtype) << dtype.type(ratio * y) for y in range(ratio)]
    rows = functools.reduce(np.bitwise_or, rows)  # *N h W
    columns = [rows[..., x::ratio] << dtype.type(x) for x in range(ratio)]
    return np.ascontiguousarray(functools.reduce(np.bitwise_or, columns))  # *N h w


def unpack_cells(cells: UInt[SomeArray, "*N h w"], ratio: int) -> Bool[SomeArray, "*N H W"]:
    """The inverse of `pack_cells`, on the host or on the device, wherever the cells are."""
    *batch, height, width = cells.shape
    numpy: Any = jnp if isinstance(cells, jax.Array) else np  # on the device an iota: a constant is another program
    bits = numpy.expand_dims(numpy.arange(ratio**2, dtype=cells.dtype), tuple(range(cells.ndim)))
    pixels = ((cells[..., None] >> bits) & 1).astype(bool).reshape(*batch, height, width, ratio, ratio)
    return pixels.swapaxes(-2, -3).reshape(*batch, height * ratio, width * ratio)


def on_host(array: Any) -> np.ndarray:
    """The whole of an array, also of one that lies on the devices of several processes."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(array, tiled=True))
    return np.asarray(array)
