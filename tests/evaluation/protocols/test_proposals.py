"""Average recall as pycocotools has it, and the same proposals from a model however it is asked."""

import contextlib
import io

import numpy as np
import pytest
from example_models import random_photo, shapes_photo, shapes_sam
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samjax import SamPredictor
from samjax.evaluation.protocol import Object, Sample
from samjax.evaluation.protocols.proposals import Proposals, average_recall, count_matches
from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter
from samjax.ops.rle import encode_rle, rle_area, rle_iou

HEIGHT, WIDTH, PHOTOS = 150, 200, 4
GRID = 6  # points a side


def disc(x: float, y: float, radius: float) -> dict:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return encode_rle((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


@pytest.fixture(scope="module")
def scene() -> list[tuple[list[dict], list[dict], np.ndarray]]:
    """By photo: objects, proposals, scores. Some proposals are near an object, most are not; one photo has nothing
    annotated, and one no proposals."""
    random = np.random.default_rng(1)
    photos = []
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
        photos.append((truth, proposals, scores))
    return photos


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


def test_average_recall_is_that_of_pycocotools(scene):
    ours = average_recall([count_matches(*photo) for photo in scene])
    expected = by_pycocotools(scene)
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.02 < ours["AR@10"] < ours["AR@100"] < ours["AR@1000"] < 0.8
    assert len({round(value, 6) for value in ours.values()}) == 6


def test_what_is_found_perfectly_has_recall_1_whatever_comes_first(scene):
    records = []
    for truth, proposals, _ in scene:
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


class Empty:
    """Answers every prompt with three masks of which one is empty."""

    def set_image(self, image):
        self.size = image.shape[:2]

    def predict(self, point_coords, point_labels, box, mask_input, multimask_output):
        x, y = point_coords[0]
        masks = np.zeros((3, *self.size), bool)
        masks[0, int(y), int(x)] = True
        masks[1, : int(y) + 1, : int(x) + 1] = True
        return masks, np.array([0.5, 0.7, 0.9]), np.full((3, 16, 16), 2, np.float32)


def sample(rgb: np.ndarray, masks: list[np.ndarray]) -> Sample:
    return Sample("photo", rgb, tuple(Object(encode_rle(mask), number) for number, mask in enumerate(masks)))


def test_any_predictor_gives_proposals_of_which_none_is_empty():
    masks, scores = Proposals(4, 0.99).propose(PredictorSegmenter(Empty()), sample(random_photo(20, 30), []))
    assert len(masks) == len(scores) == 32
    assert min(map(rle_area, masks)) == 1
    assert sorted(set(scores.round(6))) == [0.75, 0.85]  # the mean with a stability of 1


@pytest.fixture(scope="module")
def shapes() -> Sample:
    return sample(*shapes_photo(100, 140, seed=3))


@pytest.fixture(scope="module")
def trained():
    return SamSegmenter(shapes_sam())


def test_a_trained_model_finds_what_it_has_learnt_to(trained, shapes):
    protocol = Proposals(GRID)
    summary = protocol.summarise(protocol.judge(trained, [shapes, shapes]))
    assert summary.metrics["objects"] == 2 * len(shapes.objects)
    assert 0.6 < summary.metrics["AR@1000"] <= 1
    assert 20 < summary.metrics["proposals per photo"] <= 108


def test_no_quality_filter_and_suppression_by_boxes(trained, shapes):
    few, _ = Proposals(GRID, 0.3).propose(trained, shapes)
    many, scores = Proposals(GRID, 0.9).propose(trained, shapes)
    assert len(few) < len(many)
    assert scores.min() < 0.6  # mask generation would drop it


def test_a_predictor_of_the_same_model_gives_the_same_proposals(trained, shapes):
    """One goes through samjax.amg, the other prompt by prompt through Meta's interface."""
    protocol = Proposals(GRID)
    ours, our_scores = protocol.propose(trained, shapes)
    theirs, their_scores = protocol.propose(PredictorSegmenter(SamPredictor(trained.sam)), shapes)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(np.sort(our_scores), np.sort(their_scores), atol=1e-4)
    assert rle_iou(ours, theirs).max(1).min() > 0.995


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"points_per_side": 0}, "points per side and per batch are at least 1"),
        ({"points_per_batch": 0}, "points per side and per batch are at least 1"),
        ({"nms_threshold": 0.0}, "an IoU above 0 and up to 1, got 0.0"),
        ({"nms_threshold": 1.5}, "an IoU above 0 and up to 1, got 1.5"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        Proposals(**arguments)
