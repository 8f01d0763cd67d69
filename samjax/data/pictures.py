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
    """Whatever is not 0, as `samjax.transforms.read_mask` has it. Raises ValueError, also for an empty mask."""
    return _reading(path, lambda: transforms.read_mask(io.BytesIO(data)))


def labels_and_void(data: bytes, path: str) -> tuple[Integer[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """A map of whole numbers, and where it is void: 255 in maps of 8 bits, which becomes 0.

    0 is background, and so are negative numbers. Palette pictures are read by index. Raises ValueError for pictures
    with colours.
    """
    labels = _reading(path, lambda: _labels(data))
    if labels.dtype != np.uint8:
        return labels, np.zeros(labels.shape, bool)
    void = labels == VOID
    return np.where(void, 0, labels).astype(np.uint8), void


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
    except Exception as error:  # Pillow raises many kinds for broken files
        text: Any = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path}: {text}") from error
