"""Clicks that a user needs: NoC and mean IoU by click, as RITM defines them (Sofiiuk et al., arXiv 2102.06583)."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from samjax.evaluation.judged_objects import JudgedObject, groups
from samjax.evaluation.metrics.object_records import Entry, by_size, mean, objects_of, only_with_objects
from samjax.evaluation.protocol import Curve, Figure, Judgement, Sample, Segmenter, Summary
from samjax.evaluation.user.clicks import next_click
from samjax.evaluation.user.interaction import Interaction, ask
from samjax.evaluation.user.recorded import User, check_user, clicked_objects, only_with_clicks


@dataclasses.dataclass(frozen=True)
class Interactive:
    """A user corrects the mask of every object, click by click, each in the middle of the largest error.

    All objects of all photos at hand are clicked at together. A click goes to the model with all earlier ones and with
    the logits of the mask before. An object whose mask has no error left, or none that was not clicked yet, keeps its
    IoU. NoC@90 is the mean number of the first click whose IoU is at least 0.9, `clicks` where none is: such objects
    are the failures. (RITM's own count of ">= 20 clicks" also has those that the 20th click saves.)

    The recorded user makes the clicks that people made, in their order, whatever the mask; an object keeps its IoU when
    its clicks end, and has no part in the evaluation if it has none.
    """

    clicks: int = 20  # at most, for each object
    thresholds: tuple[float, ...] = (0.8, 0.85, 0.9)  # IoU, of NoC
    report: tuple[int, ...] = (1, 2, 3, 5, 10, 20)  # numbers of clicks whose mean IoU is shown
    multimask_first: bool = True  # the first click asks for three masks and the most confident is carried on; else one
    user: User = "simulated"  # who clicks; "recorded": whoever made the objects

    name = "interactive"
    asks = True

    def __post_init__(self) -> None:
        if self.clicks < 1:
            raise ValueError(f"an object needs at least one click, got {self.clicks}")
        if not self.thresholds or not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds are IoUs above 0 and up to 1, such as 0.9; got {self.thresholds}")
        check_user(self.user)

    def settings(self) -> dict[str, Any]:
        return {
            "clicks": self.clicks,
            "thresholds": list(self.thresholds),
            "report": list(self.report),
            "first answer": "most confident of three" if self.multimask_first else "single mask",
            "next click": "RITM" if self.user == "simulated" else "recorded",
        }

    @only_with_clicks
    @only_with_objects
    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """{"objects", "encode_seconds", "click_seconds"}: of each object also "iou", one for each of the `clicks`
        clicks, and "clicks" [x, y, 1 or 0], fewer where nothing was left to click. The seconds are the photo's share of
        what was spent on encoding, and on answers and finding clicks. With recorded clicks also "without_clicks", the
        number of objects that have none.
        """
        start = time.perf_counter()
        segmenter.look([sample.rgb for sample in samples])
        looked = time.perf_counter()
        entries: list[list[Entry]] = [[] for _ in samples]
        for group in groups(samples):
            for photo, found in enumerate(self._clicked(segmenter, len(samples), group)):
                entries[photo] += found
        seconds = time.perf_counter() - looked
        made = [sum(len(entry["clicks"]) for entry in own) for own in entries]
        return [
            {
                "objects": own,
                "encode_seconds": (looked - start) / len(samples),
                "click_seconds": seconds * count / max(sum(made), 1),
            }
            for own, count in zip(entries, made, strict=True)
        ]

    def _clicked(self, segmenter: Segmenter, photos: int, group: Sequence[Sequence[JudgedObject]]) -> list[list[Entry]]:
        interactions = [[Interaction(target) for target in own] for own in group]
        active = [one for own in interactions for one in own]
        rule = next_click if self.user == "simulated" else None
        for number in range(self.clicks):
            active = [one for one in active if one.click(rule)]
            if not active:
                break
            answers = ask(segmenter, photos, active, multimask=self.multimask_first and number == 0)
            for one, answer in zip(active, answers, strict=True):
                one.carry_on(answer)
        return [[self._entry(one) for one in own] for own in interactions]

    def _entry(self, one: Interaction) -> Entry:
        ious = one.ious + one.ious[-1:] * (self.clicks - len(one.ious))
        return {**one.target.entry, "iou": ious, "clicks": [list(click) for click in one.clicks]}

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """NoC and failures for each threshold, mean IoU after some numbers of clicks, NoC at the last threshold by
        COCO's sizes, and seconds (medians over photos, so that compiling does not count); IoU against clicks. Of
        recorded clicks also their mean number, mean IoU after the last one, and how many objects have none.

        Raises ValueError if no object was judged.
        """
        entries, without = (objects_of(records), 0) if self.user == "simulated" else clicked_objects(records)
        metrics: dict[str, float | int] = {}
        for threshold in self.thresholds:
            metrics[f"NoC@{100 * threshold:g}"] = mean(entries, lambda entry, t=threshold: noc(entry["iou"], t))
        for threshold in self.thresholds:
            failures = sum(max(entry["iou"]) < threshold for entry in entries)
            metrics[f"failures@{100 * threshold:g} (objects)"] = failures
        for number in self.report:
            if number <= self.clicks:
                metrics[f"mIoU@{number}"] = mean(entries, lambda entry, n=number: entry["iou"][n - 1])
        sizes = by_size(entries)
        last = self.thresholds[-1]
        for size, inside in sizes.items():
            metrics[f"NoC@{100 * last:g} {size}"] = mean(inside, lambda entry: noc(entry["iou"], last))
        if self.user == "recorded":
            metrics["mIoU at the last click"] = mean(entries, lambda entry: entry["iou"][-1])
            metrics["clicks (mean number)"] = mean(entries, lambda entry: len(entry["clicks"]))
            metrics["objects not made by clicks alone, left out"] = without
        metrics["objects"] = len(entries)
        counted = [
            (record, sum(len(entry["clicks"]) for entry in record["objects"]))
            for record in records
            if record["objects"]
        ]
        per_click = [record["click_seconds"] / count for record, count in counted if count]
        seconds = {
            "seconds per click": float(np.median(per_click)),
            "seconds per photo to encode": float(np.median([record["encode_seconds"] for record, _ in counted])),
        }

        def curve(label: str, some: Sequence[Entry]) -> Curve:
            return Curve(label, range(1, self.clicks + 1), np.mean([entry["iou"] for entry in some], 0).tolist())

        curves = (curve("all", entries), *(curve(size, inside) for size, inside in sizes.items() if len(sizes) > 1))
        return Summary(metrics, (Figure("iou_by_clicks", "clicks", "mean IoU", curves),), seconds)


def noc(ious: Sequence[float], threshold: float) -> int:
    """The number of the first click whose IoU is at least `threshold`, counted from 1; all clicks where none is."""
    return next((number for number, iou in enumerate(ious, 1) if iou >= threshold), len(ious))
