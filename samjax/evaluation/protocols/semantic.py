"""Label maps against label maps: metrics from one confusion matrix over all pixels of a data set (Long et al. 2015)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Integer

from samjax.evaluation.datasets import MapPair
from samjax.evaluation.protocol import Judgement, Segmenter, Summary

VOID = 255  # the label of pixels that are not judged


class Semantic:
    """Pixel and mean accuracy, mean IoU and dice; an `EvaluationProtocol` for pairs of label maps, without a model.

    Args:
        classes: their number, or their names in the order of the labels.
        void: the true label of pixels that are not judged; None where all are.
    """

    name = "semantic"
    asks = False

    def __init__(self, classes: int | Sequence[str], void: int | None = VOID) -> None:
        names = [str(label) for label in range(classes)] if isinstance(classes, int) else list(classes)
        if not names:
            raise ValueError("label maps have at least one class, got none")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two classes are called {twice[0]!r}; results are kept by name, so rename one")
        self.names, self.void = names, void

    def settings(self) -> dict[str, Any]:
        return {"classes": self.names, "void": self.void}

    def judge(self, segmenter: Segmenter | None, samples: Sequence[MapPair]) -> list[Judgement]:
        """{"confusion": [[true class, predicted class, pixels], ...]}, without pairs of classes that have no pixel."""
        records = []
        for sample in samples:
            matrix = confusion_matrix(sample.truth, sample.predicted, len(self.names), void=self.void)
            true, predicted = np.nonzero(matrix)
            records.append({"confusion": np.stack([true, predicted, matrix[true, predicted]], 1).tolist()})
        return records

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """Raises ValueError if no pixel of any photo was judged."""
        confusion = np.zeros((len(self.names), len(self.names)), np.int64)
        for record in records:
            for true, predicted, pixels in record["confusion"]:
                confusion[true, predicted] += pixels
        scores = semantic_scores(confusion)
        found = {field.name: getattr(scores, field.name) for field in dataclasses.fields(scores)}
        metrics: dict[str, float | int] = {name: value for name, value in found.items() if isinstance(value, float)}
        metrics["pixels"] = int(confusion.sum())
        for measure, values in found.items():
            if measure not in metrics:
                metrics |= {f"{measure} {name}": float(value) for name, value in zip(self.names, values, strict=True)}
        return Summary(metrics)


@dataclasses.dataclass(frozen=True)
class SemanticScores:
    """Shares between 0 and 1; a class that occurs in neither truth nor prediction has NaN and is in no mean."""

    pixel_accuracy: float
    mean_accuracy: float  # over classes that occur in the truth
    mean_iou: float  # over classes that occur in the truth or are predicted
    mean_dice: float
    accuracy: Float64[np.ndarray, " K"]  # by class
    iou: Float64[np.ndarray, " K"]
    dice: Float64[np.ndarray, " K"]


def confusion_matrix(
    truth: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "_ _"], classes: int, *, void: int | None = VOID
) -> Int[np.ndarray, "K K"]:
    """n_ij: how many pixels of class i are predicted to be of class j.

    Pixels whose TRUE label is `void` are left out. Raises ValueError if the maps differ in size, or where another
    label than 0 to classes - 1 occurs at a pixel that is judged; a prediction has no void.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the true map is {truth.shape} (height, width), the predicted one {predicted.shape}")
    judged = np.ones(truth.shape, bool) if void is None else truth != void
    row, column = truth[judged].astype(np.int64), predicted[judged].astype(np.int64)
    for name, labels in (("true", row), ("predicted", column)):
        strange = np.unique(labels[(labels < 0) | (labels >= classes)])
        if len(strange):
            raise ValueError(
                f"the {name} map has label(s) {', '.join(map(str, strange[:5]))}; with {classes} classes they are 0 to "
                f"{classes - 1}{'' if void is None or name == 'predicted' else f', and {void} for void'}"
            )
    return np.bincount(row * classes + column, minlength=classes**2).reshape(classes, classes)


def semantic_scores(confusion: Integer[np.ndarray, "K K"]) -> SemanticScores:
    """Pixel accuracy, mean accuracy, IoU and dice from n_ij (true i, predicted j).

    Raises ValueError for a matrix without a pixel.
    """
    correct = np.diag(confusion).astype(np.float64)
    true, predicted = confusion.sum(1), confusion.sum(0)
    if not true.sum():
        raise ValueError("no pixel was judged: every map is empty or void everywhere")
    accuracy = _shares(correct, true)
    iou = _shares(correct, true + predicted - np.diag(confusion))
    dice = _shares(2 * correct, true + predicted)
    mean_accuracy, mean_iou, mean_dice = (float(np.nanmean(values)) for values in (accuracy, iou, dice))
    pixel_accuracy = float(correct.sum() / true.sum())
    return SemanticScores(pixel_accuracy, mean_accuracy, mean_iou, mean_dice, accuracy, iou, dice)


def _shares(part: Float64[np.ndarray, " K"], whole: Int[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
