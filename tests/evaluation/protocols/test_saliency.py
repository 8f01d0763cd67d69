"""Saliency against the field's formulas, written out pixel by pixel and threshold by threshold."""

import json

import numpy as np
import pytest

from samjax.evaluation.datasets import MapPair
from samjax.evaluation.protocol import EvaluationProtocol
from samjax.evaluation.protocols.saliency import Saliency, adaptive_mask, object_of


def pairs_of(*seeds: int) -> list[MapPair]:
    """Maps that are brighter on the object, with noise."""
    found = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        truth = np.zeros((20, 30), np.uint8)
        truth[4:14, 6 : 18 + seed] = 255
        predicted = (0.6 * truth + random.integers(0, 100, truth.shape)).astype(np.uint8)
        found.append(MapPair(str(seed), predicted, truth))
    return found


def judged(*samples: MapPair):
    protocol = Saliency()
    return protocol.summarise(json.loads(json.dumps(protocol.judge(None, samples))))


def formula(marked: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    right = (marked & truth).sum()
    precision, recall = right / marked.sum() if marked.any() else 0.0, right / truth.sum()
    return (1.3 * precision * recall / (0.3 * precision + recall) if right else 0.0), precision, recall


def test_it_is_a_protocol():
    assert isinstance(Saliency(), EvaluationProtocol)
    assert Saliency().settings() == {"beta_squared": 0.3, "thresholds": 255}


def test_scores_are_the_formulas():
    samples = pairs_of(0, 5)
    summary = judged(*samples)
    curves = np.array(
        [[formula(s.predicted >= grey, s.truth > 0) for grey in range(1, 256)] for s in samples]
    )  # photo, threshold, (F, precision, recall)
    f, precision, recall = curves.mean(0).T
    assert summary.metrics["max F"] == pytest.approx(f.max())
    assert summary.metrics["mean F"] == pytest.approx(f.mean())
    assert summary.metrics["max F threshold"] == 1 + f.argmax()
    adaptive = [formula(s.predicted >= 2 * s.predicted.mean(), s.truth > 0)[0] for s in samples]
    assert summary.metrics["adaptive F"] == pytest.approx(np.mean(adaptive))
    errors = [np.abs(s.predicted / 255 - s.truth / 255).mean() for s in samples]
    assert summary.metrics["MAE"] == pytest.approx(np.mean(errors))
    by_threshold, by_recall = (figure.curves[0] for figure in summary.figures)
    assert (by_threshold.x[0], by_threshold.x[-1]) == (1, 255)
    assert by_threshold.y == pytest.approx(f)
    some = max(s.predicted.max() for s in samples)  # nothing is marked at the thresholds above
    assert 200 < some < 255
    assert by_recall.x == pytest.approx(recall[:some])
    assert by_recall.y == pytest.approx(precision[:some])


def test_the_truth_itself_is_without_error():
    truth = pairs_of(3)[0].truth
    metrics = judged(MapPair("a", truth, truth)).metrics
    assert [metrics[name] for name in ("max F", "mean F", "adaptive F", "MAE")] == [1, 1, 1, 0]


def test_the_best_threshold_is_one_for_all_photos():
    # Each photo has a perfect threshold, but not the same.
    dark, bright = (np.array([[low, high]], np.uint8) for low, high in ((10, 90), (100, 200)))
    truth = np.array([[0, 255]], np.uint8)
    assert judged(MapPair("a", dark, truth)).metrics["max F"] == 1
    assert judged(MapPair("b", bright, truth)).metrics["max F"] == 1
    both = judged(MapPair("a", dark, truth), MapPair("b", bright, truth)).metrics["max F"]
    assert both == pytest.approx((1 + 1.3 * 0.5 / (0.3 * 0.5 + 1)) / 2)


def test_a_black_map_marks_nothing_and_a_white_one_everything():
    assert not adaptive_mask(np.zeros((3, 4), np.uint8)).any()
    assert adaptive_mask(np.full((3, 4), 255, np.uint8)).all()
    truth = np.array([[0, 255, 0, 0]], np.uint8)
    metrics = judged(MapPair("a", np.zeros((1, 4), np.uint8), truth)).metrics
    assert (metrics["max F"], metrics["adaptive F"], metrics["MAE"]) == (0, 0, 0.25)


def test_white_is_the_brighter_half_or_1():
    assert object_of(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[False, False, True, True]]
    assert object_of(np.array([[0, 1, 1]], np.uint8)).tolist() == [[False, True, True]]
    assert not object_of(np.zeros((2, 2), np.uint8)).any()
