"""Clicks are RITM's, by definition: recomputed on the whole padded map with scipy, and by hand."""

import cv2
import numpy as np
import pytest
from example_segmenters import ritm
from scipy import ndimage


def blobs(random, shape, scale):
    """A random region; scales below 1 give specks, with many pixels that are equally deep."""
    noise = random.standard_normal(shape)
    return (ndimage.gaussian_filter(noise, scale) if scale else noise) > random.choice([-0.5, 0, 0.5]) * (scale == 0)


def cases():
    """200 random objects with predictions, earlier clicks and ignored pixels."""
    random = np.random.default_rng(7)
    for _ in range(200):
        shape = tuple(random.integers(1, 40, 2))
        scale = random.choice([0, 1, 3])
        target, prediction = blobs(random, shape, scale), blobs(random, shape, scale)
        if random.random() < 0.3:
            prediction = np.zeros(shape, bool)
        if random.random() < 0.2:  # as deep on both sides: the object's mirror image
            target = target & ~target[:, ::-1]
            prediction = target[:, ::-1].copy()
        judged = random.random(shape) > 0.1 if random.random() < 0.3 else np.ones(shape, bool)
        yield random, target, prediction, judged


def test_200_clicks_are_ritms_ties_included():
    from samjax.evaluation.user.clicks import Click, next_click

    ties = clicked_again = 0
    for random, target, prediction, judged in cases():
        clicked: list[Click] = []
        for _ in range(random.integers(1, 6)):
            if not ((target ^ prediction) & judged).any():
                break
            expected = ritm(target, prediction, clicked, judged)
            found = next_click(target, prediction, clicked, judged)
            if found is None:
                assert {(x, y) for x, y, _ in clicked} >= {
                    (x, y) for y, x in np.argwhere((target ^ prediction) & judged)
                }
                break
            assert found == expected
            clicked_again += bool(clicked) and ritm(target, prediction, [], judged) == clicked[0]  # but for the rule
            missed, beside = (
                ndimage.distance_transform_edt(np.pad(side & judged, 1)).max()
                for side in (target & ~prediction, ~target & prediction)
            )
            ties += bool(missed == beside)
            clicked.append(found)
    assert ties > 20  # the cases do have what they are for
    assert clicked_again > 100


def test_the_distances_are_opencvs():
    from samjax.evaluation.user.clicks import depths

    random = np.random.default_rng(3)
    for scale in (0, 1, 4):
        region = blobs(random, (60, 90), scale)
        padded = np.pad(region, 1).astype(np.uint8)
        expected = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        found = depths(region)
        whole = np.zeros(region.shape, np.float32)
        height, width = found.values.shape
        whole[found.top : found.top + height, found.left : found.left + width] = found.values
        np.testing.assert_allclose(whole, expected, rtol=2e-7)  # some of its square roots are off by one bit


def box(top, bottom, left, right):
    mask = np.zeros((20, 30), bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = np.zeros((20, 30), bool)


@pytest.mark.parametrize(
    ("target", "prediction", "expected"),
    [
        (box(5, 10, 8, 13), NOTHING, (10, 7, True)),  # the middle of a square
        (box(5, 9, 8, 12), NOTHING, (9, 6, True)),  # of even side: the first of the four in the middle
        (box(0, 5, 0, 5), NOTHING, (2, 2, True)),  # the photo's border is a boundary
        (box(0, 20, 0, 30), NOTHING, (9, 9, True)),  # all of the photo
        (box(5, 10, 8, 13), box(5, 10, 8, 20), (15, 7, False)),  # 7 columns too many: the first of three as deep
        (box(5, 10, 8, 13), box(5, 10, 18, 23), (20, 7, False)),  # as much missed as wrongly taken: negative
    ],
)
def test_clicks_known_by_hand(target, prediction, expected):
    from samjax.evaluation.user.clicks import next_click

    assert next_click(target, prediction) == expected


def test_pixels_that_are_not_judged_are_not_clicked():
    from samjax.evaluation.user.clicks import next_click, next_point

    target = box(2, 17, 2, 17)
    judged = ~box(2, 17, 2, 12)
    for rule in (next_click, next_point):
        x, y, positive = rule(target, NOTHING, (), judged)
        assert (x, y, positive) == (14, 4, True)  # the middle of what is left, 15 x 5 pixels: the first of equals


def test_where_nothing_is_wrong_there_is_nothing_to_click():
    from samjax.evaluation.user.clicks import Click, next_click, next_point

    target, pixel = box(2, 9, 2, 9), box(4, 5, 4, 5)
    for rule in (next_click, next_point):
        assert rule(target, target) is None
        assert rule(NOTHING, pixel) == (4, 4, False)
        assert rule(NOTHING, pixel, [Click(4, 4, 0)]) is None


def test_sams_next_point_is_deepest_in_both_errors_together():
    from samjax.evaluation.user.clicks import next_click, next_point

    # 3 columns missed and 3 columns wrongly taken touch, and are 6 columns of error.
    target, prediction = box(2, 18, 5, 15), box(2, 18, 8, 18)
    assert next_click(target, prediction)[:2] == (16, 3)
    target, prediction = box(2, 18, 5, 8), box(2, 18, 8, 11)
    assert next_click(target, prediction) == (9, 3, False)
    assert next_point(target, prediction) == (7, 4, True)
    assert next_point(prediction, target) == (7, 4, False)


def test_sams_points_are_farthest_from_the_error_regions_boundary():
    from samjax.evaluation.user.clicks import next_point

    for _, target, prediction, judged in cases():
        wrong = (target ^ prediction) & judged
        if not wrong.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        x, y, positive = next_point(target, prediction, (), judged)
        assert (y, x) == tuple(np.argwhere(depth == depth.max())[0])
        assert positive == target[y, x]
