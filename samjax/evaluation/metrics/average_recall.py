"""Class-agnostic average recall of ranked proposals, over COCO's ten IoU thresholds, matched by pycocotools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from samjax.evaluation.metrics.average_precision import coco_index, quiet
from samjax.evaluation.protocol import Judgement
from samjax.ops.rle import RLE, rle_area, rle_iou

COUNTS = (10, 100, 1000)  # of the best proposals
AREAS = ("all", "small", "medium", "large")


def count_matches(truth: Sequence[RLE], proposals: Sequence[RLE], scores: Float[np.ndarray, " N"]) -> Judgement:
    """Counts the objects of a photo that are found: {"objects": {area: n}, "found": {area: n by count and threshold}}.

    Matching is pycocotools', by descending score. It is given only the proposals that reach its lowest threshold with
    some object: the others can match nothing, and count by taking a rank.
    """
    from pycocotools.cocoeval import COCOeval

    order = np.argsort(-scores, kind="stable")[: COUNTS[-1]]
    best = [proposals[index] for index in order]
    near = np.flatnonzero((rle_iou(best, list(truth)) >= 0.5 - 1e-9).any(1))  # in descending order of score
    height, width = next((mask["size"] for mask in (*truth, *proposals)), (0, 0))
    annotations = {"images": [{"id": 1, "height": height, "width": width}], "categories": [{"id": 1}]}
    judge = COCOeval(
        coco_index(annotations | {"annotations": [_annotation(mask) for mask in truth]}),
        coco_index(annotations | {"annotations": [_annotation(best[rank], -float(rank)) for rank in near]}),
        "segm",
    )
    judge.params.useCats = 0
    judge.params.maxDets = list(COUNTS)
    with quiet():
        judge.evaluate()
    objects, found = {}, {}
    for area, judged in zip(AREAS, judge.evalImgs, strict=True):
        if judged is None:  # neither objects nor proposals
            objects[area], found[area] = 0, [[0] * len(judge.params.iouThrs) for _ in COUNTS]
            continue
        matched: Bool[np.ndarray, "T N"] = (judged["dtMatches"] > 0) & ~judged["dtIgnore"].astype(bool)
        objects[area] = int((judged["gtIgnore"] == 0).sum())
        found[area] = [matched[:, near < count].sum(1).tolist() for count in COUNTS]
    return {"objects": objects, "found": found}


def average_recall(records: Sequence[Judgement]) -> dict[str, float]:
    """AR over all photos of `count_matches`; NaN if there is no object of a size."""
    recalls = {}
    for area in AREAS:
        objects = sum(record["objects"][area] for record in records)
        found = np.sum([record["found"][area] for record in records], axis=0)  # (count, threshold)
        recalls[area] = found.mean(1) / objects if objects else np.full(len(COUNTS), np.nan)
    metrics = {f"AR@{count}": float(recall) for count, recall in zip(COUNTS, recalls["all"], strict=True)}
    return metrics | {f"AR@{COUNTS[-1]} {area}": float(recalls[area][-1]) for area in AREAS[1:]}


def _annotation(mask: RLE, score: float = 0.0) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "segmentation": mask, "area": float(rle_area(mask)), "score": score}
