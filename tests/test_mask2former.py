"""Mask2Former without an oracle: what `tests/parity` cannot show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from samjax.execution import Execution
from samjax.mask2former import Mask2FormerConfig, abstract_params, init_params, predict
from samjax.nn.backbones.config import ResNetConfig, SwinConfig
from samjax.nn.heads.config import Mask2FormerHeadConfig, MaskedDecoderConfig, PixelDecoderConfig

SMALL = Mask2FormerConfig(
    ResNetConfig(8, (8, 8, 8, 8), (1, 1, 1, 1)),
    Mask2FormerHeadConfig(
        3,
        PixelDecoderConfig(32, 16, depth=1, heads=4, mlp_dim=16),
        MaskedDecoderConfig(32, depth=1, heads=4, mlp_dim=16, queries=5),
    ),
)
run = jax.jit(predict, static_argnames=("config", "execution"))


@pytest.mark.usefixtures("quick_compilation")
def test_an_answer_does_not_depend_on_the_other_images():
    params = init_params(SMALL, jax.random.key(0))
    pixels = np.random.RandomState(0).standard_normal((3, 40, 52, 3)).astype(np.float32)
    first, second = (run(SMALL, params, pair, Execution()) for pair in (pixels[:2], pixels[1:]))
    assert [answer.mask_logits.shape for answer in first] == [(2, 5, 10, 13)] * 2
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(one[1], other[0], rtol=1e-4, atol=1e-4)


BACKBONES = {"resnet": SMALL.backbone, "swin": SwinConfig(8, (2, 1, 1), (1, 1, 1), window=2)}


def gradient(backbone, params, pixels):
    """Of a number that all answers are in."""
    config = dataclasses.replace(SMALL, backbone=BACKBONES[backbone])

    def loss(params):
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(predict(config, params, pixels, Execution())))

    return jax.grad(loss)(params)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_batches_can_be_differentiated(backbone):
    params = abstract_params(dataclasses.replace(SMALL, backbone=BACKBONES[backbone]))
    pixels = jax.ShapeDtypeStruct((2, 40, 52, 3), jnp.float32)
    traced = jax.eval_shape(lambda params, pixels: gradient(backbone, params, pixels), params, pixels)
    assert jax.tree.map(lambda leaf: leaf.shape, traced) == jax.tree.map(lambda leaf: leaf.shape, params)


@pytest.mark.heavy
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_is_trained_but_statistics_of_batch_norms(backbone):
    random = np.random.RandomState(0)
    params = init_params(dataclasses.replace(SMALL, backbone=BACKBONES[backbone]), jax.random.key(0))
    # Offsets and weights of deformable attention start at zero, which stops what lies before them.
    params = jax.tree.map(lambda leaf: leaf + (0.1 * random.standard_normal(leaf.shape)).astype(np.float32), params)
    pixels = random.standard_normal((40, 52, 3)).astype(np.float32)
    leaves = flatten_dict(jax.jit(gradient, static_argnums=0)(backbone, params, pixels), sep="/")
    assert all(np.isfinite(leaf).all() for leaf in leaves.values())
    unmoved = {name for name, leaf in leaves.items() if not np.any(leaf)}
    assert unmoved == {name for name in leaves if name.endswith(("/mean", "/var"))}


def test_answers_are_float32_whatever_is_computed_in():
    pixels = jax.ShapeDtypeStruct((75, 101, 3), jnp.float32)
    half = Execution(compute_dtype="bfloat16")
    answers = jax.eval_shape(lambda params, x: predict(SMALL, params, x, half), abstract_params(SMALL), pixels)
    assert {(leaf.dtype.name, leaf.shape[0]) for leaf in jax.tree.leaves(answers)} == {("float32", 5)}


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"pixels must have shape \(h, w, 3\)"):
        predict(SMALL, {}, np.zeros((40, 52, 4), np.float32), Execution())
