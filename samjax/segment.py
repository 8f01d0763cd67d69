"""Prompts from the command line to pictures, masks and JSON on disk."""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from samjax import transforms
from samjax.atomic import replacing
from samjax.names import portable
from samjax.ops.rle import encode_rle, rle_area, rle_box
from samjax.sam import Sam
from samjax.types import Embedding, Prompts
from samjax.visualise import Drawing, overlay, side_by_side

Point = tuple[float, float, int]  # x, y in pixels of the photo, label 1 foreground or 0 background
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the photo


@dataclasses.dataclass(frozen=True)
class Request:
    """What to segment in a photo.

    All points together describe one object, beside the box where there is exactly one; several boxes are one object
    each. `mask` is a binary mask of the photo's size that describes the one object further. Raises ValueError where
    that makes no sense, without a model or a photo.
    """

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: Bool[np.ndarray, "H W"] | None = None

    def __post_init__(self) -> None:
        if not self.points and not self.boxes and self.mask is None:
            raise ValueError("nothing says what to segment: give at least one --point, --box or --mask")
        if len(self.boxes) > 1 and (self.points or self.mask is not None):
            raise ValueError(
                f"{len(self.boxes)} boxes are {len(self.boxes)} objects, and a point or mask cannot tell which it "
                "belongs to; give one box with the points or mask, or boxes alone"
            )
        if self.points or self.boxes:
            Prompts.of(*self._points_labels_boxes())

    def _points_labels_boxes(self) -> tuple[Any, Any, Any]:
        points = [[point[:2] for point in self.points]] if self.points else None
        labels = [[point[2] for point in self.points]] if self.points else None
        return points, labels, self.boxes or None

    def prompts(self, sam: Sam, size: transforms.Size) -> Prompts:
        """The request as prompts for a photo of `size` (height, width)."""
        if self.mask is not None and self.mask.shape != size:
            raise ValueError(f"the mask has size {self.mask.shape} and the photo {size} (height, width)")
        mask = [transforms.mask_prompt(self.mask, sam.config)] if self.mask is not None else None
        return Prompts.of(*self._points_labels_boxes(), mask)


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What the model answered: N objects with M masks each."""

    masks: Bool[np.ndarray, "N M H W"]
    iou: Float32[np.ndarray, "N M"]  # predicted, may exceed 1

    def most_confident(self) -> "Segmentation":
        """One mask for each object: the one with the highest predicted IoU."""
        rows, best = np.arange(len(self.iou)), self.iou.argmax(1)
        return Segmentation(self.masks[rows, best][:, None], self.iou[rows, best][:, None])


def segment(
    sam: Sam, rgb: UInt8[np.ndarray, "H W 3"], embedding: Embedding, request: Request, *, multimask: bool
) -> Segmentation:
    """Masks for a request, at the photo's size."""
    prediction = sam.predict(embedding, request.prompts(sam, rgb.shape[:2]), multimask=multimask)
    return Segmentation(sam.masks(prediction, embedding), np.asarray(prediction.iou))


def write(
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
    """The mask files that an earlier report lists; none where there is no report of ours."""
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
