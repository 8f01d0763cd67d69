"""Duplicates judged by the masks themselves.

They are judged twice: at low resolution on the device (`samjax.amg.program`), where only masks that are nearly the same
go, then here at the photo's size. Views of one object from several crops prefer the smaller crop, as in the reference;
of nested masks the better one stays.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samjax.ops.rle import rle_area, rle_iou

BLOCK = 64  # masks compared with all kept ones at once, so that the runs of those are read once a block


def mask_nms(
    rles: list[dict[str, Any]], scores: Float[np.ndarray, " N"], iou_threshold: float, containment_threshold: float
) -> Int[np.ndarray, " K"]:
    """Indices of the masks to keep, by descending score, equal scores as they come.

    A mask is dropped if its IoU with a better kept mask is above the one threshold, or if the smaller of the two lies
    in the other to a share above the other threshold (nested masks; 1 turns that off). Empty masks overlap nothing.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    areas = np.array([rle_area(rle) for rle in rles], float)
    kept = np.zeros(0, int)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        better = np.concatenate([kept, block])
        iou = rle_iou([rles[i] for i in better], [rles[i] for i in block])
        total = areas[better, None] + areas[block]
        shared = np.rint(iou * total / (1 + iou))  # pixels
        contained = shared > containment_threshold * np.minimum(areas[better, None], areas[block])
        suppressed = (iou > iou_threshold) | contained
        stays = np.arange(len(better)) < len(kept)
        for column in range(len(block)):
            stays[len(kept) + column] = not suppressed[stays, column].any()
        kept = better[stays]
    return kept
