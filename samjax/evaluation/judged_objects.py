"""The objects of photos as they are judged: as masks, a few at a time."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from samjax.evaluation.metrics import overlap
from samjax.evaluation.protocol import Object, Sample
from samjax.ops.rle import decode_rle

# What is asked about together, of all photos: for each object three masks at its photo's size and three of the model's
# own, which is 0.2 GB, and 0.4 GB for Meta's models.
OBJECTS_TOGETHER = 512
PIXELS_TOGETHER = 2**26
OF_ONE_PHOTO = 64  # more would be decoded by other programs


@dataclasses.dataclass(frozen=True)
class JudgedObject:
    """An object to be found."""

    photo: int  # its place among the samples
    object: Object
    mask: Bool[np.ndarray, "H W"]
    judged: Bool[np.ndarray, "H W"] | None  # False for pixels that count neither for nor against a mask; None: all do

    @property
    def entry(self) -> dict[str, Any]:
        """The part that all records of objects share; the area in pixels includes those that are not judged."""
        return {"id": self.object.id, "category": self.object.category, "area": int(self.mask.sum())}

    @property
    def box(self) -> Float32[np.ndarray, "4"]:
        """(x0, y0, x1, y1) of the outermost pixels, inclusive as Meta's `batched_mask_to_box`; of an object one pixel
        wide or high x1 or y1 is one more, because a box has two corners."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1], rows[-1]
        return np.array([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)], np.float32)

    def iou(self, mask: Bool[np.ndarray, "H W"]) -> float:
        """The IoU of a mask with the object, over judged pixels."""
        return float(overlap.iou(self._only_judged(self.mask), self._only_judged(mask)))

    def overlaps(self, mask: Bool[np.ndarray, "H W"]) -> dict[str, float]:
        """IoU, Dice and boundary IoU, over judged pixels."""
        band = self._only_judged(overlap.inner_band(mask))
        return {
            "iou": self.iou(mask),
            "dice": float(overlap.dice(self._only_judged(self.mask), self._only_judged(mask))),
            "boundary_iou": float(overlap.iou(self._band, band)),
        }

    @functools.cached_property
    def _band(self) -> Bool[np.ndarray, "H W"]:
        return self._only_judged(overlap.inner_band(self.mask))

    def _only_judged(self, mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
        return mask if self.judged is None else mask & self.judged


def groups(samples: Sequence[Sample]) -> Iterator[list[list[JudgedObject]]]:
    """The objects of all samples by photo, as many at a time as memory should hold, at least one of each photo.

    Objects none of whose pixels is judged are left out: there is no right answer. Raises ValueError for a mask that
    does not have its photo's size.
    """
    sizes = [sample.rgb.shape[:2] for sample in samples]
    photos = max(len(samples), 1)
    together = [
        max(1, min(OF_ONE_PHOTO, OBJECTS_TOGETHER // photos, PIXELS_TOGETHER // (photos * height * width)))
        for height, width in sizes
    ]
    count = max((-(-len(sample.objects) // size) for sample, size in zip(samples, together, strict=True)), default=0)
    for turn in range(count):
        yield [
            list(_decoded(photo, sample, sample.objects[turn * size : (turn + 1) * size]))
            for photo, (sample, size) in enumerate(zip(samples, together, strict=True))
        ]


def _decoded(photo: int, sample: Sample, objects: Sequence[Object]) -> Iterator[JudgedObject]:
    size = sample.rgb.shape[:2]
    for object in objects:
        for rle in (object.mask, object.ignore):
            if rle is not None and tuple(rle["size"]) != size:
                raise ValueError(
                    f"the mask of object {object.id} of {sample.name} is for {tuple(rle['size'])} pixels (height, "
                    f"width), the photo has {size}; do annotations and photos belong together?"
                )
        mask = decode_rle(object.mask)
        judged = None if object.ignore is None else ~decode_rle(object.ignore)
        if (mask if judged is None else mask & judged).any():
            yield JudgedObject(photo, object, mask, judged)
