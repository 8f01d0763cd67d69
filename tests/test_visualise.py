"""Overlays show the mask, its outline, its prompts and its score, and leave the rest of the photo alone."""

import time

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from samjax.visualise import (
    BACKGROUND_COLOUR,
    FOREGROUND_COLOUR,
    PALETTE,
    Drawing,
    overlay,
    overlay_labels,
    side_by_side,
)

GREY = np.full((120, 160, 3), 128, np.uint8)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:120, :160]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def test_the_mask_is_tinted_and_the_rest_is_the_photo():
    mask = disc(80, 60, 30)
    picture = np.asarray(overlay(GREY, [Drawing(mask)]))
    np.testing.assert_array_equal(picture[~disc(80, 60, 35)], 128)
    inside = picture[disc(80, 60, 25)].mean(0)
    assert inside[2] > 150 > 120 > inside[0]  # towards the palette's blue


def test_each_object_has_a_colour_of_its_own():
    picture = np.asarray(overlay(GREY, [Drawing(disc(40, 60, 20)), Drawing(disc(120, 60, 20))]))
    assert np.abs(picture[60, 40].astype(int) - picture[60, 120]).max() > 50


def test_points_are_drawn_at_their_pixels_in_the_colour_of_their_label():
    empty = np.zeros((120, 160), bool)
    picture = np.asarray(overlay(GREY, [Drawing(empty, points=((40.0, 50.0), (110.0, 80.0)), labels=(1, 0))]))

    def has(colour, x, y):
        near = picture[y - 5 : y + 6, x - 5 : x + 6].astype(int)
        return (np.abs(near - colour).sum(-1) < 30).any()

    assert has(FOREGROUND_COLOUR, 40, 50)
    assert has(BACKGROUND_COLOUR, 110, 80)
    assert not has(BACKGROUND_COLOUR, 40, 50)
    np.testing.assert_array_equal(picture[100:, :20], 128)


def test_a_box_is_drawn_on_its_edges():
    empty = np.zeros((120, 160), bool)
    picture = np.asarray(overlay(GREY, [Drawing(empty, box=(30.0, 20.0, 130.0, 100.0))])).astype(int)
    for y, x in ((20, 80), (100, 80), (60, 30), (60, 130)):
        near = picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)
        assert np.abs(near - PALETTE[0]).sum(-1).min() < 40
    np.testing.assert_array_equal(picture[60, 80], 128)


def test_a_score_adds_a_label_and_an_empty_mask_none():
    mask = disc(80, 70, 30)
    without, labelled = overlay(GREY, [Drawing(mask)]), overlay(GREY, [Drawing(mask, 0.875)])
    assert np.asarray(labelled)[:45].std() > np.asarray(without)[:45].std() + 5
    empty = np.zeros((120, 160), bool)
    np.testing.assert_array_equal(np.asarray(overlay(GREY, [Drawing(empty, 0.5)])), GREY)


def test_what_is_drawn_does_not_depend_on_where():
    """Across the tiles that are drawn one by one, and what sticks out of the photo."""
    photo = np.full((700, 900, 3), 128, np.uint8)
    rows, columns = np.mgrid[:700, :900]

    def drawn(x, y, score=None):
        mask = (columns - x - 200) ** 2 + (rows - y - 150) ** 2 < 120**2
        points = (x + 90.4, y + 130.7), (x + 300.0, y + 40.0)
        return np.asarray(
            overlay(photo, [Drawing(mask, score, points, (1, 0), (x + 20.3, y + 10.0, x + 390.0, y + 290.6))])
        )

    here, there = drawn(0, 0, 0.9), drawn(387, 301, 0.9)
    np.testing.assert_array_equal(here[:350, :450], there[301:651, 387:837])
    out = drawn(-60, -50)
    np.testing.assert_array_equal(out[5:250, 5:350], drawn(0, 0)[55:300, 65:410])


def test_the_outline_lies_around_the_mask():
    mask = np.zeros((600, 800), bool)
    mask[240:300, 100:700] = True
    mask[:, 255:258] = True
    picture = np.asarray(overlay(np.full((600, 800, 3), 128, np.uint8), [Drawing(mask)])).astype(int)
    line = ndimage.binary_dilation(mask, np.ones((5, 5))) & ~mask  # 0.002 of the diagonal, 2 pixels
    assert np.abs(picture[line] - PALETTE[0]).max() < 60
    assert np.abs(picture[~ndimage.binary_dilation(mask, np.ones((11, 11)))] - 128).max() == 0
    inside = ndimage.binary_erosion(mask, np.ones((7, 7)))
    assert len(np.unique(picture[inside], axis=0)) == 1


def test_drawing_on_a_large_photo_takes_less_than_a_second():
    photo, mask = np.zeros((2000, 3000, 3), np.uint8), np.zeros((2000, 3000), bool)
    mask[300:900, 400:2900] = True
    start = time.process_time()
    overlay(photo, [Drawing(mask, 0.9, ((1500.0, 500.0),), (1,), (400.0, 300.0, 2900.0, 900.0))])
    assert time.process_time() - start < 1


def test_pictures_stand_side_by_side():
    strip = side_by_side([Image.new("RGB", (50, 40)), Image.new("RGB", (50, 40))])
    assert strip.size == (104, 40)


def chequered(height: int, width: int, side: int) -> np.ndarray:
    """Labels of squares, all of the picture."""
    rows, columns = np.mgrid[:height, :width] // side
    return (rows * (-(-width // side)) + columns + 1).astype(np.int32)


def test_labels_are_tinted_and_the_background_is_the_photo():
    labels = np.where(disc(60, 60, 25), 1, np.where(disc(115, 60, 20), 2, 0)).astype(np.int32)
    picture = np.asarray(overlay_labels(GREY, labels)).astype(int)
    np.testing.assert_array_equal(picture[labels == 0], 128)
    first, second = picture[60, 60], picture[60, 115]
    assert np.abs(first - 128).max() > 30
    assert np.abs(first - second).max() > 30
    outline, inside = picture[60, 60 - 24], picture[60, 60]
    assert np.abs(outline - 128).max() > np.abs(inside - 128).max() + 20


def test_labels_that_touch_differ_in_colour():
    labels = chequered(120, 160, 20)
    picture = np.asarray(overlay_labels(GREY, labels)).astype(int)[10::20, 10::20]
    for axis in (0, 1):
        assert (np.abs(np.diff(picture, axis=axis)).max(-1) > 15).all()


def test_borders_are_where_a_label_is_near_another():
    labels = np.kron(np.random.default_rng(1).integers(1, 4, (9, 12)), np.ones((61, 59), int)).astype(np.int32)
    width = 2 * round(0.0007 * np.hypot(*labels.shape)) + 1
    border = ndimage.maximum_filter(labels, width) != ndimage.minimum_filter(labels, width)
    picture = np.asarray(overlay_labels(np.full((*labels.shape, 3), 128, np.uint8), labels))
    for label in (1, 2, 3):
        colours = [np.unique(picture[(labels == label) & part], axis=0) for part in (border, ~border)]
        assert [len(each) for each in colours] == [1, 1]
        assert np.abs(colours[0].astype(int) - colours[1]).max() > 10


def test_a_picture_without_labels_is_the_photo():
    np.testing.assert_array_equal(np.asarray(overlay_labels(GREY, np.zeros((120, 160), np.int32))), GREY)


def test_hundreds_of_labels_on_a_large_photo_take_less_than_a_second():
    photo, labels = np.full((1200, 1800, 3), 99, np.uint8), chequered(1200, 1800, 80)
    assert labels.max() > 300
    start = time.process_time()
    overlay_labels(photo, labels)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("side", range(1, 6))
def test_photos_of_a_few_pixels_a_side_are_drawn_too(side):
    for shape in ((side, 50), (50, side), (side, 300), (side, side)):
        labels = chequered(*shape, 2)
        assert overlay_labels(np.full((*shape, 3), 128, np.uint8), labels).size == shape[::-1]
