"""Pictures as files in memory, which Pillow and tifffile write."""

import io

import numpy as np
import tifffile
from PIL import Image


def saved(image: np.ndarray | Image.Image, form: str = "png", **options) -> io.BytesIO:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file


def tiff(array: np.ndarray, **options) -> io.BytesIO:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file


def deep_photo() -> np.ndarray:
    """A photo with 16 bits a channel, 20 x 31 pixels."""
    return np.random.default_rng(0).integers(0, 65536, (20, 31, 3)).astype(np.uint16)


def ellipse() -> np.ndarray:
    """The mask of an object, 120 x 160 pixels."""
    y, x = np.mgrid[:120, :160]
    return ((y - 60) / 40) ** 2 + ((x - 80) / 60) ** 2 < 1


def three_labels() -> np.ndarray:
    """Three objects of which two touch, 120 x 160 pixels."""
    labels = np.zeros((120, 160), np.uint8)
    labels[10:50, 10:60], labels[10:50, 60:110], labels[60:110, 20:90] = 1, 2, 3
    return labels


def white(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(255)


def relabelled(labels: np.ndarray, colours) -> np.ndarray:
    return np.array([np.zeros_like(colours[0]), *colours]).astype(np.uint8)[labels]
