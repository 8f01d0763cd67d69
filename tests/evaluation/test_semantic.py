"""Semantic metrics against the formulas written out over pixels, and hand-counted maps."""

import numpy as np
import pytest
from PIL import Image

from samjax.evaluation.semantic import confusion_matrix, evaluate_label_maps, read_labels, semantic_scores


def write(folder, name: str, labels: list[list[int]], mode: str = "L") -> None:
    folder.mkdir(exist_ok=True)
    picture = Image.fromarray(np.array(labels, np.uint8))
    if mode == "P":
        picture.putpalette([7, 77, 177] * 256)
    picture.save(folder / name)


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


def test_folders_are_compared_by_name(tmp_path):
    write(tmp_path / "truth", "a.png", [[0, 1], [255, 1]])
    write(tmp_path / "truth", "b.png", [[1, 1, 0]])
    write(tmp_path / "mine", "a.bmp", [[0, 1], [1, 0]])
    write(tmp_path / "mine", "b.png", [[1, 0, 0]], mode="P")
    write(tmp_path / "mine", "c.png", [[9]])  # no truth: not compared
    scores, confusion = evaluate_label_maps(tmp_path / "mine", tmp_path / "truth", ["ground", "thing"])
    assert confusion.tolist() == [[2, 0], [2, 2]]
    assert scores.pixel_accuracy == pytest.approx(4 / 6)


def test_bad_folders_and_maps_are_explained(tmp_path):
    write(tmp_path / "truth", "a.png", [[0, 1]])
    write(tmp_path / "truth", "b.png", [[0, 1]])
    write(tmp_path / "mine", "a.png", [[0, 7]])
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate_label_maps(tmp_path / "nowhere", tmp_path / "truth", 2)
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of the 2 maps .*: b"):
        evaluate_label_maps(tmp_path / "mine", tmp_path / "truth", 2)
    write(tmp_path / "mine", "b.png", [[0, 1, 1]])
    with pytest.raises(ValueError, match=r"a\.png.*predicted map has label\(s\) 7; with 2 classes they are 0 to 1"):
        evaluate_label_maps(tmp_path / "mine", tmp_path / "truth", 2)
    write(tmp_path / "mine", "a.png", [[0, 1]])
    with pytest.raises(ValueError, match=r"b\.png.*\(1, 2\).*\(1, 3\)"):
        evaluate_label_maps(tmp_path / "mine", tmp_path / "truth", 2)
    write(tmp_path / "mine", "a.tif", [[0, 1]])
    with pytest.raises(ValueError, match=r"two maps called a: a\.png and a\.tif"):
        evaluate_label_maps(tmp_path / "mine", tmp_path / "truth", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no label maps"):
        evaluate_label_maps(tmp_path / "empty", tmp_path / "truth", 2)
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match="mode RGB; expected one channel"):
        read_labels(tmp_path / "colour.png")
    with pytest.raises(ValueError, match="no pixel was judged"):
        semantic_scores(np.zeros((2, 2), int))
