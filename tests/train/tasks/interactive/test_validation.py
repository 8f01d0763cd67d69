"""Validation: the same answers as the public model gives, and the mean of exactly the masks that count."""

import itertools
import json
import os

import jax
import numpy as np
import pytest
from example_batches import photos
from example_models import shapes_sam

RATIO = 2  # of the model of shapes


def unpack(cells):
    from samjax.train.batch import unpack_cells

    return unpack_cells(cells, RATIO)


@pytest.fixture(scope="module")
def model():
    return shapes_sam()


@pytest.fixture(scope="module")
def batch():
    return photos()


@pytest.fixture(scope="module")
def answers(model, batch):
    from samjax.train.tasks.interactive.validation import answers

    return list(answers(model.config, model.params, batch, model.execution, 5))


def test_the_answers_are_those_of_the_public_model_to_the_same_prompts(model, batch, answers):
    """The model is given the prompts as a user would give them, in the photo's own frame."""
    from samjax import Prompts

    assert [answer.clicks for answer in answers] == [1, 2, 3, 4, 5, 0]
    for image in np.flatnonzero(batch.valid.any(1)):
        height, width = batch.size[image].tolist()
        embedding = model.encode(batch.image[image, :height, :width])
        slots = np.flatnonzero(batch.valid[image])
        targets = unpack(batch.cells[image, slots])[:, :height, :width]
        carried = None
        for answer in (*answers[:2], answers[-1]):
            points, labels = answer.points[image, slots], answer.labels[image, slots]
            if answer.clicks:
                used = labels[0] >= 0  # all of them or none, unless a mask were perfect
                points, labels = points[:, used], labels[:, used]
                prompts = Prompts.of(points, labels, masks=carried)
            else:
                corners = [(where.min(0)[::-1], where.max(0)[::-1]) for where in map(np.argwhere, targets)]
                np.testing.assert_array_equal(points, np.array(corners))
                prompts = Prompts.of(boxes=points.reshape(-1, 4))
            prediction = model.predict(embedding, prompts, multimask=answer.clicks == 1)
            best = prediction.iou.argmax(-1), np.arange(len(slots))
            carried = prediction.logits[best[::-1]]
            masks = np.moveaxis(model.masks(prediction, embedding), 1, 0)  # of each prompt to each of its outputs
            iou = (masks & targets).sum((-2, -1)) / (masks | targets).sum((-2, -1))
            found = unpack(answer.mask[image, slots])
            assert not found[:, height:].any()
            assert not found[:, :, width:].any()
            assert (found[:, :height, :width] == masks[best]).mean() > 0.999
            np.testing.assert_allclose(answer.iou[image, slots], iou[best], atol=0.02)
            np.testing.assert_allclose(answer.best_iou[image, slots], iou.max(0), atol=0.02)
            np.testing.assert_allclose(answer.predicted_iou[image, slots], prediction.iou[best[::-1]], atol=1e-3)


def test_clicks_go_where_the_mask_before_is_wrong(batch, answers):
    for image, slot in np.argwhere(batch.valid):
        target = unpack(batch.cells[image, slot])
        x, y = answers[0].points[image, slot, 1].astype(int)
        assert target[y, x]
        for before, after in itertools.pairwise(answers[:-1]):
            label = after.labels[image, slot, -1]
            wrong = unpack(before.mask[image, slot]) ^ target
            assert (label >= 0) == wrong.any()
            if label >= 0:
                x, y = after.points[image, slot, -1].astype(int)
                assert wrong[y, x]
                assert target[y, x] == (label == 1)


@pytest.fixture(scope="module")
def scores(model, batch):
    from samjax.train.tasks.interactive.validation import validate

    return validate(model.config, model.params, [batch], model.execution, clicks=(1, 5))


def test_the_means_are_over_valid_masks(batch, answers, scores):
    by_clicks = {answer.clicks: answer for answer in answers}
    mean = {clicks: float(answer.iou[batch.valid].mean()) for clicks, answer in by_clicks.items()}
    apart = [np.abs(by_clicks[n].predicted_iou - by_clicks[n].iou)[batch.valid].mean() for n in (1, 5, 0)]
    expected = {
        "iou": np.mean([mean[1], mean[5], mean[0]]),
        "iou_1": mean[1],
        "iou_1_oracle": by_clicks[1].best_iou[batch.valid].mean(),
        "iou_5": mean[5],
        "iou_box": mean[0],
        "iou_distance": np.mean(apart),
        "masks": batch.valid.sum(),
    }
    assert scores == pytest.approx(expected, abs=1e-5)


def test_a_model_that_has_learnt_its_pictures_scores_well(scores):
    assert scores["iou_1"] > 0.8  # it was trained with single points only
    assert scores["iou_1_oracle"] >= scores["iou_1"]


def test_rows_that_only_pad_contribute_nothing(model, batch, scores):
    from samjax.train.tasks.interactive.validation import validate

    empty = jax.tree.map(np.copy, batch)
    empty.valid[:] = False
    half = jax.tree.map(np.copy, batch)
    half.valid[1:] = False
    other = jax.tree.map(np.copy, batch)
    other.valid[0] = False
    again = validate(model.config, model.params, [half, empty, other], model.execution, clicks=(1, 5))
    assert again == pytest.approx(scores, abs=1e-5)
    with pytest.raises(ValueError, match="no valid mask to validate on"):
        validate(model.config, model.params, [empty], model.execution)


def test_clicks_start_at_one(model, batch):
    from samjax.train.tasks.interactive.validation import validate

    with pytest.raises(ValueError, match="at least one click, got 0"):
        validate(model.config, model.params, [batch], model.execution, clicks=(0,))


MESH = """
import sys, dataclasses, json
sys.path.insert(0, "tests")
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from example_models import shapes_sam
from example_batches import photos
from samjax.train.tasks.interactive.validation import validate
model, batch = shapes_sam(), photos()
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "tensor"))
def place(leaf):
    last = leaf.ndim > 1 and leaf.shape[-1] % 2 == 0
    return jax.device_put(leaf, NamedSharding(mesh, P(*[None] * (leaf.ndim - 1), "tensor") if last else P()))
params, batch = jax.tree.map(place, model.params), jax.device_put(batch, NamedSharding(mesh, P("data")))
execution = dataclasses.replace(model.execution, images_per_step=None)
print(json.dumps(validate(model.config, params, [batch], execution, clicks=(1,))))
"""


@pytest.mark.heavy
def test_a_mesh_gives_the_same_scores(run_python, root, monkeypatch, scores):
    monkeypatch.chdir(root)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    spread = json.loads(run_python(MESH, XLA_FLAGS=flags, JAX_PLATFORMS="cpu"))
    for name in ("iou_1", "iou_1_oracle", "iou_box", "masks"):
        assert spread[name] == pytest.approx(scores[name], abs=1e-3)
