"""Polygons are the masks they were made of, as pycocotools rasterises them."""

import hypothesis
import numpy as np
import pytest
import shapely
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from samjax.ops.rle import encode_rle
from samjax.writers.outlines import bridged, flat, outline


def rasterised(rings, size) -> np.ndarray:
    return coco.decode(coco.merge(coco.frPyObjects(rings, *size))).astype(bool)


def there_and_back(mask, tolerance) -> np.ndarray:
    return rasterised([flat(bridged(part)) for part in outline(encode_rle(mask), tolerance)], mask.shape)


def iou(first, second) -> float:
    return (first & second).sum() / (first | second).sum()


def test_without_simplifying_every_pixel_comes_back(masks):
    for name, mask in masks.items():
        np.testing.assert_array_equal(there_and_back(mask, 0.0), mask, err_msg=name)


@hypothesis.given(
    arrays.arrays(bool, strategies.tuples(strategies.integers(1, 12), strategies.integers(1, 12)))
    .filter(np.any)
)  # fmt: skip
def test_without_simplifying_any_mask_comes_back(mask):
    np.testing.assert_array_equal(there_and_back(mask, 0.0), mask)


@pytest.mark.parametrize("tolerance", [0.25, 0.5, 1.0, 3.0])
def test_nothing_vanishes(masks, tolerance):
    for name, mask in masks.items():
        back = there_and_back(mask, tolerance)
        assert iou(back, mask) > 0.8, name
        if mask.sum() < 50:
            np.testing.assert_array_equal(back, mask, err_msg=name)


def test_a_tolerance_of_half_a_pixel_keeps_98_percent_of_objects_from_400_pixels_on(masks):
    large = {name: mask for name, mask in masks.items() if mask.sum() >= 400}
    assert len(large) >= 8
    for name, mask in large.items():
        assert iou(there_and_back(mask, 0.5), mask) >= 0.98, name


def discs_and_bars():
    y, x = np.mgrid[:100, :100]
    random = np.random.default_rng(0)
    for radius in (12, 20, 45):
        for _ in range(8):
            (cx, cy), angle = 50 + random.uniform(0, 1, 2), random.uniform(0, np.pi)
            along, across = (
                (x - cx) * np.cos(angle + turn) + (y - cy) * np.sin(angle + turn) for turn in (0, np.pi / 2)
            )
            yield along**2 + across**2 < radius**2
            yield (np.abs(along) < radius) & (np.abs(across) < radius / 2)


def test_that_holds_at_any_place_and_angle():
    for mask in discs_and_bars():
        if mask.sum() >= 400:
            assert iou(there_and_back(mask, 0.5), mask) >= 0.98


def test_simplifying_saves_most_of_the_points(masks):
    before, after = (sum(map(shapely.get_num_coordinates, outline(encode_rle(masks["disc"]), t))) for t in (0.0, 0.5))
    assert after < before / 2.5


def test_no_point_is_further_from_the_outline_than_the_tolerance(masks):
    for name in ("disc", "three holes", "island in a hole", "slanted"):
        true, simple = (
            shapely.boundary(shapely.MultiPolygon(outline(encode_rle(masks[name]), tolerance)))
            for tolerance in (0.0, 1.5)
        )
        assert shapely.hausdorff_distance(true, simple, densify=0.5) <= 1.5, name


def test_pixel_0_0_covers_0_to_1():
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:9] = True
    (part,) = outline(encode_rle(mask), 0.0)
    assert part.bounds == (3.0, 2.0, 9.0, 6.0)


def test_parts_and_holes_are_told_apart(masks):
    parts = {name: outline(encode_rle(mask), 0.5) for name, mask in masks.items()}
    assert [len(part.interiors) for part in parts["ring"]] == [1]
    assert [len(part.interiors) for part in parts["two parts"]] == [0, 0]
    assert sorted(len(part.interiors) for part in parts["island in a hole"]) == [0, 1]
    assert all(shapely.MultiPolygon(polygons).is_valid for polygons in parts.values())


def test_an_empty_mask_has_no_outline():
    assert outline(encode_rle(np.zeros((5, 5), bool)), 0.5) == []


def test_bridges_have_no_area_and_cross_nothing():
    y, x = np.mgrid[:60, :60]
    mask = ~((x % 10 < 4) & (y % 12 < 5) & (x > 5) & (y > 5))
    (part,) = outline(encode_rle(mask), 0.5)
    assert len(part.interiors) == 20
    ring = bridged(part)
    assert shapely.Polygon(ring).area == pytest.approx(part.area)
    edges = shapely.linestrings(np.stack([ring, np.roll(ring, -1, axis=0)], 1))
    assert shapely.covered_by(edges, part.buffer(1e-6)).all()
