"""The BSDS500 boundary benchmark: what of an edge map people have drawn, and what of theirs it finds.

Source: Arbelaez et al., "Contour detection and hierarchical image segmentation", TPAMI 2011, and its code
(`boundaryBench`, `correspondPixels`), to which Dollar's `edgesEvalDir` adds R50. Where a rule has no other reason than
that the published figures were made with it, the place says so.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

THRESHOLDS = np.arange(1, 100) / 100
TOLERANCE = 0.0075  # how far apart matched pixels may lie, as a share of the photo's diagonal
OUTLIER_COST = 100  # what a pair less costs, in tolerances
COST_UNIT = 100  # costs are whole numbers of 1/100 pixel
PAIRS_TOGETHER = 1000  # possible pairs solved at once, but for parts that are larger


Task = tuple[Bool[np.ndarray, "H W"], Sequence[Bool[np.ndarray, "_ _"]], float]  # what `count_mask` is called with
MaskCounts = tuple[int, int, int]  # its result: matched drawn pixels, matched predicted ones, predicted ones


@dataclasses.dataclass(frozen=True)
class EdgeCounts:
    """Pixels at each of K thresholds, of one photo or summed over many."""

    found: Int[np.ndarray, " K"]  # drawn pixels that are matched, summed over annotators
    drawn: Int[np.ndarray, " K"]  # drawn pixels, summed over annotators
    right: Int[np.ndarray, " K"]  # predicted pixels that are matched by any annotator
    predicted: Int[np.ndarray, " K"]

    def __add__(self, other: "EdgeCounts") -> "EdgeCounts":
        return EdgeCounts(
            *(getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(self))
        )

    def at(self, index: int) -> "EdgeCounts":
        """One threshold's."""
        return EdgeCounts(*(getattr(self, field.name)[index : index + 1] for field in dataclasses.fields(self)))

    @property
    def recall(self) -> Float64[np.ndarray, " K"]:
        return self.found / np.maximum(self.drawn, 1)

    @property
    def precision(self) -> Float64[np.ndarray, " K"]:
        """0 if nothing is predicted, as in the benchmark's code."""
        return self.right / np.maximum(self.predicted, 1)

    @property
    def f(self) -> Float64[np.ndarray, " K"]:
        return f_measure(self.precision, self.recall)


@dataclasses.dataclass(frozen=True)
class EdgeScores:
    """Shares between 0 and 1."""

    ods: float  # F at the one threshold that is best for the data set
    ods_threshold: float
    ods_precision: float
    ods_recall: float
    ois: float  # F of the pooled counts of each photo's best threshold
    ap: float  # mean precision over recalls 0, 0.01, ..., 1
    r50: float  # recall where precision is one half


def count_edges(
    edges: Float[np.ndarray, "H W"],
    boundaries: Sequence[Bool[np.ndarray, "_ _"]],
    *,
    thresholds: Float64[np.ndarray, " K"] = THRESHOLDS,
    tolerance: float = TOLERANCE,
    count_masks: Callable[[list[Task]], Iterable[MaskCounts]] | None = None,
) -> EdgeCounts:
    """Compares an edge map, between 0 and 1, with the boundaries that several people have drawn.

    At each threshold the pixels that reach it are thinned to lines one pixel wide and matched to each annotator's.
    `count_masks` does so for the masks of several thresholds, in their order; by default one after the other.
    Raises ValueError if there is no annotator, or sizes differ, or the map has values outside [0, 1].
    """
    if not len(boundaries):
        raise ValueError("edges are compared with at least one annotator's boundaries; none were given")
    for boundary in boundaries:
        if boundary.shape != edges.shape:
            raise ValueError(f"the edge map is {edges.shape} (height, width), the boundaries are {boundary.shape}")
    if not (edges.min() >= 0 and edges.max() <= 1):  # false for NaN too
        raise ValueError(f"an edge map must lie in [0, 1], got {edges.min():g} to {edges.max():g}; scale it")
    masks, numbers = [], []
    for threshold in thresholds:
        above = edges >= threshold
        if not masks or not np.array_equal(above, masks[-1]):
            masks.append(above)
        numbers.append(len(masks) - 1)
    tasks = [(mask, boundaries, tolerance) for mask in masks]
    rows = list(count_masks(tasks)) if count_masks else [count_mask(*task) for task in tasks]
    found, right, predicted = np.array(rows, np.int64).reshape(-1, 3)[numbers].T
    drawn = sum(int(boundary.sum()) for boundary in boundaries)
    return EdgeCounts(found, np.full(len(found), drawn), right, predicted)


def count_mask(
    above: Bool[np.ndarray, "H W"], boundaries: Sequence[Bool[np.ndarray, "_ _"]], tolerance: float
) -> MaskCounts:
    """Counts, for the edges at one threshold, thinned, the drawn pixels that are matched, summed over annotators, the
    predicted ones that any annotator matches, and the predicted ones."""
    from skimage.morphology import thin

    thinned = thin(above)
    matches = [match_edges(thinned, boundary, tolerance) for boundary in boundaries]
    found = sum(int(theirs.sum()) for _, theirs in matches)
    right = np.logical_or.reduce([ours for ours, _ in matches]).sum()
    return found, int(right), int(thinned.sum())


def match_edges(
    predicted: Bool[np.ndarray, "H W"], drawn: Bool[np.ndarray, "H W"], tolerance: float = TOLERANCE
) -> tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Matches the pixels of two maps by the cheapest one-to-one correspondence (`correspondPixels`).

    A pair costs its distance and lies within `tolerance` times the diagonal; a pair less costs 100 times that. So there
    are as many pairs as can be, unless a hundred had to move for one more, and of all such choices the nearest.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ours, theirs = np.zeros_like(predicted), np.zeros_like(drawn)
    radius = tolerance * float(np.hypot(*predicted.shape))
    rows, columns, distance = _pairs(predicted, drawn, radius)
    if not len(rows):
        return ours, theirs
    pixels, row = np.unique(rows, return_inverse=True)
    others, column = np.unique(columns, return_inverse=True)
    count = len(pixels) + len(others)
    links = coo_array((np.ones(len(row), bool), (row, len(pixels) + column)), shape=(count, count))
    _, part = connected_components(links, directed=False)
    # The solver's time grows with the square of a problem's size, so the map is solved in independent parts, the
    # smallest of them together.
    sizes = np.bincount(part[row])
    bundle = (np.cumsum(sizes) // PAIRS_TOGETHER)[part[row]]
    order = np.argsort(bundle, kind="stable")
    outlier = np.ceil(OUTLIER_COST * radius * COST_UNIT)
    for some in np.split(order, np.flatnonzero(np.diff(bundle[order])) + 1):
        chosen = some[_assign(row[some], column[some], np.rint(distance[some] * COST_UNIT), outlier)]
        ours.flat[rows[chosen]] = True
        theirs.flat[columns[chosen]] = True
    return ours, theirs


def _assign(
    row: Int[np.ndarray, " P"], column: Int[np.ndarray, " P"], cost: Float64[np.ndarray, " P"], outlier: float
) -> Int[np.ndarray, " N"]:
    """Chooses from P possible pairs the cheapest assignment, in which a pair less costs `outlier`."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    if len(rows) > len(columns):
        rows, row, columns, column = columns, column, rows, row
    # Each row may also take a column of its own, which stands for none: then all find one. The same assignment is the
    # cheapest with rows and columns swapped, as both say what each pair saves.
    left, right = len(rows), len(columns)
    own = np.arange(left)
    costs = np.concatenate([cost, np.full(left, outlier)]) + 1  # 0 would mean no edge
    places = np.concatenate([row, own]), np.concatenate([column, right + own])
    graph = csr_array((costs, places), shape=(left, right + left))
    _, taken = min_weight_full_bipartite_matching(graph)  # row by row
    return np.flatnonzero(taken[row] == column)


def _pairs(
    first: Bool[np.ndarray, "H W"], second: Bool[np.ndarray, "H W"], radius: float
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """Pixels of one map and of the other, as indices into the flat maps, within a radius, and how far apart."""
    reach = int(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    near = dy**2 + dx**2 <= radius**2
    dy, dx = dy[near, None], dx[near, None]
    y, x = np.nonzero(first)
    padded = np.pad(second, reach)
    offset, number = np.nonzero(padded[y + dy + reach, x + dx + reach])
    y, x = y[number], x[number]
    width = first.shape[1]
    other = (y + dy[offset, 0]) * width + x + dx[offset, 0]
    return y * width + x, other, np.hypot(dy[offset, 0], dx[offset, 0])


def f_measure(precision: Float64[np.ndarray, "*K"] | float, recall: Float64[np.ndarray, "*K"] | float) -> Any:
    """Harmonic mean, of the arguments' shape; 0 where both are 0."""
    return 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).eps)


def score_edges(photos: Sequence[EdgeCounts], thresholds: Float64[np.ndarray, " K"] = THRESHOLDS) -> EdgeScores:
    """The scores of a data set.

    Between thresholds precision and recall are interpolated linearly for the ODS. AP is the benchmark's: precision
    interpolated over recall, 0 for recalls that no threshold reaches (so a detector of one operating point has none),
    101 values divided by 100. R50 is 0 where precision stays below one half, and the recall at the lowest precision
    where it stays above.
    Raises ValueError without photos.
    """
    if not photos:
        raise ValueError("scores need the counts of at least one photo")
    total = sum(photos[1:], photos[0])
    precision, recall = total.precision, total.recall

    place = np.linspace(0, len(thresholds) - 1, 99 * (len(thresholds) - 1) + 1)  # 98 places between two thresholds
    ods_precision, ods_recall, ods_threshold = (
        np.interp(place, np.arange(len(thresholds)), values) for values in (precision, recall, thresholds)
    )
    f = f_measure(ods_precision, ods_recall)
    best = int(f.argmax())

    photos_best = [photo.at(int(photo.f.argmax())) for photo in photos]
    pooled = sum(photos_best[1:], photos_best[0])

    reached, first = np.unique(recall, return_index=True)
    ap = 0.0
    if len(reached) > 1:
        ap = float(np.interp(np.arange(101) / 100, reached, precision[first], left=0, right=0).sum() / 100)
    falling = first[::-1]  # by falling recall: of equal precisions the one with the most recall
    levels, level = np.unique(precision[falling], return_index=True)
    r50 = float(np.interp(0.5, levels, recall[falling][level], right=0))
    return EdgeScores(
        ods=float(f[best]),
        ods_threshold=float(ods_threshold[best]),
        ods_precision=float(ods_precision[best]),
        ods_recall=float(ods_recall[best]),
        ois=float(pooled.f[0]),
        ap=ap,
        r50=r50,
    )


def human_agreement(boundaries: Sequence[Bool[np.ndarray, "_ _"]]) -> EdgeCounts:
    """Each annotator's boundaries of a photo counted against those of the others, summed: one threshold.

    All 0 if there is one annotator. The sum over photos has as its `f` the human figure of the benchmark, published
    as 0.80 for BSDS500.
    """
    nothing = EdgeCounts(*np.zeros((4, 1), np.int64))
    counts = [
        count_edges(
            own.astype(np.float64), [*boundaries[:number], *boundaries[number + 1 :]], thresholds=np.array([0.5])
        )
        for number, own in enumerate(boundaries)
        if len(boundaries) > 1
    ]
    return sum(counts, nothing)
