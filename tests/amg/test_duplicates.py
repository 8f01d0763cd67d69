import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samjax.amg.duplicates import mask_nms
from samjax.ops.rle import encode_rle


def greedy(masks: np.ndarray, scores: np.ndarray, iou: float, containment: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        both = [(masks[i] & masks[k]).sum() for k in kept]
        union = [(masks[i] | masks[k]).sum() for k in kept]
        smaller = [min(masks[i].sum(), masks[k].sum()) for k in kept]
        over = [b > iou * u or b > containment * s for b, u, s in zip(both, union, smaller, strict=True)]
        if not any(over):
            kept.append(int(i))
    return kept


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.31, 0.5, 0.77]), st.sampled_from([0.61, 0.9, 1.0]))
def test_the_greedy_algorithm_is_followed(seed, iou, containment):
    random = np.random.default_rng(seed)
    masks = np.zeros((12, 20, 20), bool)
    for mask in masks[1:]:  # the first one stays empty
        y, x = random.integers(0, 16, 2)
        part = mask[y : y + random.integers(1, 14), x : x + random.integers(1, 14)]
        part[:] = random.random(part.shape) < 0.9
    scores = random.integers(0, 5, 12) / 4
    assert mask_nms([encode_rle(m) for m in masks], scores, iou, containment).tolist() == greedy(
        masks, scores, iou, containment
    )


def test_the_greedy_algorithm_is_followed_across_blocks(monkeypatch):
    monkeypatch.setattr("samjax.amg.duplicates.BLOCK", 5)
    random = np.random.default_rng(0)
    masks = np.zeros((60, 20, 20), bool)
    for mask in masks:
        y, x = random.integers(0, 14, 2)
        mask[y : y + random.integers(1, 12), x : x + random.integers(1, 12)] = True
    scores, rles = random.integers(0, 9, 60) / 8, [encode_rle(mask) for mask in masks]
    assert mask_nms(rles, scores, 0.5, 0.9).tolist() == greedy(masks, scores, 0.5, 0.9)


@pytest.fixture
def nested() -> list[dict]:
    whole, part, apart = np.zeros((3, 50, 50), bool)
    whole[5:45, 5:45] = True
    part[10:20, 10:20] = True
    apart[46:, 46:] = True
    return [encode_rle(mask) for mask in (whole, part, apart)]


def test_a_part_within_a_better_whole_is_a_duplicate(nested):
    assert mask_nms(nested, np.array([3.0, 2, 1]), 0.7, 0.9).tolist() == [0, 2]


def test_a_whole_around_a_better_part_is_a_duplicate(nested):
    assert mask_nms(nested, np.array([2.0, 3, 1]), 0.7, 0.9).tolist() == [1, 2]


def test_containment_can_be_turned_off(nested):
    assert mask_nms(nested, np.array([3.0, 2, 1]), 0.7, 1.0).tolist() == [0, 1, 2]


def test_boxes_that_overlap_do_not_make_masks_duplicates():
    ring, core = np.zeros((2, 50, 50), bool)
    ring[5:45, 5:45] = True
    ring[8:42, 8:42] = False
    core[8:42, 8:42] = True
    assert len(mask_nms([encode_rle(ring), encode_rle(core)], np.array([1.0, 1]), 0.5, 0.5)) == 2


def test_no_masks_have_no_duplicates():
    assert mask_nms([], np.zeros(0), 0.5, 0.5).tolist() == []
