"""The careful user's clicks: deepest in a region, on it, with the right label."""

import hypothesis
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist


def packed(mask, ratio=1):
    from samjax.train.batch import pack_cells

    return pack_cells(mask, ratio)


@hypothesis.given(arrays.arrays(bool, (7, 9)))
def test_the_deepest_pixel_is_farthest_from_every_pixel_outside(mask):
    from samjax.train.tasks.interactive.cell_clicks import deepest_pixel

    depth, found = deepest_pixel(packed(mask), 1)
    if not mask.any():
        assert (depth, found) == (0, None)
        return
    outside = np.argwhere(~np.pad(mask, 1)) - 1  # beyond the border too
    distances = cdist(np.argwhere(mask), outside).min(1)
    assert depth == pytest.approx(distances.max())
    x, y = found
    assert cdist([(y, x)], outside).min() == pytest.approx(distances.max())


@hypothesis.given(arrays.arrays(bool, (8, 12)), hypothesis.strategies.sampled_from([2, 4]))
def test_a_click_is_on_the_region_however_thin_it_is(mask, ratio):
    from samjax.train.tasks.interactive.cell_clicks import deepest_pixel

    hypothesis.assume(mask.any())
    _, (x, y) = deepest_pixel(packed(mask, ratio), ratio)
    assert mask[int(y), int(x)]


def test_a_disc_is_clicked_at_its_centre():
    from samjax.train.tasks.interactive.cell_clicks import deepest_pixel

    y, x = np.mgrid[:64, :64]
    _, (column, row) = deepest_pixel(packed((x - 40) ** 2 + (y - 24) ** 2 < 15**2, 4), 4)
    assert abs(column - 40) <= 3
    assert abs(row - 24) <= 3
    assert {column % 4, row % 4} <= {1, 2}  # the middle of a cell that is all in the disc


def regions(*boxes):
    mask = np.zeros((32, 32), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


OBJECT = regions((4, 20, 4, 20))


@pytest.mark.parametrize(
    ("prediction", "where", "label"),
    [
        (regions((4, 20, 4, 10)), (10, 20, 4, 20), 1),  # misses the right part
        (regions((4, 20, 4, 30)), (20, 30, 4, 20), 0),  # goes beyond
        (regions((4, 20, 4, 19), (24, 32, 24, 32)), (24, 32, 24, 32), 0),  # misses a little, has more elsewhere
        (regions((4, 20, 8, 22)), (4, 8, 4, 20), 1),  # misses more than it goes beyond
        (regions((4, 20, 4, 20), (30, 31, 30, 31)), (30, 31, 30, 31), 0),  # a single pixel
    ],
)
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_a_correction_is_in_the_deeper_error(prediction, where, label, ratio):
    from samjax.train.tasks.interactive.cell_clicks import correction

    (x, y), found = correction(packed(OBJECT, ratio), packed(OBJECT ^ prediction, ratio), ratio)
    left, right, top, bottom = where
    assert found == label
    assert left <= x < right
    assert top <= y < bottom


def test_a_perfect_mask_needs_no_correction():
    from samjax.train.tasks.interactive.cell_clicks import correction

    assert correction(packed(OBJECT, 4), packed(OBJECT ^ OBJECT, 4), 4) is None
