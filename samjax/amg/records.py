"""Candidates as the reference's records."""

from typing import Any

import numpy as np
from jaxtyping import Int

from samjax.amg.candidates import Candidates
from samjax.ops.rle import decode_rle, rle_area, run_lengths

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


def records(candidates: Candidates, output_mode: str) -> list[dict[str, Any]]:
    """One record a mask, in the ORIGINAL frame.

    `segmentation` (bool (H, W), or run-length encoded, as `output_mode` says), `bbox` [x, y, width, height] of the
    outermost pixels as the reference counts (one less than COCO does), `area` in pixels, `predicted_iou`,
    `point_coords` [[x, y]], `stability_score`, `crop_box` [x, y, width, height]. Raises ValueError for another mode.
    """
    if output_mode not in OUTPUT_MODES:
        raise ValueError(f"output_mode is binary_mask, uncompressed_rle or coco_rle, got {output_mode!r}")
    return [
        {
            "segmentation": _segmentation(rle, output_mode),
            "area": rle_area(rle),
            "bbox": _xywh(candidates.boxes[number]),
            "predicted_iou": float(candidates.iou[number]),
            "point_coords": [candidates.points[number].tolist()],
            "stability_score": float(candidates.stability[number]),
            "crop_box": _xywh(candidates.crops[number]),
        }
        for number, rle in enumerate(candidates.rles)
    ]


def _segmentation(rle: dict[str, Any], output_mode: str) -> Any:
    if output_mode == "binary_mask":
        return decode_rle(rle)
    return rle if output_mode == "coco_rle" else {"size": rle["size"], "counts": run_lengths(rle).tolist()}


def _xywh(box: Int[np.ndarray, "4"]) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
