"""Photos, masks and label maps from the bytes of picture files, as `samjax.pictures` and `samjax.maps` have them."""

import io

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from samjax import foreground, maps, pictures
from samjax.readers import files

VOID = 255  # in maps of 8 bits: pixels that belong to nothing that counts, VOC's outlines


def photo_from_bytes(data: bytes, path: str) -> UInt8[np.ndarray, "H W 3"]:
    """RGB, upright, exactly as `samjax.read_image` has it; `path` is for messages. Raises ValueError."""
    return pictures.read_image(io.BytesIO(data), name=path)


def read_photo(path: str, channels: int = 3) -> UInt8[np.ndarray, "H W channels"]:
    """`photo_from_bytes` a file, or of more channels `samjax.pictures.read_channels`. Raises OSError too."""
    data = files.read(path)
    if channels == 3:
        return photo_from_bytes(data, path)
    return pictures.read_channels(io.BytesIO(data), channels, name=path)


def mask_from_bytes(data: bytes, path: str) -> Bool[np.ndarray, "H W"]:
    """The foreground, as `samjax.maps.read_mask` has it. Raises ValueError, and `EmptyMask`."""
    return maps.read_mask(io.BytesIO(data), name=path)


def mask_pages(data: bytes) -> list[foreground.Page]:
    """Each page of a file of masks, for `samjax.foreground.binary_mask`. Raises ValueError, without a name."""
    return maps.read_mask_pages(io.BytesIO(data), name="")


def grey_from_bytes(data: bytes, path: str) -> UInt8[np.ndarray, "H W"]:
    """A grey picture of 8 bits, as `samjax.maps.read_grey` has it. Raises ValueError."""
    return maps.read_grey(io.BytesIO(data), name=path)


def labels_from_bytes(data: bytes, path: str) -> Integer[np.ndarray, "H W"]:
    """A map of whole numbers, as `samjax.maps.read_labels` has it. Raises ValueError."""
    return maps.read_labels(io.BytesIO(data), name=path)


def labels_and_void(data: bytes, path: str) -> tuple[Integer[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """`labels_from_bytes`, and where it is void: 255 in maps of 8 bits, which becomes 0.

    0 is background, and so are negative numbers.
    """
    labels = labels_from_bytes(data, path)
    if labels.dtype != np.uint8:
        return labels, np.zeros(labels.shape, bool)
    void = labels == VOID
    return np.where(void, 0, labels).astype(np.uint8), void
