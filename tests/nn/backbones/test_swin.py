import jax
import jax.numpy as jnp
import pytest
from flax.core import meta

from samjax.nn.backbones import backbone_of
from samjax.nn.backbones.config import SwinConfig
from samjax.nn.backbones.swin import Swin


def test_features_are_at_strides_4_to_32_rounded_up():
    module = Swin(SwinConfig(depths=(1, 1, 1, 1)), jnp.dtype("float32"))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare"))
    pixels = jax.ShapeDtypeStruct((75, 101, 3), jnp.float32)
    features = jax.eval_shape(module.apply, meta.unbox(variables), pixels)
    assert [each.shape for each in features] == [(19, 26, 96), (10, 13, 192), (5, 7, 384), (3, 4, 768)]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be multiples of its heads"):
        SwinConfig(width=20, heads=(3, 6, 12, 24))
    with pytest.raises(ValueError, match="a depth and heads for each stage"):
        SwinConfig(depths=(2, 2))


def test_a_configuration_of_no_backbone_is_refused():
    class Other:
        channels = (1,)

    with pytest.raises(ValueError, match="no backbone has configurations of type Other"):
        backbone_of(Other())
