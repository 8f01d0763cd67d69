"""Objects are drawn, cut up along tiles, and put together again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samjax.amg.candidates import Candidates
from samjax.amg.crops import tile_boxes
from samjax.amg.seams import merge_seams
from samjax.ops.rle import decode_rle, encode_rle, inclusive_box


def disc(size: tuple[int, int], cx: float, cy: float, rx: float, ry: float | None = None) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return ((x - cx) / rx) ** 2 + ((y - cy) / (ry or rx)) ** 2 < 1


def tiles_of(size: tuple[int, int], tile: int, overlap: int) -> list[tuple[int, int, int, int]]:
    return [(x0, y0, min(x1, size[1]), min(y1, size[0])) for x0, y0, x1, y1 in tile_boxes(size, tile, overlap)]


def cut(objects: list[np.ndarray], tiles: list[tuple[int, int, int, int]]) -> list[Candidates]:
    """What a perfect model finds in each tile: the part of each object that it shows."""
    found = []
    for x0, y0, x1, y1 in tiles:
        parts = []
        for mask in objects:
            part = np.zeros_like(mask)
            part[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
            if part.any():
                parts.append(encode_rle(part))
        count = len(parts)
        boxes = np.array([inclusive_box(part) for part in parts], int).reshape(-1, 4)
        crops = np.tile([x0, y0, x1, y1], (count, 1))
        found.append(Candidates(parts, boxes, np.full(count, 0.9), np.ones(count), np.zeros((count, 2)), crops))
    return found


def assert_whole_again(objects: list[np.ndarray], tiles: list[tuple[int, int, int, int]]) -> Candidates:
    merged = merge_seams(cut(objects, tiles), tiles)
    assert sorted(rle["counts"] for rle in merged.rles) == sorted(encode_rle(mask)["counts"] for mask in objects)
    assert [inclusive_box(rle) for rle in merged.rles] == [tuple(box) for box in merged.boxes.tolist()]
    return merged


SIZE = (200, 330)
TILES = tiles_of(SIZE, 128, 32)


@pytest.mark.parametrize(
    "objects",
    {
        "a disc where four tiles meet": [disc(SIZE, 112, 110, 40)],
        "a bar through all tiles of a row": [disc(SIZE, 165, 60, 400, 5)],
        "an object within the overlap": [disc(SIZE, 112, 50, 8)],
        "an object that fills everything": [np.ones(SIZE, bool)],
        "a part within its whole, both cut": [disc(SIZE, 112, 60, 50), disc(SIZE, 112, 60, 20)],
        "a part that ends in the overlap": [disc(SIZE, 112, 60, 60), disc(SIZE, 80, 60, 20)],
        "two objects side by side": [disc(SIZE, 112, 30, 60, 20), disc(SIZE, 112, 75, 60, 20)],
        "objects in one tile only": [disc(SIZE, 30, 30, 20), disc(SIZE, 300, 170, 20)],
    }.items(),
    ids=lambda item: item[0],
)
def test_objects_are_put_together(objects):
    assert_whole_again(objects[1], TILES)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 330), st.floats(0, 200), st.floats(3, 150), st.floats(3, 150))
def test_any_ellipse_is_put_together(cx, cy, rx, ry):
    mask = disc(SIZE, cx, cy, rx, ry)
    if mask.any():
        assert_whole_again([mask], TILES)


def test_a_whole_and_a_part_that_look_alike_in_the_overlap_are_told_apart():
    # In the overlap (x from 96 to 127) both are the same stripe; only one of them goes on into the second tile.
    whole, part = np.zeros((2, *SIZE), bool)
    whole[20:60, 90:180] = True
    part[20:60, 60:124] = True
    tiles = tiles_of(SIZE, 128, 32)[:2]
    merged = merge_seams(cut([whole, part], tiles), tiles)
    masks = [decode_rle(rle) for rle in merged.rles]
    assert any((mask[:, :224] == whole[:, :224]).all() for mask in masks)


@pytest.mark.parametrize(
    "objects",
    [
        [disc((224, 224), 112, 112, 90), disc((224, 224), 112, 112, 45)],
        [disc((224, 224), 112, 112, 105), disc((224, 224), 112, 112, 75), disc((224, 224), 112, 112, 45)],
        [disc((224, 224), 112, 60, 200), disc((224, 224), 112, 60, 110, 140)],
        [np.ones((224, 224), bool), disc((224, 224), 112, 110, 40)],
    ],
    ids=["two nested discs", "three nested discs", "both cover an overlap", "a disc on everything"],
)
def test_nested_objects_are_told_apart_in_whatever_order_a_tile_lists_them(objects):
    tiles = tiles_of((224, 224), 128, 32)
    expected = sorted(encode_rle(mask)["counts"] for mask in objects)
    random = np.random.default_rng(0)
    for _ in range(10):
        found = [part.take(random.permutation(len(part))) for part in cut(objects, tiles)]
        assert sorted(rle["counts"] for rle in merge_seams(found, tiles).rles) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_overlapping_ellipses_in_any_order_are_put_together(seed, count):
    random = np.random.default_rng(seed)
    objects = [
        disc(SIZE, random.uniform(0, 330), random.uniform(0, 200), *random.uniform(5, 120, 2)) for _ in range(count)
    ]
    objects = [mask for mask in objects if mask.any()]
    found = [part.take(random.permutation(len(part))) for part in cut(objects, TILES)]
    merged = merge_seams(found, TILES)
    assert sorted(rle["counts"] for rle in merged.rles) == sorted(encode_rle(mask)["counts"] for mask in objects)


def test_scores_are_means_by_area_and_the_crop_spans_the_tiles():
    tiles = tiles_of((60, 100), 60, 20)
    mask = np.zeros((60, 100), bool)
    mask[10:20, 10:90] = True
    first, second = cut([mask], tiles)
    first.iou[:], second.iou[:] = 0.5, 0.9
    first.points[:], second.points[:] = (20, 15), (80, 15)
    merged = merge_seams([first, second], tiles)
    assert merged.iou.tolist() == pytest.approx([0.7])
    assert merged.points.tolist() == [[80, 15]]
    assert merged.crops.tolist() == [[0, 0, 100, 60]]


def test_fragments_that_disagree_stay_apart():
    tiles = tiles_of((60, 100), 60, 20)
    left, right = np.zeros((2, 60, 100), bool)
    left[0:30, 0:60] = True
    right[30:60, 40:100] = True
    assert len(merge_seams([cut([left], tiles)[0], cut([right], tiles)[1]], tiles)) == 2


def test_nothing_found_stays_nothing():
    assert len(merge_seams(cut([], TILES), TILES)) == 0


def test_scenes_of_overlapping_ellipses_are_nearly_always_put_together():
    # Where objects that are not nested cover an overlap wholly, nothing there tells which goes on as which.
    right = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        objects = [
            disc(SIZE, *random.uniform((0, 0, 5, 5), (330, 200, 150, 150))) for _ in range(random.integers(2, 7))
        ]
        objects = list({mask.tobytes(): mask for mask in objects if mask.any()}.values())
        found = [part.take(random.permutation(len(part))) for part in cut(objects, TILES)]
        merged = merge_seams(found, TILES)
        right += sorted(rle["counts"] for rle in merged.rles) == sorted(encode_rle(mask)["counts"] for mask in objects)
    assert right >= 93
