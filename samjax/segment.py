"""A request to segment objects in a photo, checked as a whole, and the model's answer at the photo's size."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from samjax import transforms
from samjax.sam import Sam
from samjax.types import Embedding, Prompts

Point = tuple[float, float, int]  # x, y in pixels of the photo, label 1 foreground or 0 background
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the photo


@dataclasses.dataclass(frozen=True)
class Request:
    """The prompts for one photo.

    All points together describe one object, beside the box where there is exactly one; several boxes are one object
    each. `mask` is a binary mask of the photo's size that describes the one object further. Raises ValueError if
    the prompts contradict each other or there are none; neither a model nor a photo is needed for that.
    """

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: Bool[np.ndarray, "H W"] | None = None

    def __post_init__(self) -> None:
        if not self.points and not self.boxes and self.mask is None:
            raise ValueError("nothing says what to segment: give at least one --point, --box or --mask")
        if len(self.boxes) > 1 and (self.points or self.mask is not None):
            raise ValueError(
                f"{len(self.boxes)} boxes are {len(self.boxes)} objects, and a point or mask cannot tell which it "
                "belongs to; give one box with the points or mask, or boxes alone"
            )
        if self.points or self.boxes:
            Prompts.of(*self._points_labels_boxes())

    def _points_labels_boxes(self) -> tuple[Any, Any, Any]:
        points = [[point[:2] for point in self.points]] if self.points else None
        labels = [[point[2] for point in self.points]] if self.points else None
        return points, labels, self.boxes or None

    def prompts(self, sam: Sam, size: transforms.Size) -> Prompts:
        """The request as prompts for a photo of `size` (height, width); ValueError for a mask of another size."""
        if self.mask is not None and self.mask.shape != size:
            raise ValueError(f"the mask has size {self.mask.shape} and the photo {size} (height, width)")
        mask = [transforms.mask_prompt(self.mask, sam.config)] if self.mask is not None else None
        return Prompts.of(*self._points_labels_boxes(), mask)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The model's answer: N objects with M masks each."""

    masks: Bool[np.ndarray, "N M H W"]
    iou: Float32[np.ndarray, "N M"]  # predicted, may exceed 1

    def most_confident(self) -> "Segmentation":
        """One mask for each object: the one with the highest predicted IoU."""
        rows, best = np.arange(len(self.iou)), self.iou.argmax(1)
        return Segmentation(self.masks[rows, best][:, None], self.iou[rows, best][:, None])


def segment(
    sam: Sam, rgb: UInt8[np.ndarray, "H W 3"], embedding: Embedding, request: Request, *, multimask: bool
) -> Segmentation:
    """Masks for a request, at the photo's size."""
    prediction = sam.predict(embedding, request.prompts(sam, rgb.shape[:2]), multimask=multimask)
    return Segmentation(sam.masks(prediction, embedding), np.asarray(prediction.iou))
