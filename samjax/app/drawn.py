"""Mask prompts that were drawn: outlines, strokes and run lengths as binary masks of a bounded size."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image

from samjax.app.filling import filled_line, filled_outline, rows_of
from samjax.app.steps import BadRequest, DrawnMask, Stroke
from samjax.ops.rle import decode_rle
from samjax.readers.left_out import Unusable
from samjax.readers.masks import mask_flaws, rle_from_coco
from samjax.transforms import Size

_MOST_ROWS, _MOST_PIXELS = 1e7, 4e8  # of all edges of a drawing, and of all parts that its shapes change: seconds
_LEAST_RADIUS = 0.7072  # pixels; no place is farther from a pixel's centre
MOST_SIDE = 2048  # pixels; a mask prompt has 256 cells a side or so, and eight pixels tell a cell's share well enough


def drawn_mask(drawn: DrawnMask, size: Size) -> Bool[np.ndarray, "h w"]:
    """A drawn mask of a photo of `size` (height, width), at its size or, where that is large, at one of at most
    `MOST_SIDE` pixels a side in the same proportions.

    Run lengths come first, then filled outlines are added, then strokes added or erased in their order. Outlines and
    strokes have pixel (0, 0) cover [0, 1] x [0, 1]; a pixel belongs to one whose centre lies in it. Raises BadRequest
    for run lengths that are none of this size, for a drawing that would take seconds, and if nothing is left.
    """
    scale = min(1.0, MOST_SIDE / max(size))
    height, width = shown = size if scale == 1 else _scaled(size, scale)
    by = np.array([width / size[1], height / size[0]])
    shapes = [_Shape(np.array(outline, float) * by) for outline in drawn.outlines]
    shapes += [_Shape(np.array(one.points, float) * by, _radius(one, by), one.erase) for one in drawn.strokes]
    areas = sum(bottom * right for bottom, right in (shape.part(shown)[1] for shape in shapes))
    if sum(rows_of(shape.points, shown, shape.radius) for shape in shapes) > _MOST_ROWS or areas > _MOST_PIXELS:
        raise BadRequest("the drawing is too large: draw with fewer points or a smaller brush, or in several steps")
    if drawn.rle is None:
        mask = np.zeros(shown, bool)
    else:
        mask = _decoded(drawn, size)
        if shown != size:  # a pixel of the smaller mask is foreground where most of its area is
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            mask = np.asarray(picture.resize((width, height), Image.Resampling.BOX)) > 127
    for shape in shapes:
        shape.draw(mask)
    if not mask.any():
        raise BadRequest("the drawn mask is empty")
    return mask


class _Shape(NamedTuple):
    """A filled outline or, with a radius, a stroke, in pixels of the mask."""

    points: Float64[np.ndarray, "N 2"]
    radius: float = 0.0
    erase: bool = False

    def part(self, size: Size) -> tuple[tuple[int, int], Size]:
        """The part of a mask that the shape may change: (top, left) and (height, width)."""
        low = np.clip(np.floor(self.points.min(0) - self.radius), 0, (size[1], size[0])).astype(int)
        high = np.clip(np.ceil(self.points.max(0) + self.radius), low, (size[1], size[0])).astype(int)
        return (int(low[1]), int(low[0])), (int(high[1] - low[1]), int(high[0] - low[0]))

    def draw(self, mask: Bool[np.ndarray, "h w"]) -> None:
        """Adds the shape to a mask, or takes it away."""
        (top, left), size = self.part(mask.shape)
        points = self.points - (left, top)
        filled = filled_line(points, self.radius, size) if self.radius else filled_outline(points, size)
        mask[top : top + size[0], left : left + size[1]][filled] = not self.erase


def _scaled(size: Size, scale: float) -> Size:
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _radius(stroke: Stroke, by: Float64[np.ndarray, "2"]) -> float:
    """In pixels of the mask, and so large that a dab has one pixel at least."""
    return max(stroke.radius * math.sqrt(by[0] * by[1]), _LEAST_RADIUS)


def _decoded(drawn: DrawnMask, size: Size) -> Bool[np.ndarray, "H W"]:
    """The run lengths as a mask; pycocotools would read beyond the end of texts that break off."""
    try:
        rle = rle_from_coco(drawn.rle, size)
    except Unusable as error:
        raise BadRequest(f"the mask cannot be used: {error}") from error
    if (flaw := mask_flaws([rle], size)[0]) is not None:
        raise BadRequest(f"the mask cannot be used: {flaw}")
    return decode_rle(rle)
