"""The same proposals from a model however it is asked."""

import numpy as np
import pytest
from example_models import random_photo, shapes_photo, shapes_sam

from samjax import SamPredictor
from samjax.evaluation.protocol import Object, Sample
from samjax.evaluation.protocols.proposals import Proposals
from samjax.evaluation.segmenters import PredictorSegmenter, SamSegmenter
from samjax.ops.rle import encode_rle, rle_area, rle_iou

GRID = 6  # points a side


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
