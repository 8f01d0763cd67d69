import jax
import numpy as np
import pytest

from samjax.ops import boxes


def greedy_nms(rects: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """The algorithm as everybody writes it: take the best, drop what overlaps it, go on."""
    left = sorted(range(len(rects)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if iou(rects[best], rects[i]) <= threshold]
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(np.float32(0), min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = areas[0] + areas[1] - width * height
    return float(width * height / union) if union > 0 else 0.0


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Some small, some large, some empty, with whole-numbered corners so that ties and equal boxes happen."""
    corner = random.integers(0, 60, (count, 2))
    return np.concatenate([corner, corner + random.integers(0, 40, (count, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 0.95])
def test_nms_keeps_what_the_greedy_algorithm_keeps(threshold):
    random = np.random.default_rng(int(100 * threshold))
    assert boxes.BLOCK < 300
    for count in [*random.integers(0, 65, 196).tolist(), 257, 270, 290, 300]:
        rects, scores = random_boxes(random, count), random.integers(0, 20, count).astype(np.float32)
        assert boxes.nms(rects, scores, threshold).tolist() == greedy_nms(rects, scores, threshold)


def test_nms_of_more_boxes_than_a_block_holds_agrees_too():
    random = np.random.default_rng(0)
    rects, scores = random_boxes(random, 900), random.random(900).astype(np.float32)
    assert boxes.BLOCK < 900
    assert boxes.nms(rects, scores, 0.5).tolist() == greedy_nms(rects, scores, 0.5)


def test_a_chain_of_overlaps_is_followed_to_its_end():
    # Each box overlaps the next: every second one goes, which takes as many rounds as there are boxes.
    steps = np.arange(40, dtype=np.float32)
    rects = np.stack([steps * 4, steps * 0, steps * 4 + 10, steps * 0 + 10], 1)
    assert boxes.nms(rects, -steps, 0.4).tolist() == list(range(0, 40, 2))


def test_what_is_not_valid_neither_stays_nor_suppresses():
    rects = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores, valid = np.array([3, 2, 1], np.float32), np.array([False, True, True])
    order, kept = jax.jit(boxes.keep_by_nms)(rects, scores, valid, np.float32(0.5))
    assert order[kept].tolist() == [1, 2]


def test_an_iou_of_exactly_the_threshold_is_judged_as_in_double_precision():
    # 3/10 as float32 is above 0.3, so the second box is a duplicate for torchvision.
    rects = np.array([[0, 0, 10, 1], [0, 0, 3, 1]], np.float32)
    assert boxes.nms(rects, np.array([2, 1], np.float32), 0.3).tolist() == [0]
    assert float(boxes.float32_below(0.3)) < 0.3 < float(np.float32(0.3))
    assert boxes.float32_below(0.5) == np.float32(0.5)
