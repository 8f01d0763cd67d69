"""Duplicates judged by the masks themselves."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samjax.ops.rle import rle_area, rle_box, rle_iou


def mask_nms(
    rles: list[dict[str, Any]], scores: Float[np.ndarray, " N"], iou_threshold: float, containment_threshold: float
) -> Int[np.ndarray, " K"]:
    """Indices of the masks to keep, by descending score, equal scores as they come.

    A mask is dropped if its IoU with a better kept mask is above the one threshold, or if the smaller of the two lies
    in the other to a share above the other threshold (nested masks; 1 turns that off). Empty masks overlap nothing.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    areas = np.array([rle_area(rle) for rle in rles], float)
    boxes = np.array([rle_box(rle) for rle in rles]).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    kept: list[int] = []
    for number in order:
        near = [i for i in kept if (low[number] < high[i]).all() and (low[i] < high[number]).all()]
        if near:
            iou = rle_iou([rles[i] for i in near], [rles[number]])[:, 0]
            shared = np.rint(iou * (areas[near] + areas[number]) / (1 + iou))  # pixels
            contained = shared > containment_threshold * np.minimum(areas[near], areas[number])
            if (iou > iou_threshold).any() or contained.any():
                continue
        kept.append(int(number))
    return np.array(kept, int)
