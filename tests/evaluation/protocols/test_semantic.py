"""Semantic metrics against the formulas written out over pixels, and hand-counted maps."""

import json

import numpy as np
import pytest
from PIL import Image

from samjax.evaluation.datasets import MapPair, label_pairs
from samjax.evaluation.protocol import EvaluationProtocol
from samjax.evaluation.protocols.semantic import Semantic, confusion_matrix, semantic_scores
from samjax.evaluation.runner import evaluate


def pair(truth: list[list[int]], predicted: list[list[int]], name: str = "a") -> MapPair:
    return MapPair(name, np.array(predicted, np.uint8), np.array(truth, np.uint8))


def test_rows_of_the_matrix_are_true_classes():
    truth, predicted = np.array([[0, 0, 1], [1, 2, 2]]), np.array([[0, 1, 1], [1, 0, 0]])
    assert confusion_matrix(truth, predicted, 3).tolist() == [[1, 1, 0], [0, 2, 0], [2, 0, 0]]


def test_void_is_dropped_whatever_is_predicted_there():
    truth, predicted = np.array([[0, 255, 255]], np.uint8), np.array([[0, 1, 200]], np.uint8)
    assert confusion_matrix(truth, predicted, 2).tolist() == [[1, 0], [0, 0]]
    assert confusion_matrix(np.array([[0, 5]]), np.array([[0, 0]]), 2, void=5).sum() == 1


def test_scores_by_hand():
    # Classes 0 and 1: 30 of 40 and 10 of 20 right; the others change places.
    scores = semantic_scores(np.array([[30, 10], [10, 10]]))
    assert scores.pixel_accuracy == pytest.approx(40 / 60)
    assert scores.mean_accuracy == pytest.approx((30 / 40 + 10 / 20) / 2)
    assert scores.iou == pytest.approx([30 / 50, 10 / 30])
    assert scores.mean_iou == pytest.approx((30 / 50 + 10 / 30) / 2)
    assert scores.dice == pytest.approx([60 / 80, 20 / 40])


def test_scores_are_those_of_masks_class_by_class():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 5, (2, 60, 80))
    predicted = np.where(random.random((60, 80)) < 0.5, truth, predicted)
    truth[:10] = 255
    scores = semantic_scores(confusion_matrix(truth, predicted, 5))
    judged = truth != 255
    for label in range(5):
        a, b = (truth == label) & judged, (predicted == label) & judged
        assert scores.iou[label] == pytest.approx((a & b).sum() / (a | b).sum())
        assert scores.accuracy[label] == pytest.approx((a & b).sum() / a.sum())
        assert scores.dice[label] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert scores.pixel_accuracy == pytest.approx((truth == predicted)[judged].mean())


def test_classes_that_do_not_occur_are_in_no_mean():
    # Class 1 is predicted only: it has an IoU of 0 but no accuracy; class 2 is nowhere.
    scores = semantic_scores(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert scores.mean_accuracy == pytest.approx(3 / 4)
    assert scores.mean_iou == pytest.approx((3 / 4 + 0) / 2)
    assert np.isnan(scores.iou).tolist() == [False, False, True]
    assert np.isnan(scores.accuracy).tolist() == [False, True, True]


def test_the_photos_matrices_add_up():
    protocol = Semantic(["ground", "thing"])
    assert isinstance(protocol, EvaluationProtocol)
    samples = [pair([[0, 1], [255, 1]], [[0, 1], [1, 0]]), pair([[1, 1, 0]], [[1, 0, 0]], "b")]
    records = json.loads(json.dumps(protocol.judge(None, samples)))
    assert records[0] == {"confusion": [[0, 0, 1], [1, 0, 1], [1, 1, 1]]}
    metrics = protocol.summarise(records).metrics  # [[2, 0], [2, 2]]
    assert metrics["pixel_accuracy"] == pytest.approx(4 / 6)
    assert metrics["iou ground"] == pytest.approx(2 / 4)
    assert metrics["accuracy thing"] == pytest.approx(2 / 4)
    assert metrics["dice thing"] == pytest.approx(4 / 6)
    assert metrics["pixels"] == 6
    assert "iou 0" in Semantic(2).summarise(records).metrics


def test_a_record_of_150_classes_is_as_small_as_what_occurs():
    labels = [[0, 7], [149, 149]]
    (record,) = Semantic(150).judge(None, [pair(labels, labels)])
    assert record == {"confusion": [[0, 0, 1], [7, 7, 1], [149, 149, 2]]}


def test_a_run_goes_on_and_names_the_photos_that_fail(tmp_path):
    for folder, maps in (("truth", ([[0, 1]], [[1, 1]])), ("mine", ([[0, 1]], [[0, 9]]))):
        (tmp_path / folder).mkdir()
        for name, labels in zip("ab", maps, strict=True):
            Image.fromarray(np.array(labels, np.uint8)).save(tmp_path / folder / f"{name}.png")
    pairs = label_pairs(str(tmp_path / "mine"), str(tmp_path / "truth"))
    run = (tmp_path / "out",), {"data": {}, "model": {}, "progress": False}
    outcome = evaluate(Semantic(2), None, pairs, *run[0], **run[1])
    assert outcome.judged == 1
    assert outcome.failures == {"b": "the predicted map has label(s) 9; with 2 classes they are 0 to 1"}
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "mine" / "b.png")
    outcome = evaluate(Semantic(2), None, pairs, *run[0], **run[1])
    assert (outcome.judged, outcome.skipped, outcome.failures) == (1, 1, {})
    assert outcome.summary.metrics["pixel_accuracy"] == 3 / 4


def test_settings_and_maps_that_make_no_sense_are_explained():
    with pytest.raises(ValueError, match="at least one class"):
        Semantic(0)
    with pytest.raises(ValueError, match="two classes are called 'road'"):
        Semantic(["road", "sky", "road"])
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        confusion_matrix(np.zeros((1, 2), int), np.zeros((1, 3), int), 2)
    with pytest.raises(ValueError, match="no pixel was judged"):
        semantic_scores(np.zeros((2, 2), int))
