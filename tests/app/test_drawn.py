"""Outlines, strokes and run lengths become one binary mask."""

import numpy as np
import pytest
import shapely
from shapely import LineString, Polygon

SIZE = (80, 120)


def covered(shape, size=SIZE) -> np.ndarray:
    """Pixels whose centres a shape covers: GEOS decides."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return shapely.contains_xy(shape, x, y)


def differing(mask: np.ndarray, shape) -> np.ndarray:
    """Pixels that differ, but for those within a pixel of the shape's edge."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    far = shapely.distance(shapely.boundary(shape), shapely.points(x, y)) > 1
    return (mask != covered(shape, mask.shape)) & far


def drawn(size=SIZE, **fields):
    from samjax.app.drawn import drawn_mask
    from samjax.app.steps import DrawnMask

    return drawn_mask(DrawnMask(**fields), size)


def test_outlines_are_filled():
    first, second = (
        ((10.0, 10.0), (60.0, 12.0), (30.0, 70.0)),
        ((80.0, 20.0), (110.0, 20.0), (110.0, 50.0), (80.0, 50.0)),
    )
    mask = drawn(outlines=(first, second))
    assert not differing(mask, shapely.union(Polygon(first), Polygon(second))).any()


def test_an_outline_along_pixels_edges_has_just_these_pixels():
    mask = drawn(outlines=(((10.0, 20.0), (30.0, 20.0), (30.0, 40.0), (10.0, 40.0)),))
    expected = np.zeros(SIZE, bool)
    expected[20:40, 10:30] = True
    assert np.abs(mask.sum() - 400) <= 41  # Pillow takes the pixels of an edge in
    assert mask[expected].all()


def test_a_stroke_is_what_is_near_its_line():
    from samjax.app.steps import Stroke

    points = ((20.0, 20.0), (60.0, 50.0), (100.0, 30.0))
    mask = drawn(strokes=(Stroke(points, 8.0),))
    assert not differing(mask, LineString(points).buffer(8)).any()


def test_strokes_add_and_erase_in_their_order():
    from samjax.app.steps import Stroke

    box = ((10.0, 10.0), (110.0, 10.0), (110.0, 70.0), (10.0, 70.0))
    erased, added = Stroke(((20.0, 40.0), (100.0, 40.0)), 10.0, erase=True), Stroke(((60.0, 40.0),), 5.0)
    mask = drawn(outlines=(box,), strokes=(erased, added))
    assert mask[40, 60]
    assert not mask[40, 40]
    assert not drawn(outlines=(box,), strokes=(added, erased))[40, 60]


def test_run_lengths_are_the_mask_they_encode():
    from samjax.ops.rle import encode_rle

    mask = np.random.RandomState(0).rand(*SIZE) > 0.5
    np.testing.assert_array_equal(drawn(rle=encode_rle(mask)), mask)


def test_a_mask_of_a_large_photo_is_made_small():
    from samjax.app.steps import Stroke
    from samjax.ops.rle import encode_rle

    size = (6000, 9000)
    large = np.zeros(size, bool)
    large[1500:4500, 3000:6000] = True
    box = ((3000.0, 1500.0), (6000.0, 1500.0), (6000.0, 4500.0), (3000.0, 4500.0))
    for mask in (drawn(size, rle=encode_rle(large)), drawn(size, outlines=(box,))):
        assert mask.shape == (1365, 2048)
        assert mask.mean() == pytest.approx(1 / 6, rel=0.01)
    assert drawn(size, strokes=(Stroke(((10.0, 10.0),), 1.0),)).sum() > 0


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [120, 80], "counts": "PYb0"}, "has the size"),
        ({"size": [80, 120], "counts": "\x7f\x7f\x7f"}, "no run-length encoding"),
        ({"size": [80, 120], "counts": "P" * 50}, "no run-length encoding"),
        ({"size": [80, 120], "counts": "05"}, "runs cover"),
        ({"size": [80, 120], "counts": ""}, "no runs"),
        ({"size": [80, 120], "counts": "é"}, "no run-length encoding"),
    ],
)
def test_run_lengths_that_are_none_are_refused(rle, message):
    from samjax.app.steps import BadRequest

    with pytest.raises(BadRequest, match=message):
        drawn(rle=rle)


def test_strokes_that_would_take_minutes_are_refused():
    from samjax.app.steps import BadRequest, Stroke

    points = tuple((float(x), float(y)) for x in (10, 70) for y in range(5000))
    with pytest.raises(BadRequest, match="too long for their width"):
        drawn((4000, 4000), strokes=(Stroke(points, 1500.0),))


def test_a_mask_of_nothing_is_refused():
    from samjax.app.steps import BadRequest

    with pytest.raises(BadRequest, match="empty"):
        drawn(outlines=(((-50.0, -50.0), (-40.0, -50.0), (-40.0, -40.0)),))
