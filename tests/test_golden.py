"""The reference's answers, kept in files so that parity is checked without torch, too (see golden/make.py)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, faint, random_sam
from golden.make import FOLDER, NON_SQUARE, PHOTOS, cases_of, non_square_pixels
from parity.comparison import CASES, EMBEDDING_BAR, IOU_BAR, LOGITS_BAR, MASK_BAR, prompts_of, relative_error

from samjax.model import jitted_encode


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "small.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def embeddings(sam):
    return {name: sam.encode(photo) for name, photo in PHOTOS.items()}


@pytest.mark.parametrize("photo", PHOTOS)
def test_embeddings_are_the_references(golden, embeddings, photo):
    assert relative_error(embeddings[photo].features, golden[f"{photo}/features"]) <= EMBEDDING_BAR


@pytest.mark.parametrize(("photo", "case"), [(photo, case) for photo in PHOTOS for case in cases_of(photo)])
def test_predictions_are_the_references(golden, embeddings, sam, photo, case):
    size = PHOTOS[photo].shape[:2]
    prompts = prompts_of(CASES[case].arguments(size, SMALL.mask_size))
    prediction = sam.predict(embeddings[photo], prompts, multimask=photo == "wide")
    expected = {name: golden[f"{photo}/{case}/{name}"] for name in ("logits", "iou", "masks")}
    assert relative_error(prediction.logits[0], expected["logits"]) <= LOGITS_BAR
    assert relative_error(prediction.iou[0], expected["iou"]) <= IOU_BAR
    masks = sam.masks(prediction, embeddings[photo])[0]
    assert (masks.ravel() == np.unpackbits(expected["masks"], count=masks.size)).mean() >= MASK_BAR


def test_a_network_resized_to_a_grid_that_is_not_square_is_the_references(golden):
    model = random_sam().with_image_size(NON_SQUARE)
    features = jitted_encode(model.config, model.params, jnp.asarray(non_square_pixels()), model.execution).image
    assert relative_error(features, golden["non-square/features"]) <= EMBEDDING_BAR


def test_the_epsilons_of_all_norms_are_the_references(golden, sam):
    """With parameters so small that an epsilon of 1e-5 instead of 1e-6 shows."""
    model = dataclasses.replace(sam, params=faint(sam.params))
    embedding = model.encode(PHOTOS["wide"])
    assert relative_error(embedding.features, golden["faint/features"]) <= EMBEDDING_BAR
    prompts = prompts_of(CASES["all together"].arguments(PHOTOS["wide"].shape[:2], SMALL.mask_size))
    prediction = model.predict(embedding, prompts, multimask=False)
    assert relative_error(prediction.logits[0], golden["faint/logits"]) <= LOGITS_BAR
    assert relative_error(prediction.iou[0], golden["faint/iou"]) <= IOU_BAR


def test_the_golden_files_are_small():
    assert sum(file.stat().st_size for file in FOLDER.glob("*.npz")) < 300_000
