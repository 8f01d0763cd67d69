"""Costs against the published formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import costs

class_costs, dice_costs, mask_costs = map(jax.jit, (costs.class_costs, costs.dice_costs, costs.mask_costs))


def drawn(queries: int, objects: int, points: int, scale: float = 3.0):
    random = np.random.RandomState(0)
    logits = (scale * random.standard_normal((queries, points))).astype(np.float32)
    return logits, (random.random_sample((objects, points)) > 0.7).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits, masks):
    x, t = logits.astype(np.float64)[:, None], masks.astype(np.float64)[None]
    return (np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(-1)


def dice(logits, masks):
    shares, t = sigmoid(logits.astype(np.float64))[:, None], masks.astype(np.float64)[None]
    return 1 - (2 * (shares * t).sum(-1) + 1) / (shares.sum(-1) + t.sum(-1) + 1)


def test_the_class_costs_minus_its_probability():
    logits = np.random.RandomState(0).standard_normal((5, 4)).astype(np.float32)
    classes = np.array([2, 0, 2], np.int32)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(-1, keepdims=True)
    np.testing.assert_allclose(class_costs(logits, classes), -shares[:, classes], atol=1e-6)


@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_masks_cost_their_cross_entropy_and_their_dice(scale):
    logits, masks = drawn(6, 4, 300, scale)
    np.testing.assert_allclose(mask_costs(logits, masks), cross_entropy(logits, masks), rtol=1e-5)
    np.testing.assert_allclose(dice_costs(logits, masks), dice(logits, masks), atol=1e-6)


def test_half_precision_is_summed_in_float32():
    """12,544 ones sum to 256 in bfloat16."""
    logits, masks = drawn(3, 2, 12544, 1.0)
    half = jnp.asarray(logits, jnp.bfloat16)
    logits = np.asarray(half.astype(jnp.float32))
    for cost, formula in ((mask_costs, cross_entropy), (dice_costs, dice)):
        found = cost(half, jnp.asarray(masks, jnp.bfloat16))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, formula(logits, masks), rtol=1e-5)


def test_large_logits_do_not_cancel():
    """A perfect query of logits ±1e4 costs nothing, next to one that is wrong at a single point."""
    masks = (np.arange(1000) < 400).astype(np.float32)[None]
    perfect = np.where(masks > 0, 1e4, -1e4).astype(np.float32)
    wrong = perfect.copy()
    wrong[0, 0] = -1.0
    found = mask_costs(np.concatenate([perfect, wrong]), masks)[:, 0]
    np.testing.assert_allclose(found, [0, np.log1p(np.exp(1.0)) / 1000], rtol=1e-5)
