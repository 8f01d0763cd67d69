"""The boundary benchmark against hand-counted maps and against an assignment solved in full."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from samjax.evaluation.metrics.edge_scores import (
    EdgeCounts,
    count_edges,
    human_agreement,
    match_edges,
    score_edges,
)


def blank(*pixels: tuple[int, int], size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """A map of (y, x) pixels; the diagonal of 40 x 30 is 50."""
    edges = np.zeros(size, bool)
    for pixel in pixels:
        edges[pixel] = True
    return edges


def counts_of(*rows: tuple[int, int, int, int]) -> EdgeCounts:
    return EdgeCounts(*np.array(rows).T)


def full_assignment(first: np.ndarray, second: np.ndarray, radius: float) -> tuple[int, float]:
    """How many pairs the cheapest assignment has and what they cost, from a dense square cost matrix as in
    `correspondPixels`: a column (row) for each pixel's having no partner."""
    a, b = np.argwhere(first), np.argwhere(second)
    distance = np.rint(100 * np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)))
    outlier = np.ceil(100 * radius * 100)
    cost = np.full((len(a) + len(b),) * 2, outlier)
    cost[: len(a), : len(b)] = np.where(distance > 100 * radius, 10 * outlier, distance)
    rows, columns = linear_sum_assignment(cost)
    paired = (rows < len(a)) & (columns < len(b))
    return paired.sum(), cost[rows, columns][paired].sum()


def test_pixels_within_the_tolerance_are_partners():
    ours, theirs = match_edges(blank((10, 10)), blank((10, 13)), tolerance=3 / 50)
    assert ours[10, 10]
    assert theirs[10, 13]
    assert ours.sum() == theirs.sum() == 1


def test_pixels_beyond_the_tolerance_are_not():
    ours, theirs = match_edges(blank((10, 10)), blank((10, 13)), tolerance=2.99 / 50)
    assert not ours.any()
    assert not theirs.any()


def test_one_drawn_pixel_is_found_once_and_by_the_nearest():
    ours, theirs = match_edges(blank((10, 10), (10, 12)), blank((10, 11), (30, 5)), tolerance=3 / 50)
    assert ours.sum() == 1
    assert theirs.sum() == 1
    ours, _ = match_edges(blank((10, 8), (10, 12), (10, 14)), blank((10, 11)), tolerance=5 / 50)
    assert np.argwhere(ours).tolist() == [[10, 12]]


def test_more_pairs_are_better_than_nearer_ones():
    # 10 lies on 10, but then 12 would have nobody: its only other choice, 9, is too far.
    ours, theirs = match_edges(blank((5, 10), (5, 12)), blank((5, 10), (5, 8)), tolerance=2 / 50)
    assert ours.sum() == theirs.sum() == 2


@pytest.mark.parametrize("together", [1, 30, 1000])
def test_matching_costs_what_the_full_assignment_costs(monkeypatch, together):
    monkeypatch.setattr("samjax.evaluation.metrics.edge_scores.PAIRS_TOGETHER", together)
    random = np.random.default_rng(0)
    for _ in range(15):
        first, second = random.random((2, 24, 32)) < random.uniform(0.02, 0.15, (2, 1, 1))
        ours, theirs = match_edges(first, second, tolerance=2.5 / 40)
        assert not (ours & ~first).any()
        assert not (theirs & ~second).any()
        pairs, cost = full_assignment(first, second, 2.5)
        assert ours.sum() == theirs.sum() == pairs
        # The partners chosen can be paired at the least cost of all choices.
        assert full_assignment(ours, theirs, 2.5) == (pairs, cost)


def test_recall_sums_over_annotators_and_precision_takes_any():
    line = blank(*[(20, x) for x in range(5, 25)])
    other = blank(*[(y, 2) for y in range(3, 13)])
    edges = np.where(line, 0.8, 0.0)
    edges[35, 10:15] = 0.4  # nobody drew this
    counts = count_edges(edges, [line, other, line], thresholds=np.array([0.3, 0.5, 0.9]))
    assert counts.drawn.tolist() == [50, 50, 50]
    assert counts.found.tolist() == [40, 40, 0]
    assert counts.predicted.tolist() == [25, 20, 0]
    assert counts.right.tolist() == [20, 20, 0]
    assert counts.precision == pytest.approx([0.8, 1, 0])
    assert counts.recall == pytest.approx([0.8, 0.8, 0])


def test_thick_edges_are_thinned_before_they_are_counted():
    edges = np.zeros((40, 30))
    edges[18:23, 4:26] = 1
    counts = count_edges(edges, [blank(*[(20, x) for x in range(4, 26)])], thresholds=np.array([0.5]))
    assert 18 <= counts.predicted[0] <= 22
    assert counts.precision[0] == 1


def test_pixels_that_reach_a_threshold_exactly_count():
    edges = blank((20, 10)) * 0.2
    assert count_edges(edges, [blank((20, 10))]).found.tolist() == [1] * 20 + [0] * 79


def test_truth_itself_has_f_one_at_every_threshold():
    random = np.random.default_rng(1)
    truth = np.zeros((60, 80), bool)
    truth[random.integers(0, 60, 5)] = True
    truth[:, random.integers(0, 80, 5)] = True
    counts = count_edges(truth.astype(np.float32), [truth])
    scores = score_edges([counts])
    assert counts.f == pytest.approx(np.ones(99))
    assert (scores.ods, scores.ois, scores.r50) == (1, 1, 1)


def test_the_best_threshold_of_the_set_may_lie_between_two():
    # P and R cross half-way: 1 - t and t, so 2 t (1 - t) is largest at t = 1/2, where F = 0.5.
    counts = counts_of((100, 100, 0, 100), (0, 100, 100, 100))
    scores = score_edges([counts], np.array([0.2, 0.4]))
    assert scores.ods == pytest.approx(0.5, abs=1e-4)
    assert scores.ods_threshold == pytest.approx(0.3, abs=0.002)


def test_each_photo_has_a_best_threshold_of_its_own():
    first, second = counts_of((9, 10, 9, 10), (1, 10, 1, 1)), counts_of((4, 10, 4, 40), (8, 10, 8, 8))
    scores = score_edges([first, second], np.array([0.3, 0.6]))
    # (9 + 8) of 20 drawn, (9 + 8) of 18 predicted.
    recall, precision = 17 / 20, 17 / 18
    assert scores.ois == pytest.approx(2 * recall * precision / (recall + precision))
    assert scores.ods < scores.ois


def test_average_precision_and_recall_at_half_precision_by_hand():
    # Recall 0.8, 0.4, 0.2 at precision 0.25, 0.75, 1.
    scores = score_edges([counts_of((8, 10, 8, 32), (4, 10, 3, 4), (2, 10, 2, 2))], np.array([0.1, 0.5, 0.9]))
    # 0 below recall 0.2 and above 0.8; trapezoids between, whose both ends are among the 101 values.
    sums = sum(np.linspace(1, 0.75, 21)) + sum(np.linspace(0.75, 0.25, 41)[1:])
    assert scores.ap == pytest.approx(sums / 100)
    assert scores.r50 == pytest.approx(0.6)


def test_precision_that_never_falls_to_half_gives_the_recall_where_it_is_lowest():
    assert score_edges([counts_of((8, 10, 9, 10), (4, 10, 5, 5))], np.array([0.1, 0.9])).r50 == pytest.approx(0.8)
    assert score_edges([counts_of((8, 10, 3, 10), (4, 10, 2, 5))], np.array([0.1, 0.9])).r50 == 0


def test_of_equal_precisions_the_one_with_most_recall_counts():
    assert score_edges([counts_of((8, 10, 4, 8), (4, 10, 2, 4))], np.array([0.1, 0.9])).r50 == pytest.approx(0.8)


def test_people_agree_as_far_as_they_draw_the_same():
    line, far = blank(*[(20, x) for x in range(10)]), blank(*[(5, x) for x in range(20)])
    # 10 + 10 drawn and found; 20 + 10 drawn and none found; no other.
    for photo, numbers in (([line, line], (20, 20, 20, 20)), ([line, far], (0, 30, 0, 30)), ([far], (0, 0, 0, 0))):
        counts = human_agreement(photo)
        assert (counts.found[0], counts.drawn[0], counts.right[0], counts.predicted[0]) == numbers


def boundaries(folder, name: str) -> list[np.ndarray]:
    from scipy.io import loadmat

    annotators = loadmat(folder / f"{name}.mat")["groundTruth"][0]
    return [annotator["Boundaries"][0, 0].astype(bool) for annotator in annotators]


def test_a_persons_own_drawing_of_a_real_photo_has_f_one(test_data):
    drawn = boundaries(test_data / "bsds500/groundTruth/val", "101085")[0]
    counts = count_edges(drawn.astype(np.float64), [drawn], thresholds=np.array([0.5]))
    # Thinning takes a few corner pixels, which is why it is not exactly all of them.
    assert counts.precision[0] == 1
    assert counts.recall[0] > 0.98


def test_people_agree_on_a_real_photo(test_data):
    counts = human_agreement(boundaries(test_data / "bsds500/groundTruth/val", "101087"))
    assert 0.7 < counts.f[0] < 0.9


def test_maps_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match="none were given"):
        count_edges(np.zeros((4, 4)), [])
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 5\)"):
        count_edges(np.zeros((4, 4)), [np.zeros((4, 5), bool)])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0 to 255"):
        count_edges(np.eye(4) * 255, [np.eye(4, dtype=bool)])
    with pytest.raises(ValueError, match="at least one photo"):
        score_edges([])
