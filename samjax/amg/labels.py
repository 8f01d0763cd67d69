"""Overlapping masks as one map of labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from samjax.ops.rle import decode_rle, encode_rle, foreground_runs, rle_area


def label_map(records: Sequence[dict[str, Any]], size: tuple[int, int]) -> Int32[np.ndarray, "H W"]:
    """One map of a photo of `size` (height, width): 0 is background, i + 1 belongs to the i-th record.

    A pixel that several masks cover goes to the smallest of them (by pixels), so that parts stay visible on wholes;
    among masks of one size to the one with the higher predicted IoU (0 for a record without), then to the earlier one.
    A mask that others cover wholly has no pixel in the map. `records` are `SamAutomaticMaskGenerator.generate`'s in any
    output mode.
    """
    masks = [_as_rle(record["segmentation"]) for record in records]
    areas = [rle_area(rle) for rle in masks]
    # Painted from the weakest to the strongest claim.
    scores = [record.get("predicted_iou", 0.0) for record in records]
    order = sorted(range(len(records)), key=lambda i: (areas[i], -scores[i], i), reverse=True)
    down_the_columns = np.zeros(size[0] * size[1], np.int32)
    for number in order:
        if tuple(masks[number]["size"]) != tuple(size):
            raise ValueError(f"record {number} has a mask of size {masks[number]['size']}, the photo has {size}")
        for start, end in foreground_runs(masks[number]).tolist():
            down_the_columns[start:end] = number + 1
    return np.ascontiguousarray(down_the_columns.reshape(size[::-1]).T)


def _as_rle(segmentation: Any) -> dict[str, Any]:
    if isinstance(segmentation, dict):
        return segmentation if isinstance(segmentation["counts"], str) else encode_rle(decode_rle(segmentation))
    return encode_rle(np.asarray(segmentation, bool))
