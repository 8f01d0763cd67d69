"""Losses of queries against objects, and their gradients, beside `transformers`' own on the same points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.comparison import relative_error

from samjax.train.tasks.instances.losses import (
    Answers,
    Objects,
    SetLossConfig,
    draw_points,
    loss_counts,
    loss_sums,
    match,
    total,
)

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # of libraries that are not ours
CONFIG = SetLossConfig(points=40)
CLASSES, QUERIES, LAYERS = 4, 7, 2
COUNTS = (3, 0, 5)  # objects of the images, in 5 slots each


def drawn():
    """Answers of three images after three layers, and objects of which the second image has none."""
    random = np.random.RandomState(0)
    images, slots = len(COUNTS), max(COUNTS)
    class_logits = random.standard_normal((images, LAYERS, QUERIES, CLASSES + 1)).astype(np.float32)
    mask_logits = 3 * random.standard_normal((images, LAYERS, QUERIES, 6, 8)).astype(np.float32)
    classes = random.randint(0, CLASSES, (images, slots)).astype(np.int32)
    masks = random.random_sample((images, slots, 12, 16)) > 0.6
    valid = np.arange(slots)[None] < np.array(COUNTS)[:, None]
    return Answers(class_logits, mask_logits), Objects(classes, masks, valid)


@jax.jit
def ours(answers, objects, keys):
    def loss(answers):
        sums = loss_sums(CONFIG, answers, objects, keys)
        return total(CONFIG, sums, loss_counts(CONFIG, objects.valid, QUERIES))

    return jax.value_and_grad(loss)(answers)


@jax.jit
def points_and_matches(answers, objects, keys):
    """By image and layer."""

    def one(answer, objects, key, layer):
        points = draw_points(CONFIG, jax.random.fold_in(key, layer), max(COUNTS))
        return points, match(CONFIG, answer, objects, points.matching)

    over_layers = jax.vmap(one, (0, None, None, 0))
    return jax.vmap(over_layers, (0, 0, 0, None))(answers, objects, keys, jnp.arange(LAYERS))


def in_the_order_of_torch(points, matches):
    """The random numbers that `Mask2FormerLoss` asks for: the last layer first, matched objects by their queries."""
    for layer in (LAYERS - 1, *range(LAYERS - 1)):
        yield from (points.matching[image, layer][None] for image in range(len(COUNTS)))
        order = [
            (image, slot)
            for image in range(len(COUNTS))
            for slot in sorted(range(COUNTS[image]), key=lambda slot, image=image: matches[image, layer, slot])
        ]
        for of_objects in (points.candidates, points.random):
            yield np.stack([of_objects[image, layer, slot] for image, slot in order])


def test_losses_and_gradients(monkeypatch):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    answers, objects = drawn()
    keys = jax.random.split(jax.random.key(0), len(COUNTS))
    points, matches = jax.tree.map(np.asarray, points_and_matches(answers, objects, keys))
    numbers = in_the_order_of_torch(points, matches)

    def rand(*shape, device=None):
        values = torch.tensor(next(numbers))
        assert values.shape == shape
        return values

    config = transformers.Mask2FormerConfig(num_labels=CLASSES, train_num_points=CONFIG.points)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    criterion = modeling.Mask2FormerLoss(config, weights)
    class_logits, mask_logits = (torch.tensor(each, requires_grad=True) for each in answers)
    outputs = [
        {"class_queries_logits": class_logits[:, layer], "masks_queries_logits": mask_logits[:, layer]}
        for layer in range(LAYERS)
    ]
    present = [np.arange(count) for count in COUNTS]
    monkeypatch.setattr(torch, "rand", rand)
    losses = criterion(
        **outputs[-1],
        mask_labels=[torch.tensor(objects.masks[i, own]).float() for i, own in enumerate(present)],
        class_labels=[torch.tensor(objects.classes[i, own]).long() for i, own in enumerate(present)],
        auxiliary_predictions=outputs[:-1],
    )
    assert next(numbers, None) is None
    expected = sum(losses[name] * weight for name, weight in _weighted(losses, weights))
    expected.backward()

    value, gradient = ours(answers, objects, keys)
    assert relative_error(value, expected.detach()) <= 1e-6
    assert relative_error(gradient.class_logits, class_logits.grad) <= 1e-6
    assert relative_error(gradient.mask_logits, mask_logits.grad) <= 1e-6


def _weighted(losses, weights):
    return [(name, weight) for name, (term, weight) in itertools.product(losses, weights.items()) if term in name]
