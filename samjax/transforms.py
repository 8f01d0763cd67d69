"""Every change of frame: photo to model input, coordinates in, masks out. `samjax.pictures` makes photos of files.

Frames. ORIGINAL: pixels of the photo. INPUT: pixels of the photo resized so that it fits `config.image_size`, which
is then padded below and to the right. LOW-RES: mask logits, four times the embedding's grid, covering the padded input.
All begin at the upper left; coordinates are (x, y), sizes and shapes (height, width).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from samjax.config import SamConfig
from samjax.maps import mask_from_pillow
from samjax.ops.broadcasting import with_rank
from samjax.ops.masks import Frame
from samjax.ops.resize import Banded, banded, map_row_blocks, resize_matrix
from samjax.pictures import is_pillow
from samjax.types import ArrayLike

# RGB mean and standard deviation of ImageNet on the 0..255 scale (segment_anything's build_sam.py).
PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)

Size = tuple[int, int]  # (height, width), pixels


def channel_statistics(channels: int) -> tuple[Float32[np.ndarray, " channels"], Float32[np.ndarray, " channels"]]:
    """Mean and standard deviation that pixels are normalised by: those of red, green and blue, and for every further
    channel the means of the three, 114.5 and 57.6."""
    further = channels - len(PIXEL_MEAN)
    mean, std = (np.pad(values, (0, further), constant_values=values.mean()) for values in (PIXEL_MEAN, PIXEL_STD))
    return mean, std


def input_size(original: Size, image_size: Size) -> Size:
    """The (height, width) that a photo of `original` size has in the INPUT frame, pixels: resized to fit `image_size`.

    Sides are rounded as the reference rounds (`ResizeLongestSide.get_preprocess_shape` in utils/transforms.py), but are
    at least 1.
    """
    scale = min(image_size[0] / original[0], image_size[1] / original[1])
    height, width = (int(side * scale + 0.5) for side in original)
    return max(height, 1), max(width, 1)


def resize_photo(rgb: UInt8[np.ndarray, "H W channels"], size: Size) -> UInt8[np.ndarray, "h w channels"]:
    """Resizes a photo to `size` as the reference does: Pillow's bilinear filter, which antialiases, on 8-bit values.

    A photo that has this size is returned itself, not a copy.
    """
    from PIL import Image

    if rgb.shape[:2] == size:
        return rgb

    def resized(part: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(part).resize((size[1], size[0]), Image.Resampling.BILINEAR))

    return by_channels(resized, rgb)


def by_channels(
    resized: Callable[[np.ndarray], np.ndarray], rgb: UInt8[np.ndarray, "H W channels"]
) -> UInt8[np.ndarray, "h w channels"]:
    """What Pillow makes of a photo: of RGB at once, of other channels, which it has no mode for, one by one."""
    if rgb.shape[2] == 3:
        return resized(rgb)
    return np.stack([resized(np.ascontiguousarray(channel)) for channel in np.moveaxis(rgb, -1, 0)], -1)


def to_pixels(rgb: UInt8[np.ndarray, "H W channels"], config: SamConfig) -> Float32[np.ndarray, "h w channels"]:
    """A photo as the encoder takes it: resized to fit, normalised, then padded with zeros to `config.image_size`.

    The photo is at the upper left, its values are (value - mean) / std by `channel_statistics` (the reference's
    `Sam.preprocess`).
    """
    fitted = resize_photo(rgb, input_size(rgb.shape[:2], config.image_size))
    mean, std = channel_statistics(fitted.shape[2])
    pixels = np.zeros((*config.image_size, fitted.shape[2]), np.float32)
    pixels[: fitted.shape[0], : fitted.shape[1]] = (fitted.astype(np.float32) - mean) / std
    return pixels


def to_input_frame(
    points: Float32[Array, "*B 2"], original: Int32[Array, "2"], fitted: Int32[Array, "2"]
) -> Float32[Array, "*B 2"]:
    """Moves (x, y) from the ORIGINAL frame to the INPUT frame, in pixels of each.

    `original` and `fitted` are the photo's (height, width) in the two. The scale differs by axis because sizes were
    rounded. Coordinates are only scaled, as by the reference's `apply_coords`: integers name pixels in both frames, and
    the half pixel to their centres is added after this, by the prompt encoder.
    """
    scale = fitted.astype(jnp.float32) / original.astype(jnp.float32)
    return points * with_rank(scale[::-1], points.ndim)


def mask_prompt(mask: ArrayLike, config: SamConfig, *, certainty: float = 0.999) -> Float32[np.ndarray, "h w"]:
    """A binary mask of the ORIGINAL size as the LOW-RES logits, of `config.mask_size`, that a mask prompt wants.

    Of an array what is above 0 is foreground; an image of Pillow's counts as `samjax.foreground.binary_mask` says.
    A logit is the inverse sigmoid of the share of its cell that is foreground, kept within 1 - certainty and
    certainty (±6.9 by default, the order of SAM's own logits). Padding is background.

    Raises ValueError unless the mask has shape (H, W), at least one pixel and finite values, and for an image of
    Pillow's as `binary_mask` does.
    """
    binary = mask_from_pillow(mask) if is_pillow(mask) else np.asarray(mask)
    if binary.ndim != 2 or binary.size == 0:
        raise ValueError(f"a mask must have shape (H, W), got {binary.shape}")
    if not np.isfinite(binary).all():
        raise ValueError("the mask holds NaN or infinity")
    binary = (binary > 0).astype(np.float64)
    fitted = input_size(binary.shape, config.image_size)
    shares = [
        _cell_shares(side, cells, cells_extent * side / fit)
        for side, cells, cells_extent, fit in zip(
            binary.shape, config.mask_size, config.image_size, fitted, strict=True
        )
    ]
    share = np.clip(shares[0] @ binary @ shares[1].T, 1 - certainty, certainty)
    return np.log(share / (1 - share)).astype(np.float32)


def _cell_shares(source: int, cells: int, extent: float) -> np.ndarray:
    """(cells, source): which share of each of `cells` cells, evenly spaced over `extent` samples, is which sample.

    Both begin at the same edge; what lies beyond the last sample belongs to none.
    """
    edges = np.linspace(0, extent, cells + 1)
    samples = np.arange(source)
    overlap = np.minimum(edges[1:, None], samples + 1) - np.maximum(edges[:-1, None], samples)
    return np.maximum(overlap, 0) / (extent / cells)


@functools.lru_cache(maxsize=64)
def upscaling(original: Size, config: SamConfig, size: Size | None = None) -> Frame:
    """The resizing that takes LOW-RES logits to the ORIGINAL size, for `map_row_blocks` and `samjax.ops.masks`.

    `original` is the photo's (height, width) in pixels; with `size` the whole photo is brought to that one instead. The
    reference (`Sam.postprocess_masks`) resizes twice, low-res to padded input and, after cropping the padding, input to
    original, each time bilinearly; resizing once would differ. Both steps are linear and separable, so they compose
    into a matrix an axis.
    """
    fitted, size = input_size(original, config.image_size), size or original
    rows, columns = (
        resize_matrix(fit, side) @ resize_matrix(low, full)[:fit]
        for side, fit, low, full in zip(size, fitted, config.mask_size, config.image_size, strict=True)
    )
    # Masks are measured column by column, and only as many columns as there are: their number may be rounded coarsely.
    return Frame(banded(rows), banded(columns, coarse=True), np.array(size, np.int32))


def upscale_masks(
    logits: Float[Array, "*N h w"] | Float[np.ndarray, "*N h w"],
    original: Size,
    config: SamConfig,
    *,
    threshold: float | None = 0.0,
    together: int = 1,
    sharding: jax.sharding.Sharding | None = None,
    size: Size | None = None,
) -> Bool[np.ndarray, "*N H W"] | Float32[np.ndarray, "*N H W"]:
    """LOW-RES logits as masks of the ORIGINAL size: booleans above `threshold`, or the logits where it is None.

    (h, w) is `config.mask_size`, and (H, W) is `original`, the photo's (height, width) in pixels, or with `size` that
    one, in which the whole photo is shown. Works on `together` masks at a time, in blocks of 128 rows whose numbers are
    rounded up, so that any number of masks of photos of similar size share one compiled program; `sharding` spreads
    these masks over devices, whose number divides theirs. While the host takes masks, the device is at the next ones.
    """
    frame, size = upscaling(original, config, size), size or original
    low = np.asarray(logits).reshape(-1, *logits.shape[-2:])
    upscaled = np.empty((len(low), *size), np.float32 if threshold is None else bool)

    def computed(start: int) -> Any:
        some = low[np.minimum(np.arange(start, start + together), len(low) - 1)]
        return _upscale(some if sharding is None else jax.device_put(some, sharding), *frame, threshold=threshold)

    starts = range(0, len(low), together)
    calls = map(computed, starts)
    ahead = next(calls, None)
    for start in starts:
        masks, ahead = ahead, next(calls, None)
        target = upscaled[start : start + together]
        blocks = np.asarray(masks)[: len(target)]
        target[:] = blocks.reshape(len(target), -1, blocks.shape[-1])[:, : size[0], : size[1]]
    return upscaled.reshape(*logits.shape[:-2], *size)


@functools.partial(jax.jit, static_argnames="threshold")
def _upscale(logits, rows: Banded, columns: Banded, size, *, threshold: float | None) -> Any:
    def finish(block, _):
        return block if threshold is None else block > threshold

    return jax.vmap(lambda one: map_row_blocks(finish, one, rows, columns, size[0]))(logits)
