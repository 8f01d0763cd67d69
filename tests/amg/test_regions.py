import cv2
import numpy as np
import pytest

from samjax.amg.candidates import Candidates
from samjax.amg.regions import remove_from, remove_small_regions
from samjax.ops.rle import decode_rle, encode_rle, inclusive_box


def candidates(masks: list[np.ndarray]) -> Candidates:
    rles, count = [encode_rle(mask) for mask in masks], len(masks)
    boxes = np.array([inclusive_box(rle) for rle in rles])
    height, width = masks[0].shape
    crop = np.tile([0, 0, width, height], (count, 1))
    return Candidates(rles, boxes, np.linspace(0.9, 0.5, count), np.ones(count), np.zeros((count, 2)), crop)


def with_holes_and_islands() -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[10:40, 10:50] = True
    mask[12:14, 12:14] = False  # 4 pixels
    mask[20:30, 20:30] = False  # 100 pixels
    mask[50:52, 70:73] = True  # 6 pixels
    return mask


def test_small_holes_are_filled_and_large_ones_stay():
    mask, changed = remove_small_regions(with_holes_and_islands(), 10, "holes")
    assert changed
    assert mask[12:14, 12:14].all()
    assert not mask[20:30, 20:30].any()


def test_small_islands_go():
    mask, changed = remove_small_regions(with_holes_and_islands(), 10, "islands")
    assert changed
    assert not mask[50:, 70:].any()
    assert mask[10:40, 10:50].sum() == 30 * 40 - 104


def test_the_largest_of_small_islands_stays():
    mask, changed = remove_small_regions(with_holes_and_islands(), 1e6, "islands")
    assert changed
    assert mask.sum() == 30 * 40 - 104


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.eye(12, dtype=bool)
    assert remove_small_regions(mask, 12, "islands") == (pytest.approx(mask), False)


def test_masks_without_small_regions_are_left_alone_and_preferred():
    untouched = np.zeros((60, 80), bool)
    untouched[10:40, 10:50] = True
    mended = remove_from(candidates([with_holes_and_islands(), untouched]), 10, 0.7)
    assert mended.iou.tolist() == [0.5]  # although the other one has the better score
    np.testing.assert_array_equal(decode_rle(mended.rles[0]), untouched)


def test_boxes_follow_their_masks():
    mended = remove_from(candidates([with_holes_and_islands()]), 10, 0.7)
    assert mended.boxes.tolist() == [[10, 10, 49, 39]]


@pytest.mark.parametrize("area", [1, 7, 40, 5000])
def test_confining_the_search_to_the_masks_surroundings_changes_nothing(area):
    random = np.random.default_rng(0)
    for _ in range(30):
        height, width = random.integers(5, 60, 2)
        y0, x0 = random.integers(0, height), random.integers(0, width)
        mask = np.zeros((height, width), bool)
        part = mask[y0 : y0 + 30, x0 : x0 + 20]
        part[:] = random.random(part.shape) < 0.8
        expected, _ = remove_small_regions(mask, area, "holes")
        expected, _ = remove_small_regions(expected, area, "islands")
        np.testing.assert_array_equal(decode_rle(remove_from(candidates([mask]), area, 0.7).rles[0]), expected)


def test_of_equally_large_islands_anywhere_in_a_photo_the_references_stays():
    random = np.random.default_rng(2)
    for _ in range(200):
        mask = np.zeros((60, 60), bool)
        y, x = random.integers(10, 20, 2)
        mask[y : y + 20, x : x + 20] = random.random((20, 20)) < 0.01
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), 8)
        expected = labels == 1 + np.argmax(stats[1:, -1]) if mask.any() else mask
        np.testing.assert_array_equal(decode_rle(remove_from(candidates([mask]), 50.0, 0.7).rles[0]), expected)
