"""Every change of frame: photo to model input, coordinates in, masks out.

Frames. ORIGINAL: pixels of the photo. INPUT: pixels of the photo resized so that it fits `config.image_size`, which
is then padded below and to the right. LOW-RES: mask logits, four times the embedding's grid, covering the padded input.
"""

import functools
import io
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from samjax.config import SamConfig
from samjax.ops.broadcasting import with_rank
from samjax.ops.masks import Frame
from samjax.ops.resize import Banded, banded, map_row_blocks, resize_matrix
from samjax.types import ArrayLike

# RGB mean and standard deviation of ImageNet on the 0..255 scale (segment_anything's build_sam.py).
PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)

Size = tuple[int, int]  # (height, width), pixels


def read_image(path: str | os.PathLike | io.IOBase) -> UInt8[np.ndarray, "H W 3"]:
    """A picture file, named or open, as RGB, turned upright by its EXIF orientation; the first frame of several.

    Grey files of more than 8 bits follow the rules of `as_rgb`. Of colour files with 16 bits a channel Pillow reads the
    upper 8, and they are not stretched.
    Raises FileNotFoundError, or ValueError where the file is no picture that Pillow can read.
    """
    picture = open_upright(path)
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return as_rgb(np.asarray(picture))
    return np.asarray(picture.convert("RGB"))


class EmptyMask(ValueError):
    """A binary mask without foreground."""


def read_mask(path: str | os.PathLike | io.IOBase) -> Bool[np.ndarray, "H W"]:
    """A picture file, named or open, as a binary mask: whatever is not 0 is foreground.

    Palette pictures count by index, and pictures whose colours are all 0 by their alpha.
    Raises like `read_image`, and `EmptyMask` for a mask without foreground.
    """
    picture = open_upright(path)
    array = np.asarray(picture)
    if array.ndim == 3:
        has_alpha = picture.mode in ("LA", "RGBA", "PA")
        colours = array[:, :, :-1] if has_alpha else array
        array = colours.any(-1) if colours.any() or not has_alpha else array[:, :, -1]
    if not array.any():
        raise EmptyMask(f"{_called(path, 'the mask')} is empty: all of its pixels are 0")
    return array != 0


def open_upright(path: str | os.PathLike | io.IOBase) -> Any:
    """A picture file, named or open, as Pillow has it, read whole and turned upright by its EXIF orientation.

    Raises FileNotFoundError, or ValueError where the file is no picture that Pillow can read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = _called(path, "the picture")
    if isinstance(path, str | os.PathLike) and not Path(path).is_file():
        raise FileNotFoundError(f"there is no image file at {path}")
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}; PIL.Image.MAX_IMAGE_PIXELS sets the limit") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be read as an image ({error}); it is damaged or no picture") from error


def _called(path: str | os.PathLike | io.IOBase, otherwise: str) -> str:
    """What messages call a file."""
    return str(path) if isinstance(path, str | os.PathLike) else otherwise


def as_rgb(image: ArrayLike, image_format: str = "RGB") -> UInt8[np.ndarray, "H W 3"]:
    """Any usual image array as 8-bit RGB.

    Shapes: (H, W), (H, W, 1), (H, W, 2) grey with alpha, (H, W, 3), (H, W, 4); alpha is dropped, grey repeated.
    Dtypes: uint8 as it is; bool as 0 and 255; other integers (16-bit photographs, microscopy) stretched so that the
    image's darkest value becomes 0 and its brightest 255; floats must lie in [0, 1] and are scaled by 255.
    `image_format` is the order of the colours, "RGB" or "BGR".
    Raises ValueError for empty images, other shapes, NaN and floats outside [0, 1].
    """
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"image_format must be RGB or BGR, got {image_format!r}")
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        kind = "; samjax.read_image reads files" if isinstance(image, str | os.PathLike) else ""
        raise ValueError(
            f"an image must be an array of shape (H, W) or (H, W, channels) with 1 to 4 channels, channels last, "
            f"got shape {array.shape}{kind}"
        )
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    array = array[:, :, : 1 if array.shape[2] <= 2 else 3]
    array = _to_uint8(array)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array[:, :, ::-1] if image_format == "BGR" else array


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        return np.rint((array.astype(np.float64) - low) * (255 / max(high - low, 1))).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("the image holds NaN or infinity; all values must be finite")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"a float image must lie in [0, 1], got {array.min():g} to {array.max():g}; "
                "scale it, or pass 8-bit values as uint8"
            )
        return np.rint(array * 255).astype(np.uint8)
    raise ValueError(f"an image must hold integers, floats or booleans, got dtype {array.dtype}")


def input_size(original: Size, image_size: Size) -> Size:
    """(height, width) of the photo resized to fit `image_size`, rounded as the reference rounds."""
    scale = min(image_size[0] / original[0], image_size[1] / original[1])
    height, width = (int(side * scale + 0.5) for side in original)
    return max(height, 1), max(width, 1)


def resize_photo(rgb: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The reference's resizing: Pillow's bilinear filter, which antialiases, on 8-bit values."""
    from PIL import Image

    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR))


def to_pixels(rgb: UInt8[np.ndarray, "H W 3"], config: SamConfig) -> Float32[np.ndarray, "h w 3"]:
    """A photo as the encoder takes it: resized to fit, normalised, then padded with zeros to `config.image_size`."""
    fitted = resize_photo(rgb, input_size(rgb.shape[:2], config.image_size))
    pixels = np.zeros((*config.image_size, 3), np.float32)
    pixels[: fitted.shape[0], : fitted.shape[1]] = (fitted.astype(np.float32) - PIXEL_MEAN) / PIXEL_STD
    return pixels


def to_input_frame(
    points: Float32[Array, "*B 2"], original: Int32[Array, "2"], fitted: Int32[Array, "2"]
) -> Float32[Array, "*B 2"]:
    """(x, y) of the ORIGINAL frame in the INPUT frame; the scale differs by axis because sizes were rounded."""
    scale = fitted.astype(jnp.float32) / original.astype(jnp.float32)
    return points * with_rank(scale[::-1], points.ndim)


def mask_prompt(mask: ArrayLike, config: SamConfig, *, certainty: float = 0.999) -> Float32[np.ndarray, "h w"]:
    """A binary mask of the ORIGINAL size as the LOW-RES logits that a mask prompt wants.

    A logit is the inverse sigmoid of the share of its cell that is foreground, kept within 1 - certainty and
    certainty (±6.9 by default, the order of SAM's own logits). Padding is background.
    """
    binary = np.asarray(mask)
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
    """(cells, source): which share of each of `cells` cells, evenly spaced over `extent` samples, is which sample."""
    edges = np.linspace(0, extent, cells + 1)
    samples = np.arange(source)
    overlap = np.minimum(edges[1:, None], samples + 1) - np.maximum(edges[:-1, None], samples)
    return np.maximum(overlap, 0) / (extent / cells)


@functools.lru_cache(maxsize=16)
def upscaling(original: Size, config: SamConfig) -> Frame:
    """What takes LOW-RES logits to the ORIGINAL size, for `map_row_blocks` and `samjax.ops.masks`.

    The reference resizes twice, low-res to padded input and, after cropping the padding, input to original, each time
    bilinearly; resizing once would differ. Both steps are linear and separable, so they compose into a matrix an axis.
    """
    fitted = input_size(original, config.image_size)
    rows, columns = (
        resize_matrix(fit, side) @ resize_matrix(low, full)[:fit]
        for side, fit, low, full in zip(original, fitted, config.mask_size, config.image_size, strict=True)
    )
    # Masks are measured column by column, and only as many columns as there are: their number may be rounded coarsely.
    return Frame(banded(rows), banded(columns, coarse=True), np.array(original, np.int32))


def upscale_masks(
    logits: Float[Array, "*N h w"] | Float[np.ndarray, "*N h w"],
    original: Size,
    config: SamConfig,
    *,
    threshold: float | None = 0.0,
    together: int = 1,
    sharding: jax.sharding.Sharding | None = None,
) -> Bool[np.ndarray, "*N H W"] | Float32[np.ndarray, "*N H W"]:
    """LOW-RES logits as masks of the ORIGINAL size: booleans above `threshold`, or the logits where it is None.

    Works on `together` masks at a time, in blocks of 128 rows whose numbers are rounded up, so that any number of masks
    of photos of similar size share one compiled program; `sharding` spreads these masks over devices, whose number
    divides theirs. While the host takes masks, the device is at the next ones.
    """
    frame = upscaling(original, config)
    low = np.asarray(logits).reshape(-1, *logits.shape[-2:])
    upscaled = np.empty((len(low), *original), np.float32 if threshold is None else bool)

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
        target[:] = blocks.reshape(len(target), -1, blocks.shape[-1])[:, : original[0], : original[1]]
    return upscaled.reshape(*logits.shape[:-2], *original)


@functools.partial(jax.jit, static_argnames="threshold")
def _upscale(logits, rows: Banded, columns: Banded, size, *, threshold: float | None) -> Any:
    def finish(block, _):
        return block if threshold is None else block > threshold

    return jax.vmap(lambda one: map_row_blocks(finish, one, rows, columns, size[0]))(logits)
