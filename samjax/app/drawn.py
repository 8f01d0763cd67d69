"""Mask prompts that were drawn: outlines, strokes and run lengths as binary masks of a bounded size."""

import itertools
import math

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from samjax.app.steps import BadRequest, DrawnMask, Stroke
from samjax.ops.rle import decode_rle
from samjax.readers.left_out import Unusable
from samjax.readers.masks import mask_flaws, rle_from_coco
from samjax.transforms import Size

_MOST_WORK = 4e9  # pixels painted; about a second
MOST_SIDE = 2048  # pixels; a mask prompt has 256 cells a side or so, and eight pixels tell a cell's share well enough


def drawn_mask(drawn: DrawnMask, size: Size) -> Bool[np.ndarray, "h w"]:
    """A drawn mask of a photo of `size` (height, width), at its size or, where that is large, at one of at most
    `MOST_SIDE` pixels a side in the same proportions.

    Run lengths come first, then filled outlines are added, then strokes added or erased in their order. Outlines and
    strokes have pixel (0, 0) cover [0, 1] x [0, 1]. Raises BadRequest for run lengths that are none of this size, and
    if nothing is left.
    """
    scale = min(1.0, MOST_SIDE / max(size))
    height, width = (max(round(side * scale), 1) for side in size)
    if drawn.rle is None:
        picture = Image.new("L", (width, height), 0)
    else:
        mask = Image.fromarray(_decoded(drawn, size).astype(np.uint8) * 255)
        # A pixel of the smaller mask is foreground where most of its area is.
        picture = mask if scale == 1 else mask.resize((width, height), Image.Resampling.BOX).point(_more_than_half)
    across, down = width / size[1], height / size[0]
    if sum(_work(stroke, (height, width), across) for stroke in drawn.strokes) > _MOST_WORK:
        raise BadRequest("the strokes are too long for their width: draw with fewer points, or in several steps")
    pen = ImageDraw.Draw(picture)
    for outline in drawn.outlines:
        # Pillow's coordinates name pixels' centres.
        pen.polygon([(x * across - 0.5, y * down - 0.5) for x, y in outline], fill=255)
    for stroke in drawn.strokes:
        _draw(pen, stroke, across, down)
    mask = np.asarray(picture) > 0
    if not mask.any():
        raise BadRequest("the drawn mask is empty")
    return mask


def _decoded(drawn: DrawnMask, size: Size) -> Bool[np.ndarray, "H W"]:
    """The run lengths as a mask; pycocotools would read beyond the end of texts that break off."""
    try:
        rle = rle_from_coco(drawn.rle, size)
    except Unusable as error:
        raise BadRequest(f"the mask cannot be used: {error}") from error
    if (flaw := mask_flaws([rle], size)[0]) is not None:
        raise BadRequest(f"the mask cannot be used: {flaw}")
    return decode_rle(rle)


def _more_than_half(value: int) -> int:
    return 255 if value > 127 else 0


def _work(stroke: Stroke, size: Size, across: float) -> float:
    """Pixels that are painted, most of them many times."""
    wide = 2 * stroke.radius * across
    return len(stroke.points) * min(wide, size[0]) * min(wide, size[1])


def _draw(pen: ImageDraw.ImageDraw, stroke: Stroke, across: float, down: float) -> None:
    fill = 0 if stroke.erase else 255
    radius = max(stroke.radius * math.sqrt(across * down), 0.5)
    points = [(x * across - 0.5, y * down - 0.5) for x, y in stroke.points]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        if length > 0:
            dx, dy = -(y1 - y0) / length * radius, (x1 - x0) / length * radius
            pen.polygon([(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)], fill=fill)
    for x, y in points:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
