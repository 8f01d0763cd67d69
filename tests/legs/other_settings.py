"""samjax under settings of JAX that a program may have chosen gives what it gives without them.

`make legs` runs this file with JAX_ENABLE_X64 and with JAX_DISABLE_JIT in the environment; its name is not a test
file's, because without them it compares nothing.
"""

import json

import jax
import numpy as np
import pytest
from example_models import random_photo, random_sam
from example_training import PICO

from samjax import Prompts, SamAutomaticMaskGenerator, SamPredictor
from samjax.ops import boxes
from samjax.segment import Request, segment
from samjax.sharding import batch_sharding, make_mesh
from samjax.writers.answers import write_answer

PHOTO = random_photo(40, 60)


def with_defaults(run):
    with jax.enable_x64(False), jax.disable_jit(False):
        return run()


def assert_same(run):
    """Dtypes and shapes are equal, masks too, and numbers but for rounding."""
    found, expected = jax.tree.leaves(run()), jax.tree.leaves(with_defaults(run))
    assert [np.asarray(leaf).dtype for leaf in found] == [np.asarray(leaf).dtype for leaf in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if np.asarray(theirs).dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def sam():
    return with_defaults(lambda: random_sam(PICO))


def test_a_setting_is_on():
    assert jax.config.jax_enable_x64 or jax.config.jax_disable_jit


def test_a_photo(sam):
    def run():
        embedding = sam.encode(PHOTO)
        prompts = Prompts.of([[[30, 20]], [[10, 8], [50, 33]]], boxes=[None, [5, 4, 50, 30]])
        prediction = sam.predict(embedding, prompts)
        masked = Prompts.of([[[30, 20]]], masks=[prediction.logits[0, 0]])
        refined = sam.predict(embedding, masked, multimask=False)
        return embedding, prediction, refined, sam.masks(refined, embedding)

    assert_same(run)


def test_a_batch_on_a_mesh(sam):
    def run():
        sharding = batch_sharding(make_mesh(devices=jax.devices()[:1]))
        embeddings = sam.encode_batch([PHOTO, PHOTO[:20]], sharding)
        prompts = Prompts.batch([Prompts.of([[[30, 20]]]), Prompts.of(boxes=[[5, 4, 50, 19]])])
        return sam.encode_batch([PHOTO, PHOTO[:20]]), sam.predict_batch(embeddings, prompts)

    assert_same(run)


def test_a_predictor(sam):
    def run():
        predictor = SamPredictor(sam)
        predictor.set_image(PHOTO)
        answer = predictor.predict(np.array([[30, 20]]), np.ones(1, int))
        return answer, predictor.predict_torch(None, None, np.array([[[4, 3, 20, 18]]])), predictor.features

    assert_same(run)


@pytest.mark.parametrize("options", [{}, {"nms": "mask", "crop_n_layers": 1}, {"tile": 24}])
def test_everything_in_a_photo(sam, options):
    everything = {"points_per_side": 2, "pred_iou_thresh": -10.0, "stability_score_thresh": -1.0}
    generator = SamAutomaticMaskGenerator(sam, **everything, **options)
    records = generator.generate(PHOTO)
    expected = with_defaults(lambda: generator.generate(PHOTO))
    assert len(records) == len(expected) > 0
    for ours, theirs in zip(records, expected, strict=True):
        np.testing.assert_array_equal(ours["segmentation"], theirs["segmentation"])
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], rel=1e-4, abs=1e-4)


def test_suppression_of_boxes():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 50, (40, 2))
    candidates = np.hstack([corners, corners + random.uniform(5, 30, (40, 2))]).astype(np.float32)
    assert_same(lambda: boxes.nms(candidates, np.linspace(0, 1, 40, dtype=np.float32), 0.3))


def test_files_of_a_segmentation(sam, tmp_path):
    request = Request(points=((30.0, 20.0, 1),))

    def run(folder):
        folder.mkdir()
        answer = segment(sam, PHOTO, sam.encode(PHOTO), request, multimask=True)
        return write_answer(folder, "photo", PHOTO, request, answer, {})

    found, expected = run(tmp_path / "set"), with_defaults(lambda: run(tmp_path / "default"))
    masks = [[file for file in files if "_mask_" in file.name] for files in (found, expected)]
    assert len(masks[0]) == 3
    for ours, theirs in zip(*masks, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    scores = [
        [record["predicted_iou"] for record in json.loads(files[-1].read_text())["masks"]]
        for files in (found, expected)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4, abs=1e-4)
