"""Branches that training leaves out at random."""

import dataclasses

import jax
import numpy as np
import pytest

from samjax.config import DecoderConfig, SamConfig, ViTConfig
from samjax.train.regularise import drop_path_weights, dropout_weights

MODEL = SamConfig(
    ViTConfig(width=16, depth=1, heads=2, global_blocks=(0,), image_size=(32, 32), patch_size=8),
    DecoderConfig(depth=1, heads=2, mlp_dim=24, iou_head_dim=12, iou_head_depth=2),
    width=16,
    mask_channels=16,
)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_expectation(rate):
    keys = jax.random.split(jax.random.key(0), (20, 5))
    weights = np.asarray(dropout_weights(MODEL, rate, keys, 4))
    assert weights.shape == (20, 5, 1, 3, 1 + 4 + 4, 16)
    np.testing.assert_allclose((weights == 0).mean(), rate, atol=0.01)
    np.testing.assert_allclose(weights.max(), 1 / (1 - rate), rtol=1e-6)
    np.testing.assert_allclose(weights.mean(), 1, atol=0.02)
    assert len(np.unique(weights.reshape(100, -1), axis=0)) == 100  # each mask has its own


def test_without_dropout_nothing_is_weighed():
    assert dropout_weights(MODEL, 0.0, jax.random.split(jax.random.key(0), (1, 1)), 4) is None


def test_paths_are_dropped_more_often_the_deeper_they_are():
    encoder = dataclasses.replace(MODEL.image_encoder, depth=5)
    deep = dataclasses.replace(MODEL, image_encoder=encoder)
    weights = np.asarray(drop_path_weights(deep, 0.4, jax.random.split(jax.random.key(1), 8000)))
    assert weights.shape == (8000, 5, 2)
    rates = np.array([0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose((weights == 0).mean((0, 2)), rates, atol=0.015)
    np.testing.assert_allclose(weights.max((0, 2)), 1 / (1 - rates), rtol=1e-6)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.04)
    dropped = weights[:, 4] == 0  # of the last block, attention and MLP on their own
    np.testing.assert_allclose(dropped.all(1).mean(), 0.16, atol=0.02)
    assert drop_path_weights(deep, 0.0, jax.random.split(jax.random.key(1), 2)) is None
    assert (
        drop_path_weights(MODEL, 0.4, jax.random.split(jax.random.key(1), 3)).min() == 1
    )  # the only block is the first
