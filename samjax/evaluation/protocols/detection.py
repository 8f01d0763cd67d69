"""Instance segmentation by boxes: a detector's boxes become masks, judged by COCO's average precision (pycocotools).

Mask areas decide about small (up to 32^2 pixels), medium (up to 96^2) and large ones, for boxes the boxes' areas.
LVIS annotations are judged by COCO's rules too, not by LVIS's own, which leave out the categories that nobody looked
for in a photo: the numbers are lower than those that papers report for LVIS.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from samjax.evaluation.datasets import digest
from samjax.evaluation.datasets.detections import ids_by_name, read_annotations, read_detections, spellings
from samjax.evaluation.metrics.average_precision import PRECISIONS, coco_scores
from samjax.evaluation.protocol import Judgement, Sample, Segmenter, Summary
from samjax.evaluation.protocols.boxes import segment_boxes
from samjax.ops.rle import encode_rle

BOXES_TOGETHER = 64  # asked at once: bounds the memory of masks at the photo's size


class BoxDetections:
    """Box-prompted instance segmentation: each box of a detector gives one mask, refined with its own logits once.

    Scores and categories are the detector's. The data set's samples are photos of the annotation file, named as its
    `file_name` says, with or without folders and ending. Records do not depend on the annotations, so a run resumes
    with others; results should mention `annotations_digest`.

    Args:
        annotations: COCO or LVIS JSON.
        detections: COCO results JSON, a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"},
            ORIGINAL pixels.
        refinements: how often the most confident mask is fed back.

    Raises:
        ValueError: a file is not what it should be, or the two are not about the same photos.
    """

    name = "detections"
    asks = True

    def __init__(
        self, annotations: str | os.PathLike[str], detections: str | os.PathLike[str], refinements: int = 1
    ) -> None:
        if refinements < 0:
            raise ValueError(f"refinements are 0 or more, got {refinements}")
        self.refinements = refinements
        self.truth = read_annotations(annotations)
        found = read_detections(detections, self.truth)
        self.annotations_digest = digest(annotations)
        self._detections_digest = digest(detections)
        self._ids, self._several = ids_by_name(self.truth)
        self._found: dict[int | str, list[dict[str, Any]]] = {}
        for detection in found:
            self._found.setdefault(detection["image_id"], []).append(detection)

    def settings(self) -> dict[str, Any]:
        """The annotations have no part but for the photos' ids: they judge the records, and may be mended later."""
        ids = hashlib.sha256(json.dumps(self._ids).encode()).hexdigest()[:16]
        return {"refinements": self.refinements, "detections": self._detections_digest, "photo_ids": ids}

    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """{"image_id", "results"}: COCO results with "segmentation", and the detector's "bbox"."""
        ids = [self._id(sample) for sample in samples]
        found = [self._found.get(id, []) for id in ids]
        segmenter.look([sample.rgb for sample in samples])
        results: list[list[dict[str, Any]]] = [[] for _ in samples]
        for start in range(0, max(map(len, found), default=0), BOXES_TOGETHER):
            some = [detections[start : start + BOXES_TOGETHER] for detections in found]
            boxes = [np.array([_corners(one["bbox"]) for one in part], np.float32).reshape(-1, 4) for part in some]
            answers = segment_boxes(segmenter, boxes, refinements=self.refinements)
            for photo, (part, masks) in enumerate(zip(some, answers, strict=True)):
                for detection, answer in zip(part, masks, strict=True):
                    results[photo].append({**detection, "segmentation": encode_rle(answer.masks[answer.best])})
        return [{"image_id": id, "results": result} for id, result in zip(ids, results, strict=True)]

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """COCO's twelve numbers for the masks, and its AP for the detector's boxes, over the photos of `records`."""
        ids = [record["image_id"] for record in records]
        results = [result for record in records for result in record["results"]]
        masks, figure = coco_scores(self.truth, results, "mask", ids)
        boxes, _ = coco_scores(self.truth, results, "box", ids)
        metrics = {f"mask {name}": value for name, value in masks.items()}
        return Summary(metrics | {f"box {name} (detector)": boxes[name] for name in PRECISIONS}, (figure,))

    def _id(self, sample: Sample) -> int | str:
        for name in spellings(sample.name):
            if name in self._several:
                raise ValueError(f"{sample.name} may be any of {', '.join(self._several[name])} in the annotations")
            if name in self._ids:
                return self._ids[name]
        raise ValueError(f"the annotations know no photo {sample.name}; do they belong to these photos?")


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height
