"""Masks for boxes: those of a detector, or an object's own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from samjax.evaluation.judged_objects import groups
from samjax.evaluation.metrics.object_records import (
    Entry,
    by_size,
    mean,
    objects_of,
    only_with_objects,
    rank_correlation,
)
from samjax.evaluation.protocol import Answer, Judgement, Prompt, Sample, Segmenter, Summary


def segment_boxes(
    segmenter: Segmenter,
    boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    *,
    refinements: int = 1,
    multimask_first: bool | None = None,
) -> list[list[Answer]]:
    """Answers to boxes on the photos of the last look.

    Args:
        segmenter: has looked at the photos.
        boxes: of each photo, (x0, y0, x1, y1) in pixels of the ORIGINAL photo; a photo may have none.
        refinements: how often the box is asked again with the logits of the most confident mask, for one mask. The
            SAM paper's instance segmentation (appendix D.5) does it once.
        multimask_first: ask for three masks first. By default where the most confident of them is refined, as in the
            paper; without refinement a box gives one mask, as in Meta's examples.

    Returns:
        For each photo one answer a box.
    """
    multimask = refinements > 0 if multimask_first is None else multimask_first
    prompts = [[Prompt(box=box) for box in own] for own in boxes]
    answers = segmenter.ask(prompts, multimask=multimask)
    for _ in range(refinements):
        prompts = [
            [
                dataclasses.replace(prompt, logits=answer.logits[answer.best])
                for prompt, answer in zip(*own, strict=True)
            ]
            for own in zip(prompts, answers, strict=True)
        ]
        answers = segmenter.ask(prompts, multimask=False)
    return answers


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The quality of masks from the objects' own boxes: the bounds of the outermost pixels, inclusive
    (`JudgedObject.box`). See `segment_boxes` for refinements."""

    refinements: int = 0
    multimask_first: bool | None = None

    name = "boxes"
    asks = True

    def __post_init__(self) -> None:
        if self.refinements < 0:
            raise ValueError(f"refinements are 0 or more, got {self.refinements}")

    def settings(self) -> dict[str, Any]:
        multimask = self.refinements > 0 if self.multimask_first is None else self.multimask_first
        return {
            "refinements": self.refinements,
            "first answer": "most confident of three" if multimask else "single mask",
            "box": "outermost pixels, inclusive",
        }

    @only_with_objects
    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """{"objects"}: of each object also its "box", and "iou", "dice", "boundary_iou" and "predicted" IoU of the most
        confident mask of the last answer."""
        segmenter.look([sample.rgb for sample in samples])
        entries: list[list[Entry]] = [[] for _ in samples]
        for group in groups(samples):
            boxes = [np.array([target.box for target in own], np.float32).reshape(-1, 4) for own in group]
            answers = segment_boxes(
                segmenter, boxes, refinements=self.refinements, multimask_first=self.multimask_first
            )
            for target, answer in (
                (t, a) for own in zip(group, answers, strict=True) for t, a in zip(*own, strict=True)
            ):
                entries[target.photo].append(
                    {
                        **target.entry,
                        "box": target.box.tolist(),
                        **target.overlaps(answer.masks[answer.best]),
                        "predicted": float(answer.iou[answer.best]),
                    }
                )
        return [{"objects": own} for own in entries]

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """Mean IoU, also by COCO's sizes, mean Dice and boundary IoU, and Spearman's correlation of predicted and true
        IoU, which is left out where it is undefined.

        Raises ValueError if no object was judged.
        """
        entries = objects_of(records)
        metrics: dict[str, float | int] = {"mIoU": mean(entries, lambda entry: entry["iou"])}
        for size, inside in by_size(entries).items():
            metrics[f"mIoU {size}"] = mean(inside, lambda entry: entry["iou"])
        metrics["Dice"] = mean(entries, lambda entry: entry["dice"])
        metrics["boundary IoU"] = mean(entries, lambda entry: entry["boundary_iou"])
        correlation = rank_correlation([entry["predicted"] for entry in entries], [entry["iou"] for entry in entries])
        if correlation is not None:
            metrics["Spearman (predicted, true IoU)"] = correlation
        metrics["objects"] = len(entries)
        return Summary(metrics)
