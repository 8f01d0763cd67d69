"""Edge detection without training for it: the outlines of everything in a photo against those that people drew.

SAM's protocol (Kirillov et al. 2023, section 7.2): a grid of 16 x 16 points, three masks each, no filter of quality,
non-maximum suppression of boxes at IoU 0.7, then `edge_maps`, judged as `edge_scores` says. Published for BSDS500 with
ViT-H: ODS 0.768, OIS 0.786, AP 0.794, R50 0.928.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from samjax.evaluation.datasets import AnnotatedEdges
from samjax.evaluation.metrics.edge_scores import (
    THRESHOLDS,
    TOLERANCE,
    EdgeCounts,
    MaskCounts,
    Task,
    count_edges,
    count_mask,
    human_agreement,
    score_edges,
)
from samjax.evaluation.protocol import Curve, Figure, Judgement, Prompt, Segmenter, Summary
from samjax.evaluation.protocols.edge_maps import add_mask, thinned
from samjax.evaluation.user.grid import Grid
from samjax.ops.boxes import nms
from samjax.ops.masks import outermost

MOST_PROCESSES = 16  # a photo has 99 thresholds


class Edges:
    """ODS, OIS, AP and R50 of a segmenter's outlines; an `EvaluationProtocol` for photos with boundaries.

    Args:
        points_per_side: of the grid.
        nms_threshold: IoU of boxes above which a mask is a duplicate of one with a higher predicted IoU.
        tolerance: how far apart an edge and a drawn one may lie, as a share of the photo's diagonal.
        points_per_batch: asked for together: memory, not results.
        processes: that match edges, by default one for each core, up to 16; 1 is this process.
    """

    name = "edges"
    asks = True

    def __init__(
        self,
        points_per_side: int = 16,
        nms_threshold: float = 0.7,
        tolerance: float = TOLERANCE,
        points_per_batch: int = 64,
        processes: int | None = None,
    ) -> None:
        self.grid = Grid(points_per_side, nms_threshold, points_per_batch)
        if not tolerance >= 0:
            raise ValueError(f"the tolerance is a share of the diagonal and not negative, got {tolerance}")
        if processes is not None and processes < 1:
            raise ValueError(f"there must be at least one process, got {processes}")
        self.tolerance = tolerance
        self.processes = processes

    def settings(self) -> dict[str, Any]:
        return {**self.grid.settings(), "tolerance": self.tolerance, "thresholds": len(THRESHOLDS)}

    def judge(self, segmenter: Segmenter, samples: Sequence[AnnotatedEdges]) -> list[Judgement]:
        """Pixels at each threshold, under the names of `EdgeCounts`, and how many masks the edges are of."""
        records = []
        for sample, (edges, masks) in zip(samples, self._draw(segmenter, [s.rgb for s in samples]), strict=True):
            counts = count_edges(edges, sample.boundaries, tolerance=self.tolerance, count_masks=self._count)
            records.append({**_record(counts), "masks": masks})
        return records

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        photos = [_counts(record) for record in records]
        scores = score_edges(photos)
        total = sum(photos[1:], photos[0])
        metrics = {
            "ODS": scores.ods,
            "OIS": scores.ois,
            "AP": scores.ap,
            "R50": scores.r50,
            "ODS threshold": scores.ods_threshold,
            "ODS precision": scores.ods_precision,
            "ODS recall": scores.ods_recall,
            "masks per photo": float(np.mean([record["masks"] for record in records])),
        }
        some = total.predicted > 0
        curve = Curve("edges", total.recall[some].tolist(), total.precision[some].tolist())
        best = Curve(f"ODS {scores.ods:.3f}", [scores.ods_recall], [scores.ods_precision])
        return Summary(metrics, (Figure("precision_recall", "recall", "precision", (curve, best)),))

    def _count(self, tasks: Sequence[Task]) -> list[MaskCounts]:
        """`count_mask` of each, on all cores: joblib's processes stay for the next photo."""
        from joblib import Parallel, cpu_count, delayed

        count = min(cpu_count(), MOST_PROCESSES) if self.processes is None else self.processes
        return Parallel(count)(delayed(count_mask)(*task) for task in tasks)

    def edges(self, segmenter: Segmenter, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[np.ndarray]:
        """Edge maps between 0 and 1, float32 (H, W), of a few photos."""
        return [edges for edges, _ in self._draw(segmenter, photos)]

    def _draw(
        self, segmenter: Segmenter, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> Iterator[tuple[np.ndarray, int]]:
        """The edge map of each photo, and how many masks it is made of.

        Photos are asked about together, and what suppression leaves of their masks is asked for again: the logits of
        all masks of many photos would be gigabytes.
        """
        segmenter.look(photos)
        strongest = [np.zeros(photo.shape[:2], np.float32) for photo in photos]
        kept = self._kept(segmenter, photos)
        for start in range(0, max(map(len, kept)), self.grid.points_per_batch):
            some = [own[start : start + self.grid.points_per_batch] for own in kept]
            asked = segmenter.ask([[prompt for prompt, _ in own] for own in some], multimask=True)
            for photo, answers in enumerate(asked):
                for (_, masks), answer in zip(some[photo], answers, strict=True):
                    for logits in segmenter.full_logits(photo, answer.logits[masks]):
                        add_mask(strongest[photo], _sigmoid(logits))
        for edges, own in zip(strongest, kept, strict=True):
            yield thinned(edges), sum(len(masks) for _, masks in own)

    def _kept(
        self, segmenter: Segmenter, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> list[list[tuple[Prompt, list[int]]]]:
        """The prompts of each photo, and for each prompt the masks that suppression leaves; empty masks are none."""
        origins: list[list[tuple[Prompt, int]]] = [[] for _ in photos]
        boxes: list[list[tuple[int, int, int, int]]] = [[] for _ in photos]
        scores: list[list[float]] = [[] for _ in photos]
        for prompts in zip(*(self.grid.prompts(photo.shape[:2]) for photo in photos), strict=True):
            for photo, answers in enumerate(segmenter.ask(prompts, multimask=True)):
                for prompt, answer in zip(prompts[photo], answers, strict=True):
                    for number, (mask, iou) in enumerate(zip(answer.masks, answer.iou, strict=True)):
                        if (box := outermost(mask)) is not None:
                            boxes[photo].append(box)
                            scores[photo].append(float(iou))
                            origins[photo].append((prompt, number))
        kept = []
        for own, box, score in zip(origins, boxes, scores, strict=True):
            best = sorted(nms(np.array(box), np.array(score), self.grid.nms_threshold)) if own else []
            left: list[tuple[Prompt, list[int]]] = []
            for prompt, number in (own[index] for index in best):
                if not left or left[-1][0] is not prompt:
                    left.append((prompt, []))
                left[-1][1].append(number)
            kept.append(left)
        return kept


class HumanEdges:
    """Agreement among people: the boundaries of each annotator of a photo against those of the others, one left out.

    An `EvaluationProtocol` for photos with boundaries, without a model. Published for BSDS500: F 0.80.
    """

    name = "human_edges"
    asks = False

    def settings(self) -> dict[str, Any]:
        return {"tolerance": TOLERANCE}

    def judge(self, segmenter: Segmenter | None, samples: Sequence[AnnotatedEdges]) -> list[Judgement]:
        """Pixels, under the names of `EdgeCounts`, and how many "annotators" there are."""
        return [
            {**_record(human_agreement(sample.boundaries)), "annotators": len(sample.boundaries)} for sample in samples
        ]

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """Raises ValueError if no photo has two annotators."""
        annotators = [record["annotators"] for record in records]
        if max(annotators) < 2:
            raise ValueError("no photo has two annotators whose boundaries could be compared")
        counts = [_counts(record) for record in records]
        total = sum(counts[1:], counts[0])
        return Summary(
            {
                "F": float(total.f[0]),
                "precision": float(total.precision[0]),
                "recall": float(total.recall[0]),
                "annotators per photo": float(np.mean(annotators)),
            }
        )


def _record(counts: EdgeCounts) -> Judgement:
    return {name: values.tolist() for name, values in dataclasses.asdict(counts).items()}


def _counts(record: Judgement) -> EdgeCounts:
    return EdgeCounts(*(np.array(record[field.name]) for field in dataclasses.fields(EdgeCounts)))


def _sigmoid(logits: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    from scipy.special import expit

    return expit(logits)
