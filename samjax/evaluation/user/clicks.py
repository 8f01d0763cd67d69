"""The next click of a user, by RITM's rule and by SAM's. On the host, with exact Euclidean distances.

`samjax.train.tasks.interactive.user` has the random clicks of training, `samjax.train.tasks.interactive.cell_clicks`
validation's on packed masks.

Distances are to the nearest pixel outside a region, pixels beyond the photo's border being outside: the centre of a
disc is deep, a thin or marginal region is shallow. They are float32, as OpenCV's for RITM. What lies outside a region's
bounding box cannot change them, so they are measured within it: 2.8 ms instead of 15.6 for a disc of radius 120 in a
photo of 480 x 640 (one CPU core; two threads are no faster, because the transform holds Python's lock). Compiled for
the CPU as one exact transform for all regions, it takes 90 times as long (`benchmarks/click_search.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from samjax.readers.record import Click


class Depths(NamedTuple):
    """Distances of a region's pixels to its boundary, within its bounding box."""

    values: Float32[np.ndarray, "h w"]  # pixels; 0 outside the region
    left: int  # of the box in the photo
    top: int

    def deepest(self, clicked: Sequence[Click] = ()) -> tuple[float, tuple[int, int]]:
        """The largest depth but for pixels that are `clicked` already, and the first (x, y) in reading order that has
        it; a depth of 0 is that of no pixel of the region. Clicks are those of a rule: whole pixels."""
        values = self.values
        height, width = values.shape
        if not values.size:
            return 0.0, (0, 0)
        inside = [
            (click.y - self.top, click.x - self.left)
            for click in clicked
            if 0 <= click.y - self.top < height and 0 <= click.x - self.left < width
        ]
        if inside:
            values = values.copy()
            values[tuple(np.array(inside).T)] = 0
        row, column = np.unravel_index(int(np.argmax(values)), values.shape)
        return float(values[row, column]), (self.left + int(column), self.top + int(row))


def depths(region: Bool[np.ndarray, "H W"]) -> Depths:
    """The distance of each pixel of a region to the nearest pixel outside."""
    from scipy import ndimage

    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    if not len(rows):
        return Depths(np.zeros((0, 0), np.float32), 0, 0)
    top, left = int(rows[0]), int(columns[0])
    box = region[top : rows[-1] + 1, left : columns[-1] + 1]
    distances = ndimage.distance_transform_edt(np.pad(box, 1))[1:-1, 1:-1]
    return Depths(distances.astype(np.float32), left, top)


def next_click(
    target: Bool[np.ndarray, "H W"],
    prediction: Bool[np.ndarray, "H W"],
    clicked: Sequence[Click] = (),
    judged: Bool[np.ndarray, "H W"] | None = None,
) -> Click | None:
    """RITM's rule (Sofiiuk et al., arXiv 2102.06583): the deepest pixel of what is missed of the object or of what is
    wrongly taken for it, whichever goes deeper; on the wrong side where both are as deep.

    Args:
        target: the object.
        prediction: the present mask; all False before the first click.
        clicked: earlier clicks, which are not made again. They do not make a region shallower around them.
        judged: False for pixels that are neither right nor wrong; None where all count.

    Returns:
        None if nothing that is wrong is left to be clicked. (RITM has stopped by then; its code would click the
        corner of the photo.)
    """
    wrong = target ^ prediction if judged is None else (target ^ prediction) & judged
    missed, missed_at = depths(wrong & target).deepest(clicked)
    beside, beside_at = depths(wrong & prediction).deepest(clicked)
    if max(missed, beside) == 0:
        return None
    positive = missed > beside
    return Click(*(missed_at if positive else beside_at), int(positive))


def next_point(
    target: Bool[np.ndarray, "H W"],
    prediction: Bool[np.ndarray, "H W"],
    clicked: Sequence[Click] = (),
    judged: Bool[np.ndarray, "H W"] | None = None,
) -> Click | None:
    """SAM's rule (Kirillov et al., arXiv 2304.02643, appendix D.1): the pixel farthest from the boundary of the error
    region, which is what is missed and what is wrongly taken together; the object itself before the first point.

    Arguments and None as for `next_click`. The paper does not say what happens where the same pixel would be chosen
    again: here the deepest pixel that has not been is.
    """
    wrong = target ^ prediction if judged is None else (target ^ prediction) & judged
    depth, (x, y) = depths(wrong).deepest(clicked)
    return None if depth == 0 else Click(x, y, int(target[y, x]))
