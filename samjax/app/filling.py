"""Drawn shapes as binary masks: the pixels whose centres lie in them.

A shape becomes, row by row, a change of state at the columns where its edge passes; the running sum along each row
then has the pixels. Coordinates are (x, y), pixel (0, 0) covering [0, 1] x [0, 1]; its centre is (0.5, 0.5).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int

from samjax.transforms import Size

_AT_ONCE = 1_000_000  # rows of edges


def filled_outline(points: Float64[np.ndarray, "N 2"], size: Size) -> Bool[np.ndarray, "H W"]:
    """The pixels of a picture of `size` (height, width) inside a closed outline; where it crosses itself, those that
    lie within an odd number of turns. A centre on a left or upper edge is inside, on a right or lower one outside.
    """
    height, width = size
    ends = np.roll(points, -1, 0)
    is_down = points[:, 1] <= ends[:, 1]
    upper, lower = (np.where(choice[:, None], points, ends) for choice in (is_down, ~is_down))
    first, last = _first_centre(upper[:, 1], height), _first_centre(lower[:, 1], height)
    turns = np.zeros((height, width + 1), np.int32)
    for edges in _portions(last - first):
        rows, edge = _rows(first[edges], last[edges], edges)
        start, end = upper[edge], lower[edge]
        x = start[:, 0] + (rows + 0.5 - start[:, 1]) * ((end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1]))
        _count(turns, rows, _first_centre(x, width))
    return _summed(turns) % 2 == 1


def filled_line(points: Float64[np.ndarray, "N 2"], radius: float, size: Size) -> Bool[np.ndarray, "H W"]:
    """The pixels of a picture of `size` (height, width) whose centres lie within `radius` of a line through points."""
    height, width = size
    starts, ends = (points[:-1], points[1:]) if len(points) > 1 else (points, points)
    above = np.minimum(starts[:, 1], ends[:, 1]) - radius
    below = np.maximum(starts[:, 1], ends[:, 1]) + radius
    first, last = _first_centre(above, height), np.clip(np.floor(below - 0.5) + 1, 0, height).astype(np.int64)
    changes = np.zeros((height, width + 1), np.int32)
    for edges in _portions(last - first):
        rows, edge = _rows(first[edges], last[edges], edges)
        left, right = _span(rows + 0.5, starts[edge], ends[edge], radius)
        inside = left <= right
        begin = _first_centre(left[inside], width)
        end = np.clip(np.floor(right[inside] - 0.5) + 1, 0, width).astype(np.int64)
        _count(changes, rows[inside], begin)
        _count(changes, rows[inside], np.maximum(begin, end), -1)
    return _summed(changes) > 0


def rows_of(points: Float64[np.ndarray, "N 2"], size: Size, radius: float = 0.0) -> float:
    """The number of rows of pixels that the edges of a shape cross in all: the cost of filling it."""
    y = np.clip(points[:, 1], -radius, size[0] + radius)
    return float(np.minimum(np.abs(np.diff(y, append=y[:1])) + 2 * radius + 1, size[0]).sum())


def _span(
    y: Float64[np.ndarray, " K"], start: Float64[np.ndarray, "K 2"], end: Float64[np.ndarray, "K 2"], radius: float
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """The least and the largest x at height y within `radius` of a line from start to end; the least is the larger one
    where there is none. What is so near a line is convex, so that all between the two belongs to it."""
    left, right = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for centre in (start, end):
        half = np.sqrt(np.maximum(radius**2 - (y - centre[:, 1]) ** 2, 0))
        is_near = np.abs(y - centre[:, 1]) <= radius
        left = np.where(is_near, np.minimum(left, centre[:, 0] - half), left)
        right = np.where(is_near, np.maximum(right, centre[:, 0] + half), right)
    # The rectangle beside the line: 0 <= t <= length along it, and -radius <= s <= radius across.
    along = end - start
    length = np.hypot(along[:, 0], along[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        ux, uy = along[:, 0] / length, along[:, 1] / length
        down = y - start[:, 1]
        first, last = _between(-down * uy, length - down * uy, ux)
        near, far = _between(-radius - down * ux, radius - down * ux, -uy)
    least, most = start[:, 0] + np.maximum(first, near), start[:, 0] + np.minimum(last, far)
    beside = (length > 0) & (least <= most)
    return np.where(beside, np.minimum(left, least), left), np.where(beside, np.maximum(right, most), right)


def _between(
    low: Float64[np.ndarray, " K"], high: Float64[np.ndarray, " K"], slope: Float64[np.ndarray, " K"]
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """The x with low <= x * slope <= high, from and to; all or none of them where there is no slope."""
    one, other = low / slope, high / slope
    always = (slope == 0) & (low <= 0) & (high >= 0)
    least = np.where(slope == 0, np.where(always, -np.inf, np.inf), np.minimum(one, other))
    return least, np.where(slope == 0, -least, np.maximum(one, other))


def _first_centre(at: Float64[np.ndarray, " K"], count: int) -> Int[np.ndarray, " K"]:
    """The first of `count` pixels whose centre is not before a place; `count` if all are."""
    return np.clip(np.ceil(at - 0.5), 0, count).astype(np.int64)


def _portions(rows: Int[np.ndarray, " N"]) -> Sequence[Int[np.ndarray, " n"]]:
    """The numbers of the edges with any rows, in portions that fit in memory."""
    edges = np.flatnonzero(rows > 0)
    if not len(edges):
        return []
    return np.split(edges, np.flatnonzero(np.diff(np.cumsum(rows[edges]) // _AT_ONCE)) + 1)


def _rows(
    first: Int[np.ndarray, " n"], last: Int[np.ndarray, " n"], edges: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Each row from first up to last of each edge, and the edge's number."""
    counts = last - first
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + offsets, np.repeat(edges, counts)


def _count(
    into: Int[np.ndarray, "H W1"], rows: Int[np.ndarray, " K"], columns: Int[np.ndarray, " K"], by: int = 1
) -> None:
    np.add.at(into.reshape(-1), rows * into.shape[1] + columns, np.int32(by))


def _summed(changes: Int[np.ndarray, "H W1"]) -> Int[np.ndarray, "H W"]:
    return np.cumsum(changes, 1, dtype=np.int32)[:, :-1]
