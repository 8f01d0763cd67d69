"""The whole way from photos of every shape to masks, with the bundled model, whose masks mean something."""

import numpy as np
import pytest
from parity.comparison import CASES, EMBEDDING_BAR, LOGITS_BAR, assert_same_answer, embedding_error, relative_error

from samjax import Prompts

pytestmark = pytest.mark.parity

SHAPES = {
    "wide": lambda photos: photos["truck"],
    "square": lambda photos: photos["truck"][:, 300:1500],
    "tall": lambda photos: photos["dog"][:, 200:500],
    "a strip": lambda photos: photos["groceries"][250:290],
    "tiny": lambda photos: photos["dog"][200:213, 300:320],
    "one pixel": lambda photos: photos["dog"][200:201, 300:301],
}


@pytest.fixture(scope="module", params=SHAPES)
def encoded(request, segment_anything, photos, bundled):
    """A photo that both sides have encoded."""
    reference, sam = bundled
    predictor = segment_anything.SamPredictor(reference)
    photo = np.ascontiguousarray(SHAPES[request.param](photos))
    predictor.set_image(photo)
    return predictor, sam, sam.encode(photo)


def test_embeddings(encoded):
    predictor, _, embedding = encoded
    assert embedding_error(embedding, predictor) <= EMBEDDING_BAR


@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("case", CASES)
def test_every_combination_of_prompts(encoded, case, multimask):
    predictor, sam, embedding = encoded
    assert_same_answer(sam, embedding, predictor, CASES[case], multimask=multimask)


@pytest.mark.filterwarnings("ignore:.*outside the image")
def test_points_outside_the_photo(encoded):
    predictor, sam, embedding = encoded
    height, width = embedding.original_size.tolist()
    points, labels = np.array([[-3.0, height + 40], [width * 1.5, 2]]), np.array([1, 0])
    _, _, logits = predictor.predict(points, labels)
    assert relative_error(sam.predict(embedding, Prompts.of([points], [labels])).logits[0], logits) <= LOGITS_BAR


def test_a_batch_of_boxes(encoded):
    import torch

    predictor, sam, embedding = encoded
    height, width = embedding.original_size.tolist()
    boxes = np.random.default_rng(0).uniform((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), (5, 4))
    boxes *= (width, height, width, height)
    transformed = predictor.transform.apply_boxes_torch(torch.tensor(boxes), (height, width))
    _, iou, logits = predictor.predict_torch(None, None, transformed.float())
    ours = sam.predict(embedding, Prompts.of(boxes=boxes))
    assert relative_error(ours.logits, logits) <= LOGITS_BAR
    assert relative_error(ours.iou, iou) <= LOGITS_BAR


def test_a_prediction_refined_by_its_own_logits(encoded):
    predictor, sam, embedding = encoded
    height, width = embedding.original_size.tolist()
    points, labels = np.array([[0.3 * width, 0.4 * height]]), np.array([1])
    theirs = predictor.predict(points, labels, multimask_output=False)[2]
    ours = sam.predict(embedding, Prompts.of([points], [labels]), multimask=False)
    for _ in range(3):
        theirs = predictor.predict(points, labels, mask_input=theirs, multimask_output=False)[2]
        ours = sam.predict(embedding, Prompts.of([points], [labels], masks=ours.logits[:, 0]), multimask=False)
    assert relative_error(ours.logits[0], theirs) <= LOGITS_BAR
