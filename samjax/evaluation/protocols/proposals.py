"""Object proposals: everything in a photo, ranked; how much of what is annotated is among the best 10, 100 and 1000.

SAM's protocol: a grid of 64 x 64 points on the photo, three masks each, no filter of quality, non-maximum suppression
of boxes at IoU 0.9, ranking by the mean of predicted IoU and stability. Average recall (AR) is class-agnostic, over
COCO's ten IoU thresholds, matched by pycocotools.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.evaluation.metrics.average_recall import average_recall, count_matches
from samjax.evaluation.protocol import Judgement, Sample, Segmenter, Summary
from samjax.evaluation.segmenters import SamSegmenter
from samjax.evaluation.user.grid import Grid
from samjax.ops.boxes import nms
from samjax.ops.rle import RLE, encode_rle, inclusive_box, rle_area

STABILITY_OFFSET = 1.0  # of logits, as mask generation has it


class Proposals:
    """AR@10, @100 and @1000, the last also for small, medium and large objects.

    samjax models run through `samjax.amg`, others are asked for points, `points_per_batch` at a time. Empty masks are
    no proposals.

    Args:
        points_per_side: of the grid.
        nms_threshold: IoU of boxes above which a mask is a duplicate of one with a higher predicted IoU.
        points_per_batch: decoded together: memory, not results.
    """

    name = "proposals"
    asks = True

    def __init__(self, points_per_side: int = 64, nms_threshold: float = 0.9, points_per_batch: int = 64) -> None:
        self.grid = Grid(points_per_side, nms_threshold, points_per_batch)

    def settings(self) -> dict[str, Any]:
        return self.grid.settings()

    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """`count_matches` of each, with "proposals", their number."""
        records = []
        for sample in samples:
            masks, scores = self.propose(segmenter, sample)
            found = count_matches([thing.mask for thing in sample.objects], masks, scores)
            records.append({**found, "proposals": len(masks)})
        return records

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        metrics: dict[str, float | int] = dict(average_recall(records))
        metrics["objects"] = sum(record["objects"]["all"] for record in records)
        metrics["proposals per photo"] = float(np.mean([record["proposals"] for record in records]))
        return Summary(metrics)

    def propose(self, segmenter: Segmenter, sample: Sample) -> tuple[list[RLE], Float[np.ndarray, " N"]]:
        """The masks of a photo that are left after suppression, and what they are ranked by."""
        if isinstance(segmenter, SamSegmenter):
            config = GenerationConfig(
                points_per_side=self.grid.points_per_side,
                points_per_batch=self.grid.points_per_batch,
                pred_iou_thresh=0.0,
                stability_score_thresh=0.0,
                stability_score_offset=STABILITY_OFFSET,
                box_nms_thresh=self.grid.nms_threshold,
            )
            found = MaskGenerator(segmenter.sam, config).candidates(sample.rgb)
            masks, scores = found.rles, (found.iou + found.stability) / 2
        else:
            masks, scores = self._ask(segmenter, sample)
        there = np.array([rle_area(mask) > 0 for mask in masks], bool)
        return [mask for mask, kept in zip(masks, there, strict=True) if kept], np.asarray(scores, float)[there]

    def _ask(self, segmenter: Segmenter, sample: Sample) -> tuple[list[RLE], Float[np.ndarray, " N"]]:
        segmenter.look([sample.rgb])
        masks: list[RLE] = []
        iou, stabilities = [], []
        for prompts in self.grid.prompts(sample.rgb.shape[:2]):
            for answer in segmenter.ask([prompts], multimask=True)[0]:
                masks += [encode_rle(mask) for mask in answer.masks]
                iou.append(answer.iou)
                stabilities.append(stability(segmenter.full_logits(0, answer.logits)))
        predicted, stable = np.concatenate(iou), np.concatenate(stabilities)
        kept = nms(np.array([inclusive_box(mask) for mask in masks]), predicted, self.grid.nms_threshold)
        return [masks[index] for index in kept], (predicted[kept] + stable[kept]).astype(float) / 2


def stability(logits: Float32[np.ndarray, "M H W"]) -> Float32[np.ndarray, " M"]:
    """IoU of each mask with itself at thresholds `STABILITY_OFFSET` above and below 0; 0 where both are empty."""
    high, low = ((logits > threshold).sum((1, 2)) for threshold in (STABILITY_OFFSET, -STABILITY_OFFSET))
    return (high / np.maximum(low, 1)).astype(np.float32)
