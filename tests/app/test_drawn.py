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


def drawn(size=SIZE, **fields):
    from samjax.app.drawn import drawn_mask
    from samjax.app.steps import DrawnMask

    return drawn_mask(DrawnMask(**fields), size)


def test_outlines_are_filled():
    first, second = (
        ((10.2, 10.1), (60.0, 12.3), (30.4, 70.0)),
        ((80.0, 20.0), (110.0, 20.0), (110.0, 50.0), (80.0, 50.0)),
    )
    mask = drawn(outlines=(first, second))
    np.testing.assert_array_equal(mask, covered(shapely.union(Polygon(first), Polygon(second))))


def test_an_outline_along_pixels_edges_has_just_these_pixels():
    mask = drawn(outlines=(((10.0, 20.0), (30.0, 20.0), (30.0, 40.0), (10.0, 40.0)),))
    expected = np.zeros(SIZE, bool)
    expected[20:40, 10:30] = True
    np.testing.assert_array_equal(mask, expected)


def test_outlines_have_the_pixels_whose_centres_are_in_them():
    """Those of random points, also beyond the photo; nodes at crossings make them shapes that GEOS takes."""
    random = np.random.RandomState(0)
    for _ in range(50):
        line = random.uniform(-20, 130, (random.randint(3, 12), 2))
        rings = shapely.get_parts(shapely.polygonize([shapely.node(shapely.LinearRing(line))]))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
        turns = np.zeros(SIZE, int)
        for ring in rings:
            inner = shapely.point_on_surface(ring)
            turns += shapely.contains_xy(ring, x, y) * crossings(line, inner.x, inner.y)
        if (turns % 2).any():
            np.testing.assert_array_equal(drawn(outlines=(tuple(map(tuple, line)),)), turns % 2 == 1)


def crossings(line: np.ndarray, x: float, y: float) -> int:
    """How often a closed line crosses the ray from a point to the right: an odd number means that it lies inside."""
    ray = LineString([(x, y), (1e3, y)])
    edges = zip(line, np.roll(line, -1, 0), strict=True)
    return sum(LineString(edge).intersects(ray) for edge in edges)


def test_a_stroke_is_what_is_near_its_line():
    """Within `radius` of it; GEOS has the distances."""
    from samjax.app.steps import Stroke

    random = np.random.RandomState(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    cases = [[(20.0, 20.0), (60.0, 50.0), (100.0, 30.0)], [(40.0, 40.0)], [(9.0, 9.0), (9.0, 9.0), (50.0, 9.0)]]
    cases += [[(30.0, 5.0), (30.0, 70.0)], [(3.0, 33.0), (110.0, 33.0)]]
    cases += [list(map(tuple, random.uniform(-20, 130, (random.randint(1, 6), 2)))) for _ in range(50)]
    for points in cases:
        radius = random.uniform(1, 25)
        line = shapely.points(points[0]) if len(points) == 1 else LineString(points)
        near = shapely.distance(line, shapely.points(x, y)) <= radius
        if near.any():
            mask = drawn(strokes=(Stroke(tuple(points), radius),))
            np.testing.assert_array_equal(mask, near)


def test_the_smallest_dab_has_a_pixel():
    from samjax.app.steps import Stroke

    mask = drawn(strokes=(Stroke(((12.3, 45.6),), 0.1),))
    assert mask[45, 12]
    assert mask.sum() <= 2
    assert drawn(strokes=(Stroke(((12.0, 45.0),), 0.1),)).sum() == 4  # a corner that four pixels share


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
    with pytest.raises(BadRequest, match="the drawing is too large"):
        drawn((4000, 4000), strokes=(Stroke(points, 1500.0),))


def test_a_large_drawing_is_made_fast():
    """Two hundred strokes and a zigzag across a large photo: a second, not minutes."""
    import time

    from samjax.app.steps import Stroke

    random = np.random.RandomState(0)
    strokes = [Stroke(tuple(map(tuple, random.uniform(at, at + 300, (50, 2)))), 20.0) for at in range(0, 4000, 20)]
    zigzag = tuple((float(x % 3900), float(x % 2 * 700)) for x in range(9_000))
    start = time.perf_counter()
    drawn((4000, 4000), outlines=(zigzag,), strokes=tuple(strokes))
    assert time.perf_counter() - start < 10


def test_a_mask_of_nothing_is_refused():
    from samjax.app.steps import BadRequest

    with pytest.raises(BadRequest, match="empty"):
        drawn(outlines=(((-50.0, -50.0), (-40.0, -50.0), (-40.0, -40.0)),))
