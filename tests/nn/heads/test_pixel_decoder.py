import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from samjax.nn.heads.config import PixelDecoderConfig
from samjax.nn.heads.pixel_decoder import DeformableSelfAttention, PixelDecoder
from samjax.nn.initialise import initialise

FLOAT32 = jnp.dtype("float32")


def test_heads_start_by_looking_into_eight_directions():
    """As published: point p of head n lies p + 1 cells away, along an axis or a diagonal; weights are all alike."""
    module = DeformableSelfAttention(PixelDecoderConfig(), FLOAT32)
    declared = jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare"))["params"]
    params = initialise(declared, jax.random.key(0))
    offsets = np.asarray(params["sampling_offsets"]["bias"]).reshape(8, 3, 4, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, point in np.ndindex(8, 4):
        for level in range(3):
            expected = np.array(directions[head]) * (point + 1)
            np.testing.assert_allclose(offsets[head, level, point], expected, atol=1e-5)
    for name in ("sampling_offsets", "attention_weights"):
        assert not np.any(params[name]["kernel"])


def test_levels_may_be_finer_and_coarser_than_a_backbone_s():
    """Strides 4 to 64, as features of SAM's encoder are split: three levels attended to, two added."""
    inputs = (256,) * 5
    module = PixelDecoder(PixelDecoderConfig(depth=1), inputs, FLOAT32)
    variables = meta.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare")))
    features = tuple(jax.ShapeDtypeStruct((64 >> i, 96 >> i, 256), jnp.float32) for i in range(5))
    mask_features, levels = jax.eval_shape(module.apply, variables, features)
    assert mask_features.shape == (64, 96, 256)
    assert [level.shape for level in levels] == [(4, 6, 256), (8, 12, 256), (16, 24, 256)]


def test_fewer_features_than_levels_are_refused():
    module = PixelDecoder(PixelDecoderConfig(), (256, 256), FLOAT32)
    with pytest.raises(ValueError, match=r"attends to 3 levels of features, got \(256, 256\)"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), method="declare"))


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="must be a multiple of 4, of its 8 heads and of the 32 groups"):
        PixelDecoderConfig(width=100)
