"""The answer to a prompt as files: an overlay picture, a picture of each mask, and a JSON report."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from samjax.atomic import replacing
from samjax.names import portable
from samjax.ops.rle import encode_rle, rle_area, rle_box
from samjax.segment import Request, Segmentation
from samjax.visualise import Drawing, overlay, side_by_side


def write_answer(
    folder: Path, name: str, rgb: UInt8[np.ndarray, "H W 3"], request: Request, answer: Segmentation, described: dict
) -> list[Path]:
    """Writes NAME_overlay.png, NAME_mask_<object>[_<mask>].png and NAME.json into a folder; returns their paths.

    Each file appears complete or not at all; masks of an earlier run of the same name that this one does not have are
    removed. `described` goes into the JSON as it is.
    """
    report = folder / f"{name}.json"
    earlier = _masks_named_in(report)
    written: list[Path] = []
    records = []
    objects, count = answer.iou.shape
    for i in range(objects):
        for m in range(count):
            path = folder / (f"{name}_mask_{i}.png" if count == 1 else f"{name}_mask_{i}_{m}.png")
            _save_picture(Image.fromarray(answer.masks[i, m].astype(np.uint8) * 255), path)
            rle = encode_rle(answer.masks[i, m])
            records.append(
                {
                    "object": i,
                    "mask": m,
                    "file": portable(path.name),
                    "predicted_iou": round(float(answer.iou[i, m]), 6),
                    "area": rle_area(rle),
                    "bbox": rle_box(rle),
                    "segmentation": rle,
                }
            )
            written.append(path)
    picture = folder / f"{name}_overlay.png"
    panels = [overlay(rgb, _drawings(request, answer, m)) for m in range(count)]
    # Three times as fast as zlib's usual way, which finds little to repeat in photos: the file is 5 to 20 % larger.
    _save_picture(side_by_side(panels), picture, compress_type=zlib.Z_RLE)

    content = {
        **described,
        "size": {"height": rgb.shape[0], "width": rgb.shape[1]},
        "prompt": {"points": request.points, "boxes": request.boxes, "has_mask": request.mask is not None},
        "masks": records,
    }
    with replacing(report, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    for stale in earlier - {path.name for path in written}:
        (folder / stale).unlink(missing_ok=True)
    return [picture, *written, report]


def _masks_named_in(report: Path) -> set[str]:
    """The mask files that an earlier report lists; none if there is no report of ours."""
    try:
        files = {record["file"] for record in json.loads(report.read_text(encoding="utf-8"))["masks"]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
    prefix = portable(f"{report.stem}_mask_")
    return {
        f"{report.stem}_mask_{file.removeprefix(prefix)}"
        for file in files
        if file.startswith(prefix) and "/" not in file
    }


def _drawings(request: Request, answer: Segmentation, m: int) -> Sequence[Drawing]:
    """Every object's m-th mask with its prompt."""
    return [
        Drawing(
            answer.masks[i, m],
            float(answer.iou[i, m]),
            tuple(point[:2] for point in request.points),
            tuple(point[2] for point in request.points),
            request.boxes[i] if request.boxes else None,
            request.mask,
        )
        for i in range(len(answer.iou))
    ]


def _save_picture(picture: Image.Image, path: Path, **how: Any) -> None:
    with replacing(path, overwrite=True) as temporary:
        picture.save(temporary, format="PNG", **how)
