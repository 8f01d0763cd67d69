"""Average recall as pycocotools has it."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samjax.evaluation.metrics.average_recall import average_recall, count_matches
from samjax.ops.rle import encode_rle, rle_area

HEIGHT, WIDTH, PHOTOS = 150, 200, 4


def disc(x: float, y: float, radius: float) -> dict:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return encode_rle((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


@pytest.fixture(scope="module")
def photos() -> list[tuple[list[dict], list[dict], np.ndarray]]:
    """By photo: objects, proposals, scores. Some proposals are near an object, most are not; one photo has nothing
    annotated, and one no proposals."""
    random = np.random.default_rng(1)
    found = []
    for number in range(PHOTOS):
        truth, proposals = [], []
        for _ in range(0 if number == 2 else 7):
            x, y, radius = random.uniform(60, 140), random.uniform(60, 90), random.choice([7, 12, 30, 70])
            truth.append(disc(x, y, radius))
            for _ in range(0 if number == 3 else 4):
                moved = random.normal(0, 1.5, 2)
                proposals.append(disc(x + moved[0], y + moved[1], radius * random.uniform(0.7, 1.35)))
        if number != 3:
            proposals += [disc(*random.uniform(0, 150, 2), random.uniform(3, 20)) for _ in range(120)]
        proposals = [proposal for proposal in proposals if rle_area(proposal)]
        scores = np.round(random.random(len(proposals)), 2)  # some are equal
        found.append((truth, proposals, scores))
    return found


def by_pycocotools(photos) -> dict[str, float]:
    """The recalls of one evaluation of all photos together."""
    images = [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(PHOTOS)]
    truth, results = [], []
    for number, (objects, proposals, scores) in enumerate(photos):
        for mask in objects:
            entry = {"id": len(truth) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            truth.append({**entry, "segmentation": mask, "area": rle_area(mask)})
        for mask, score in zip(proposals, scores, strict=True):
            results.append({"image_id": number, "category_id": 1, "segmentation": mask, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "segm")
        judge.params.useCats = 0
        judge.params.maxDets = [10, 100, 1000]
        judge.evaluate()
        judge.accumulate()
    recall = judge.eval["recall"].mean(0)[0]  # (area, count)
    return {
        **{f"AR@{count}": recall[0, column] for column, count in enumerate((10, 100, 1000))},
        **{f"AR@1000 {area}": recall[row, 2] for row, area in enumerate(("small", "medium", "large"), 1)},
    }


def test_average_recall_is_that_of_pycocotools(photos):
    ours = average_recall([count_matches(*photo) for photo in photos])
    expected = by_pycocotools(photos)
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.02 < ours["AR@10"] < ours["AR@100"] < ours["AR@1000"] < 0.8
    assert len({round(value, 6) for value in ours.values()}) == 6


def test_what_is_found_perfectly_has_recall_1_whatever_comes_first(photos):
    records = []
    for truth, proposals, _ in photos:
        masks = [*proposals, *truth]
        records.append(count_matches(truth, masks, -np.arange(float(len(masks)))))
    assert average_recall(records)["AR@1000"] == pytest.approx(1.0)
    assert average_recall(records)["AR@10"] < 0.6


def test_a_recall_of_nothing_is_not_a_number():
    recalls = average_recall([count_matches([], [], np.zeros(0))])
    assert all(map(np.isnan, recalls.values()))


def test_an_object_is_found_once():
    mask = disc(50, 50, 20)
    found = count_matches([mask], [mask, mask], np.array([0.9, 0.8]))
    assert found["objects"] == {"all": 1, "small": 0, "medium": 1, "large": 0}
    assert found["found"]["all"] == [[1] * 10] * 3
    assert found["found"]["small"] == [[0] * 10] * 3


def test_an_object_is_found_at_the_thresholds_that_the_overlap_reaches():
    whole, part = np.zeros((2, 120, 10), bool)
    whole[:100], part[:57] = True, True
    found = count_matches([encode_rle(whole)], [encode_rle(part)], np.ones(1))
    assert found["found"]["all"] == [[1, 1, *[0] * 8]] * 3
