"""Overlap of masks against hand-counted cases and the official definition of boundary IoU."""

import cv2
import numpy as np
import pytest

from samjax.evaluation.metrics.overlap import boundary_iou, dice, f_beta, inner_band, iou, mean_absolute_error


def box(y0: int, x0: int, y1: int, x1: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def official_band(mask: np.ndarray, dilation: float) -> np.ndarray:
    """`mask_to_boundary` of Cheng et al.: erosions with OpenCV of the mask in a frame of one background pixel."""
    steps = max(1, round(dilation * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=steps)
    return mask & (eroded[1:-1, 1:-1] == 0)


def blobs(random: np.random.Generator, size: tuple[int, int], share: float) -> np.ndarray:
    noise = cv2.GaussianBlur(random.random(size), (0, 0), 3)
    return noise > np.quantile(noise, 1 - share)


def test_iou_and_dice_by_hand():
    first, second = box(0, 0, 10, 10), box(5, 0, 15, 10)
    assert iou(first, second) == pytest.approx(50 / 150)
    assert dice(first, second) == pytest.approx(2 * 50 / 200)


def test_f_beta_by_hand():
    # Precision 0.5, recall 0.25.
    predicted, truth = box(0, 0, 10, 10), box(5, 0, 25, 10)
    assert f_beta(predicted, truth) == pytest.approx(1.3 * 0.5 * 0.25 / (0.3 * 0.5 + 0.25))
    assert f_beta(predicted, truth, beta_squared=1.0) == pytest.approx(dice(predicted, truth))


@pytest.mark.parametrize("measure", [iou, dice, boundary_iou, f_beta])
def test_extremes(measure):
    nothing, something, elsewhere = box(0, 0, 0, 0), box(3, 3, 9, 9), box(20, 20, 30, 30)
    assert measure(something, something) == pytest.approx(1, abs=1e-15)
    assert measure(something, elsewhere) == 0
    assert measure(nothing, something) == 0
    assert measure(something, nothing) == 0
    assert measure(nothing, nothing) == 1


@pytest.mark.parametrize("measure", [iou, dice, boundary_iou, f_beta, mean_absolute_error])
def test_leading_axes_are_batches(measure):
    random = np.random.default_rng(0)
    first, second = (np.stack([blobs(random, (30, 40), 0.4) for _ in range(6)]).reshape(2, 3, 30, 40) for _ in "ab")
    together = measure(first, second)
    assert together.shape == (2, 3)
    assert together.dtype == np.float64
    for index in np.ndindex(2, 3):
        assert together[index] == pytest.approx(measure(first[index], second[index]))


@pytest.mark.parametrize("dilation", [0.001, 0.02, 0.1, 0.9])
def test_the_band_is_what_the_official_erosions_take_away(dilation):
    random = np.random.default_rng(1)
    for size in ((40, 60), (97, 31), (120, 200)):
        for share in (0.02, 0.4, 0.97):
            mask = blobs(random, size, share)
            assert np.array_equal(inner_band(mask, dilation=dilation), official_band(mask, dilation))


def test_boundary_iou_is_the_iou_of_the_official_bands():
    random = np.random.default_rng(2)
    for _ in range(5):
        first, second = blobs(random, (120, 200), 0.4), blobs(random, (120, 200), 0.4)
        a, b = official_band(first, 0.02), official_band(second, 0.02)
        assert boundary_iou(first, second) == (a & b).sum() / (a | b).sum()


def test_a_mask_that_fills_the_photo_has_its_band_along_the_photos_border():
    # 0.02 of the diagonal of 72.1 rounds to 1.
    full = box(0, 0, 40, 60)
    assert inner_band(full).sum() == 2 * 40 + 2 * 60 - 4


def test_absolute_error_by_hand():
    truth = box(0, 0, 20, 60)
    assert mean_absolute_error(np.full((40, 60), 0.25, np.float32), truth) == pytest.approx((0.75 + 0.25) / 2)
    assert mean_absolute_error(truth, truth) == 0
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0 to 255"):
        mean_absolute_error(truth * 255.0, truth)
