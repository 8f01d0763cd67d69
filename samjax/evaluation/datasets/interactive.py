"""The benchmarks of interactive segmentation with one object a photo, in the layouts of RITM's data and read as RITM
reads them (Sofiiuk et al., Reviving Iterative Training with Mask Guidance, 2021)."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

from samjax.evaluation.datasets import layout
from samjax.maps import read_colours
from samjax.ops.rle import encode_rle
from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Reason
from samjax.readers.masks import Findings
from samjax.readers.pictures import read_photo
from samjax.readers.record import BadRecord, Record

# The object's pixels and the void ones, of a mask file's colours.
Rule = Callable[[UInt8[np.ndarray, "H W 3"]], tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]]


class OneObject(IndexedSource):
    """A folder of photos and a folder of masks with the same names; the object's id is 1.

    Pictures are turned upright by their EXIF orientation, palettes read as colours, alpha ignored, as OpenCV does it
    for RITM.
    """

    def __init__(self, folder: str, photos: str, masks: str, rule: Rule) -> None:
        """Raises ValueError if the folders are not there, or a photo has no mask."""
        self._pairs, self._rule = layout.pairs(folder, photos, masks), rule
        super().__init__(folder, len(self._pairs))

    def _name(self, index: int) -> str:
        return self._pairs[index][0]

    def _read(self, index: int) -> Record:
        name, photo, mask = self._pairs[index]
        found = Findings(name, read_photo(photo))
        colours = _colours(mask)
        if colours.shape[:2] != found.size:
            height, width = colours.shape[:2]
            raise BadRecord(f"{mask} has {width} x {height} pixels, the photo {found.size[1]} x {found.size[0]}")
        inside, void = self._rule(colours)
        if not inside.any():
            raise BadRecord(f"{mask} has no object's pixels: its mask is empty", Reason.EMPTY)
        found.add("the object", encode_rle(inside), 1)
        if void.any():
            found.add_void("void", encode_rle(void))
        return found.record()


def grabcut(folder: str) -> OneObject:
    """GrabCut, 50 photos: data_GT/*.jpg, *.bmp and boundary_GT/*.bmp: 255 is the object, 128 its void border."""
    return OneObject(folder, "data_GT", "boundary_GT", _trimap)


def berkeley(folder: str) -> OneObject:
    """Berkeley, 100 objects: images/*.jpg and masks/*.png, whose numbers are GrabCut's."""
    return OneObject(folder, "images", "masks", _trimap)


def davis(folder: str) -> OneObject:
    """DAVIS, 345 frames: img/*.jpg and gt/*.png; whatever is not black is one object."""
    return OneObject(folder, "img", "gt", _anything)


def _trimap(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    blue = colours[:, :, 2]  # the first channel of OpenCV, which RITM looks at
    return blue > 128, blue == 128


def _anything(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(colours.any(2)), np.zeros(colours.shape[:2], bool)


def _colours(path: str) -> UInt8[np.ndarray, "H W 3"]:
    data = files.read(path)
    try:
        return read_colours(io.BytesIO(data), name=path)
    except ValueError as error:
        raise BadRecord(str(error)) from error
