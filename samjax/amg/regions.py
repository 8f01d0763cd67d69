"""Removal of small holes and islands from masks."""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from samjax.amg.candidates import Candidates
from samjax.ops.boxes import nms
from samjax.ops.rle import decode_rle, encode_rle, inclusive_box


def remove_small_regions(
    mask: Bool[np.ndarray, "H W"], area: int | float, mode: Literal["holes", "islands"]
) -> tuple[Bool[np.ndarray, "H W"], bool]:
    """The mask without holes, or without islands, of fewer than `area` pixels, and whether it was changed.

    Regions are connected through corners too. What surrounds the object is a hole like any other, as in the reference
    (`remove_small_regions`); if all islands are small, the largest stays.
    """
    from scipy import ndimage

    holes = mode == "holes"
    labels, count = ndimage.label(mask ^ holes, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    small = sizes < area
    small[0] = False
    if not small.any():
        return mask, False
    if holes:
        return mask | small[labels], True
    if small[1:].all():
        small[_first_largest(labels, sizes)] = False
    return mask & ~small[labels], True


def _window(box: Int[np.ndarray, "4"], size: tuple[int, int], area: int | float) -> tuple[slice, slice]:
    """The part of a photo in which to look for small regions of a mask: its box and a margin so wide that background
    which continues beyond it is not small. It begins at even pixels, because ties are broken by blocks of 2x2."""
    x0, y0, x1, y1 = map(int, box)
    margin = math.ceil(area / (1 + min(x1 - x0, y1 - y0)))
    return (
        slice(max(y0 - margin, 0) // 2 * 2, min(y1 + 1 + margin, size[0])),
        slice(max(x0 - margin, 0) // 2 * 2, min(x1 + 1 + margin, size[1])),
    )


def _first_largest(labels: Int[np.ndarray, "H W"], sizes: Int[np.ndarray, " L"]) -> int:
    """The largest region; of several, the one that OpenCV, which goes through blocks of 2x2 pixels, meets first."""
    largest = sizes == sizes[1:].max()
    largest[0] = False
    y, x = np.nonzero(largest[labels])
    first = np.lexsort((x // 2, y // 2))[0]
    return int(labels[y[first], x[first]])


def remove_from(candidates: Candidates, min_area: int | float, nms_thresh: float) -> Candidates:
    """Removes small holes, then small islands from each mask, then duplicates by box, preferring unchanged masks.

    Same masks in the same order as the reference's `postprocess_small_regions`.
    """
    rles, boxes = list(candidates.rles), candidates.boxes.copy()
    unchanged = np.ones(len(candidates))
    for number, rle in enumerate(rles):
        mask = decode_rle(rle)
        window = _window(boxes[number], mask.shape, min_area)
        part, filled = remove_small_regions(mask[window], min_area, "holes")
        part, cleared = remove_small_regions(part, min_area, "islands")
        if filled or cleared:
            unchanged[number] = 0
            mask[window] = part
            rles[number] = encode_rle(mask)
            boxes[number] = inclusive_box(rles[number])
    mended = dataclasses.replace(candidates, rles=rles, boxes=boxes)
    return mended.take(nms(boxes, unchanged, nms_thresh))
