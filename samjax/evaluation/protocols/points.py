"""SAM's zero-shot protocol for points (Kirillov et al., arXiv 2304.02643, section 7.1 and appendix D.1)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from samjax.evaluation.judged_objects import JudgedObject, groups
from samjax.evaluation.metrics.object_records import (
    Entry,
    by_size,
    mean,
    objects_of,
    only_with_objects,
    rank_correlation,
)
from samjax.evaluation.protocol import Answer, Curve, Figure, Judgement, Sample, Segmenter, Summary
from samjax.evaluation.user.clicks import next_point
from samjax.evaluation.user.interaction import Interaction, ask
from samjax.evaluation.user.recorded import User, check_user, clicked_objects, only_with_clicks


@dataclasses.dataclass(frozen=True)
class Points:
    """The quality of masks from 1, 2, 3, 5 and 9 points on or beside an object.

    The first point is the object's pixel farthest from its boundary, each further one that of what is wrong. One point
    asks for three masks, several for one, with the logits of the most confident mask before as mask prompt. "Best of 3"
    (the paper's oracle) chooses by true IoU: among the three masks of the first point, or with several points among the
    single one and the three that the same prompt gives; only the single one is carried on. An object whose mask has no
    error left that was not pointed at keeps its answer.

    The recorded user makes the clicks that people made, in their order, whatever the mask; an object keeps its answer
    when its clicks end, and has no part in the evaluation if it has none.
    """

    points: tuple[int, ...] = (1, 2, 3, 5, 9)
    user: User = "simulated"  # who clicks; "recorded": whoever made the objects

    name = "points"
    asks = True

    def __post_init__(self) -> None:
        if not self.points or min(self.points) < 1 or list(self.points) != sorted(set(self.points)):
            raise ValueError(f"numbers of points are 1 or more, each once and rising, such as 1 3 9; got {self.points}")
        check_user(self.user)

    def settings(self) -> dict[str, Any]:
        return {
            "points": list(self.points),
            "next point": _RULE if self.user == "simulated" else "recorded",
            "masks": "three for one point, one for several; best of three asked for besides",
        }

    @only_with_clicks
    @only_with_objects
    def judge(self, segmenter: Segmenter, samples: Sequence[Sample]) -> list[Judgement]:
        """{"objects"}: of each object also its "points" [x, y, 1 or 0], and "answers", one for each of the numbers of
        points: "iou", "dice", "boundary_iou" and "predicted" IoU of the most confident mask, and the "best_iou" of
        three. With recorded clicks also "without_clicks", the number of objects that have none."""
        segmenter.look([sample.rgb for sample in samples])
        entries: list[list[Entry]] = [[] for _ in samples]
        for group in groups(samples):
            everyone = [Interaction(target) for own in group for target in own]
            for one, answers in zip(everyone, self._pointed(segmenter, len(samples), everyone), strict=True):
                points = [list(click) for click in one.clicks]
                entries[one.target.photo].append({**one.target.entry, "points": points, "answers": answers})
        return [{"objects": own} for own in entries]

    def _pointed(
        self, segmenter: Segmenter, photos: int, everyone: Sequence[Interaction]
    ) -> list[list[dict[str, float]]]:
        latest: dict[int, tuple[Answer, Answer]] = {}  # of each object: what is carried on, and what to choose from
        found: list[list[dict[str, float]]] = [[] for _ in everyone]
        active = list(range(len(everyone)))
        rule = next_point if self.user == "simulated" else None
        for number in range(1, self.points[-1] + 1):
            active = [index for index in active if everyone[index].click(rule)]
            if asked := [everyone[index] for index in active]:
                answers = ask(segmenter, photos, asked, multimask=number == 1)
                choices = answers
                if number > 1 and number in self.points:
                    choices = ask(segmenter, photos, asked, multimask=True)
                latest |= zip(active, zip(answers, choices, strict=True), strict=True)
                for one, answer in zip(asked, answers, strict=True):
                    one.carry_on(answer)
            if number in self.points:
                for index, one in enumerate(everyone):
                    found[index].append(_judged(one.target, *latest[index]))
        return found

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """Computes, for each number of points, mean IoU, best of three, Spearman's correlation of predicted and true
        IoU, mean Dice and boundary IoU, for the least number mean IoU by COCO's sizes, and a plot of IoU against
        points.

        A correlation that is undefined is left out. Raises ValueError if no object was judged.
        """
        entries, without = (objects_of(records), 0) if self.user == "simulated" else clicked_objects(records)
        metrics: dict[str, float | int] = {}
        means: dict[str, list[float]] = {}
        for title, key in _MEANS.items():
            means[title] = [
                mean(entries, lambda entry, i=index, k=key: entry["answers"][i][k]) for index in range(len(self.points))
            ]
            metrics |= {f"{title}@{n}": value for n, value in zip(self.points, means[title], strict=True)}
        for index, number in enumerate(self.points):
            pairs = [(entry["answers"][index]["predicted"], entry["answers"][index]["iou"]) for entry in entries]
            if (correlation := rank_correlation(*map(list, zip(*pairs, strict=True)))) is not None:
                metrics[f"Spearman@{number} (predicted, true IoU)"] = correlation
        for size, inside in by_size(entries).items():
            metrics[f"mIoU@{self.points[0]} {size}"] = mean(inside, lambda entry: entry["answers"][0]["iou"])
        if self.user == "recorded":
            metrics["clicks (mean number)"] = mean(entries, lambda entry: len(entry["points"]))
            metrics["objects not made by clicks alone, left out"] = without
        metrics["objects"] = len(entries)
        curves = tuple(Curve(label, self.points, means[title]) for title, label in _PLOTTED.items())
        return Summary(metrics, (Figure("iou_by_points", "points", "mean IoU", curves),))


_RULE = "SAM: farthest from the error region's boundary, not where one was"
_MEANS = {"mIoU": "iou", "best of 3": "best_iou", "Dice": "dice", "boundary IoU": "boundary_iou"}
_PLOTTED = {"mIoU": "most confident", "best of 3": "best of three"}


def _judged(target: JudgedObject, answer: Answer, choices: Answer) -> dict[str, float]:
    return {
        **target.overlaps(answer.masks[answer.best]),
        "predicted": float(answer.iou[answer.best]),
        "best_iou": max(target.iou(mask) for mask in (*choices.masks, answer.masks[answer.best])),
    }
