"""Photos, masks and label maps from the bytes of picture files."""

import io
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from samjax import transforms
from samjax.data import files

T = TypeVar("T")
VOID = 255  # in maps of 8 bits: pixels that belong to nothing that counts, VOC's outlines


def photo_of(data: bytes, path: str) -> UInt8[np.ndarray, "H W 3"]:
    """RGB, upright, exactly as `samjax.read_image` has it; `path` is for messages. Raises ValueError."""
    return _reading(path, lambda: transforms.read_image(io.BytesIO(data)))


def read_photo(path: str) -> UInt8[np.ndarray, "H W 3"]:
    """`photo_of` a file. Raises OSError too."""
    return photo_of(files.read(path), path)


def mask_of(data: bytes, path: str) -> Bool[np.ndarray, "H W"]:
    """Whatever is not 0, as `samjax.transforms.read_mask` has it. Raises ValueError, of which
    `EmptyMask` is one."""
    return _reading(path, lambda: transforms.read_mask(io.BytesIO(data)))


def grey_of(data: bytes, path: str) -> UInt8[np.ndarray, "H W"]:
    """A grey picture of 8 bits, of any mode whose colours are all grey; black and white of 1 bit are 0 and 255.

    Raises ValueError for pictures in colour and of more bits.
    """
    return _reading(path, lambda: _grey(data))


def labels_of(data: bytes, path: str) -> Integer[np.ndarray, "H W"]:
    """A map of whole numbers, of 8, 16 or 32 bits. Palette pictures are read by index.

    Raises ValueError for pictures with colours.
    """
    return _reading(path, lambda: _labels(data))


def labels_and_void(data: bytes, path: str) -> tuple[Integer[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """`labels_of`, and where it is void: 255 in maps of 8 bits, which becomes 0.

    0 is background, and so are negative numbers.
    """
    labels = labels_of(data, path)
    if labels.dtype != np.uint8:
        return labels, np.zeros(labels.shape, bool)
    void = labels == VOID
    return np.where(void, 0, labels).astype(np.uint8), void


def _grey(data: bytes) -> np.ndarray:
    picture = transforms.open_upright(io.BytesIO(data))
    if np.asarray(picture).dtype not in (np.uint8, bool):
        raise ValueError(f"it is a picture in {picture.mode}; expected grey of 8 bits")
    rgb = np.asarray(picture.convert("RGB"))
    if (rgb != rgb[..., :1]).any():
        raise ValueError("it has colours; expected a grey picture")
    return rgb[..., 0]


def _labels(data: bytes) -> np.ndarray:
    picture = transforms.open_upright(io.BytesIO(data))
    labels = np.asarray(picture)
    if labels.ndim != 2:
        raise ValueError(
            f"it is a picture in {picture.mode}; a label map has one number a pixel (palette, or grey of 8 to 32 bits)"
        )
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if np.issubdtype(labels.dtype, np.floating):
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            raise ValueError("it holds fractions; a label map has whole numbers")
        labels = labels.astype(np.int64)
    return labels


def _reading(path: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except MemoryError:
        raise
    except transforms.EmptyMask as error:
        raise transforms.EmptyMask(f"{path}: {error}") from error
    except Exception as error:  # Pillow raises many kinds for broken files
        text: Any = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path}: {text}") from error
