"""Clicking at objects until their masks are right: all objects of some photos together."""

from collections.abc import Callable, Sequence

import numpy as np

from samjax.evaluation.judged_objects import JudgedObject
from samjax.evaluation.protocol import Answer, Prompt, Segmenter
from samjax.readers.record import Click

# Like `samjax.evaluation.user.clicks.next_click`.
Rule = Callable[..., Click | None]


class Interaction:
    """One object, the clicks that were made, and what the model makes of them."""

    def __init__(self, target: JudgedObject) -> None:
        self.target = target
        self.clicks: list[Click] = []
        self.ious: list[float] = []  # after each click
        self._prediction = np.zeros(target.mask.shape, bool)
        self._logits: np.ndarray | None = None

    def click(self, rule: Rule | None) -> bool:
        """Makes the next click, by a rule or, without one, as it was recorded; False if there is none left."""
        if rule is None:
            found = self._recorded()
        else:
            found = rule(self.target.mask, self._prediction, self.clicks, self.target.judged)
        if found is not None:
            self.clicks.append(found)
        return found is not None

    def _recorded(self) -> Click | None:
        recorded = self.target.object.clicks
        if len(self.clicks) == len(recorded):
            return None
        return recorded[len(self.clicks)]

    @property
    def prompt(self) -> Prompt:
        """All clicks, with the logits of the mask that was carried on as mask prompt."""
        points = np.array([(click.x, click.y) for click in self.clicks], np.float32)
        labels = np.array([click.label for click in self.clicks], np.int64)
        return Prompt(points, labels, logits=self._logits)

    def carry_on(self, answer: Answer) -> None:
        """Takes over the most confident mask of an answer."""
        self._prediction, self._logits = answer.masks[answer.best], answer.logits[answer.best]
        self.ious.append(self.target.iou(self._prediction))


def ask(segmenter: Segmenter, photos: int, interactions: Sequence[Interaction], *, multimask: bool) -> list[Answer]:
    """The answers to the prompts of some objects of `photos` photos, in the objects' order."""
    prompts: list[list[Prompt]] = [[] for _ in range(photos)]
    for one in interactions:
        prompts[one.target.photo].append(one.prompt)
    answers = [iter(own) for own in segmenter.ask(prompts, multimask=multimask)]
    return [next(answers[one.target.photo]) for one in interactions]
