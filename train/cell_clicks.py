"""The clicks of validation's user: where RITM's would go (Sofiiuk et al., arXiv 2102.06583), found on cells.

`samjax.evaluation.user.clicks` has the rules of RITM and SAM themselves, on pixels of the photo, to be compared with
published figures; `samjax.train.interaction` the random clicks of training, on the device. Here regions are cells
(`samjax.train.batch`). Distances are measured between cells, those more than half in the region; the click itself is a
pixel of the region, so that it is never beside a thin object. Of equally deep errors the object's comes first.
"""

import numpy as np
from jaxtyping import UInt
from scipy import ndimage

from samjax.config import PromptLabel

Pixel = tuple[float, float]  # (x, y), of the model's input


def deepest_pixel(region: UInt[np.ndarray, "h w"], ratio: int) -> tuple[float, Pixel | None]:
    """The pixel farthest from the region's boundary, and how far that is in cells; (0, None) for an empty region.

    The border of the grid is a boundary. A region that fills no cell by half has depth below 1/2: the share of the cell
    that it fills most.
    """
    counts = np.bitwise_count(region)
    rows, columns = (np.flatnonzero(counts.any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0.0, None
    top, left = int(rows[0]), int(columns[0])
    counts = counts[top : rows[-1] + 1, left : columns[-1] + 1]
    solid = 2 * counts.astype(np.int32) > ratio**2
    depths = ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1] if solid.any() else counts / ratio**2
    row, column = np.unravel_index(int(np.argmax(depths)), depths.shape)
    depth = float(depths[row, column])
    row, column = top + int(row), left + int(column)
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
