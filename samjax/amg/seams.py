"""Objects that lie across the seams of tiles, put together again."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from samjax.amg.candidates import Candidates
from samjax.amg.crops import Box
from samjax.ops.rle import clip_rle, inclusive_box, rle_area, rle_iou, union_rle

CUT = 4  # pixels; a mask so near to its tile's edge may be cut off there
INCONSISTENT = 0.1  # what a pair of fragments loses in rank for each edge at which one is cut off and the other ends
ALIKE = 0.05  # masks whose ranks differ by less look the same in the overlap


class _Pair(NamedTuple):
    margin: float  # by how much it ranks above every other pair of one of its fragments
    rank: float
    fragments: tuple[int, int]


def merge_seams(found: list[Candidates], tiles: list[Box], agreement: float = 0.5) -> Candidates:
    """The candidates of overlapping tiles, with one candidate for each object that several tiles show a part of.

    A mask in one tile and a mask in another are the same object if each is the other's best match where the tiles
    overlap, with an IoU there of at least `agreement`; the clearest matches come first. Such fragments are united: the
    union of the masks, means of predicted IoU and stability weighted by area, the point with the highest predicted IoU,
    and as crop the box around their tiles. One object never takes two fragments from one tile. `tiles` are boxes within
    the photo.
    """
    everything = Candidates.concatenate(found)
    tile_of = np.repeat(np.arange(len(found)), [len(part) for part in found])
    members = [np.flatnonzero(tile_of == number) for number in range(len(tiles))]
    pairs = [
        pair
        for a, b in _neighbours(tiles)
        for pair in _matches(everything, (members[a], members[b]), (tiles[a], tiles[b]), agreement)
    ]
    group = {number: [number] for number in range(len(everything))}
    for pair in sorted(pairs, reverse=True):
        first, second = (group[fragment] for fragment in pair.fragments)
        if not set(tile_of[first]) & set(tile_of[second]):
            joined = sorted(first + second)
            group |= dict.fromkeys(joined, joined)
    objects = [fragments for number, fragments in group.items() if fragments[0] == number]
    return Candidates.concatenate([_united(everything.take(fragments)) for fragments in objects] or [everything])


def _neighbours(tiles: list[Box]) -> list[tuple[int, int]]:
    """Pairs of tiles that overlap."""
    boxes = np.array(tiles, int).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    overlap = (low[:, None] < high).all(2) & (low < high[:, None]).all(2)
    return [(a, b) for a, b in np.argwhere(overlap).tolist() if a < b]


def _matches(
    everything: Candidates,
    members: tuple[Int[np.ndarray, " A"], Int[np.ndarray, " B"]],
    tiles: tuple[Box, Box],
    agreement: float,
) -> list[_Pair]:
    """Pairs of fragments, one of each of two tiles, that are each other's best match where the tiles overlap."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = tiles
    shared = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    inside, clipped = [], []
    for numbers in members:
        low, high = everything.boxes[numbers, :2], everything.boxes[numbers, 2:]
        near = numbers[((low < shared[2:]) & (high >= shared[:2])).all(1)]
        parts = [clip_rle(everything.rles[number], shared) for number in near]
        present = [rle_area(part) > 0 for part in parts]
        inside.append(near[present])
        clipped.append([part for part, there in zip(parts, present, strict=True) if there])
    if not len(inside[0]) or not len(inside[1]):
        return []
    iou = rle_iou(*clipped)
    boxes = [everything.boxes[numbers] for numbers in inside]
    clashes = _clashes(boxes[0], boxes[1], tiles) + _clashes(boxes[1], boxes[0], (tiles[1], tiles[0])).T
    rank = np.where(iou >= agreement, iou - INCONSISTENT * clashes, -np.inf)
    areas = [np.array([rle_area(everything.rles[number]) for number in numbers]) for numbers in inside]
    rank = rank - ALIKE * np.abs(_larger_rivals(rank, areas[0]) - _larger_rivals(rank.T, areas[1]).T)
    pairs = []
    for i, j in np.argwhere((rank == rank.max(0)) & (rank == rank.max(1, keepdims=True)) & (iou >= agreement)):
        rivals = np.concatenate([np.delete(rank[i], j), np.delete(rank[:, j], i)])
        margin = rank[i, j] - rivals.max(initial=0.0)
        pairs.append(_Pair(float(margin), float(rank[i, j]), (int(inside[0][i]), int(inside[1][j]))))
    return pairs


def _larger_rivals(rank: Float[np.ndarray, "A B"], areas: Int[np.ndarray, " A"]) -> Int[np.ndarray, "A B"]:
    """The number of larger masks of the first tile that match a mask of the second one at least as well as this one.

    Of masks that all look the same in the overlap, as nested ones do that cover it, the largest belongs to the largest.
    """
    counts = [((rank > mine - ALIKE) & (areas > area)[:, None]).sum(0) for mine, area in zip(rank, areas, strict=True)]
    return np.stack(counts)


def _clashes(
    boxes: Int[np.ndarray, "A 4"], others: Int[np.ndarray, "B 4"], tiles: tuple[Box, Box]
) -> Int[np.ndarray, "A B"]:
    """Counts, for each pair of masks, the edges of the first tile within the second one at which only one of two things
    holds: the first tile's mask is cut off, the second's continues beyond. It tells an object from a part of it that
    looks the same in the overlap."""
    (x0, y0, x1, y1), (ox0, oy0, ox1, oy1) = tiles
    edges = [(0, x0, -1, ox0 < x0), (1, y0, -1, oy0 < y0), (2, x1 - 1, 1, x1 < ox1), (3, y1 - 1, 1, y1 < oy1)]
    count = np.zeros((len(boxes), len(others)), int)
    for side, edge, outwards, within in edges:
        if within:
            cut = outwards * (boxes[:, side] - edge) >= -CUT
            continues = outwards * (others[:, side] - edge) > 0
            count += cut[:, None] != continues
    return count


def _united(fragments: Candidates) -> Candidates:
    if len(fragments) == 1:
        return fragments
    rle = union_rle(fragments.rles)
    weights = np.array([rle_area(part) for part in fragments.rles], float)
    best = int(np.argmax(fragments.iou))
    return Candidates(
        [rle],
        np.array([inclusive_box(rle)]),
        np.average(fragments.iou, weights=weights)[None].astype(fragments.iou.dtype),
        np.average(fragments.stability, weights=weights)[None].astype(fragments.stability.dtype),
        fragments.points[best : best + 1],
        np.concatenate([fragments.crops[:, :2].min(0), fragments.crops[:, 2:].max(0)])[None],
    )
