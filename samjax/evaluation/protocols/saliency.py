"""Saliency maps against the objects that stand out: F with beta² = 0.3, and the mean absolute error.

Source: Achanta et al., "Frequency-tuned salient region detection", CVPR 2009, and Borji et al., "Salient object
detection: a benchmark", TIP 2015. Maps count as they are; many models' are stretched to [0, 255] beforehand.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from samjax.evaluation.datasets import MapPair
from samjax.evaluation.metrics.overlap import BETA_SQUARED, f_beta, f_beta_of_areas, mean_absolute_error
from samjax.evaluation.protocol import Curve, Figure, Judgement, Segmenter, Summary

THRESHOLDS = np.arange(1, 256)  # of grey values; at 0 every pixel is marked, whatever the map


class Saliency:
    """F and mean absolute error; an `EvaluationProtocol` for pairs of grey maps, without a model.

    "max F" is the largest value of the curve of F over the threshold, "mean F" its mean; the curve is the mean over
    photos of each one's F. "adaptive F" is the mean over photos of F at twice the map's mean. A photo without an
    object has F = 1 where nothing is marked, else 0.
    """

    name = "saliency"
    asks = False

    def settings(self) -> dict[str, Any]:
        return {"beta_squared": BETA_SQUARED, "thresholds": len(THRESHOLDS)}

    def judge(self, segmenter: Segmenter | None, samples: Sequence[MapPair]) -> list[Judgement]:
        """Areas in pixels, the first two at each of the thresholds: {"both": [...], "marked": [...], "object": n,
        "adaptive": F, "mae": error}."""
        records = []
        for sample in samples:
            truth = object_of(sample.truth)
            both, marked = (areas_above(values) for values in (sample.predicted[truth], sample.predicted))
            records.append(
                {
                    "both": both.tolist(),
                    "marked": marked.tolist(),
                    "object": int(truth.sum()),
                    "adaptive": float(f_beta(adaptive_mask(sample.predicted), truth)),
                    "mae": float(mean_absolute_error(sample.predicted / 255, truth)),
                }
            )
        return records

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        f, precision, recall = (np.mean(curves, 0) for curves in zip(*map(_curves, records), strict=True))
        best = int(f.argmax())
        metrics = {
            "max F": float(f[best]),
            "mean F": float(f.mean()),
            "adaptive F": float(np.mean([record["adaptive"] for record in records])),
            "MAE": float(np.mean([record["mae"] for record in records])),
            "max F threshold": int(THRESHOLDS[best]),
        }
        over_threshold = Curve("", THRESHOLDS.tolist(), f.tolist())
        some = np.any([record["marked"] for record in records], 0)
        over_recall = Curve("", recall[some].tolist(), precision[some].tolist())
        figures = (
            Figure("f_by_threshold", "threshold (grey value)", "mean F", (over_threshold,)),
            Figure("precision_recall", "mean recall", "mean precision", (over_recall,)),
        )
        return Summary(metrics, figures)


def object_of(truth: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The object of a true map: pixels from 128 on, or 1 in a map that has nothing above."""
    return truth >= (128 if truth.max(initial=0) > 1 else 1)


def adaptive_mask(saliency: UInt8[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels that reach twice the map's mean, or are white (Achanta et al. 2009); black is never marked."""
    return (saliency >= min(2 * float(saliency.mean()), 255.0)) & (saliency > 0)


def areas_above(values: UInt8[np.ndarray, "..."]) -> Int[np.ndarray, "255"]:
    """Counts the grey values that reach each of `THRESHOLDS`."""
    return np.cumsum(np.bincount(values.ravel(), minlength=256)[::-1])[::-1][1:]


def _curves(record: Judgement) -> tuple[Any, ...]:
    """F, precision and recall at each threshold; the last two are 0 if nothing is marked or there is no object."""
    both, marked, area = np.array(record["both"]), np.array(record["marked"]), record["object"]
    return f_beta_of_areas(both, marked, area), both / np.maximum(marked, 1), both / max(area, 1)
