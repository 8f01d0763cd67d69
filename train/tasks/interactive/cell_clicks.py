"""The clicks of validation's user: where RITM's would go (Sofiiuk et al., arXiv 2102.06583), found on cells.

`samjax.evaluation.user.clicks` has the rules of RITM and SAM themselves, on pixels of the photo, to be compared with
published figures; `samjax.train.tasks.interactive.user` the random clicks of training, on the device. Here, on the
host, regions are cells (`samjax.train.batch`). Distances, by the same function as RITM's, are between cells, those more
than half in the region; the click itself is a pixel of the region, so that it is never beside a thin object. Of equally
deep errors the object's comes first, which RITM clicks last.
"""

import numpy as np
from jaxtyping import UInt

from samjax.config import PromptLabel
from samjax.evaluation.user.clicks import depths

Pixel = tuple[float, float]  # (x, y), of the model's input


def deepest_pixel(region: UInt[np.ndarray, "h w"], ratio: int) -> tuple[float, Pixel | None]:
    """The pixel farthest from the region's boundary, and how far that is in cells; (0, None) for an empty region.

    The border of the grid is a boundary. A region that fills no cell by half has depth below 1/2: the share of the cell
    that it fills most.
    """
    counts = np.bitwise_count(region)
    fullest = int(counts.max())
    if not fullest:
        return 0.0, None
    if 2 * fullest > ratio**2:
        depth, (column, row) = depths(2 * counts.astype(np.int32) > ratio**2).deepest()
    else:
        row, column = divmod(int(np.argmax(counts)), counts.shape[1])
        depth = fullest / ratio**2
    bits = (int(region[row, column]) >> np.arange(ratio**2)) & 1
    y, x = np.divmod(np.flatnonzero(bits), ratio)
    middle = (ratio - 1) / 2
    nearest = int(np.argmin((y - middle) ** 2 + (x - middle) ** 2))
    return depth, (float(column * ratio + x[nearest]), float(row * ratio + y[nearest]))


def correction(target: UInt[np.ndarray, "h w"], wrong: UInt[np.ndarray, "h w"], ratio: int) -> tuple[Pixel, int] | None:
    """A click where the prediction is wrong, and its label: on what is missed of the object or on what is wrongly
    taken for it, whichever goes deeper. None if nothing is wrong."""
    missed, missed_at = deepest_pixel(target & wrong, ratio)
    beside, beside_at = deepest_pixel(~target & wrong, ratio)
    if missed_at is not None and missed >= beside:
        return missed_at, PromptLabel.FOREGROUND
    return None if beside_at is None else (beside_at, PromptLabel.BACKGROUND)
