"""The reordered decoder computes what the plain order would: sharing and products change no value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax.nn.mask_decoder import ConvTranspose2x2, MaskDecoder

FLOAT32 = jnp.dtype(jnp.float32)


def random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def test_transposed_convolution_is_a_product_whose_outputs_stay_separate_axes():
    kernel, bias, x = random(6, 2, 2, 5), random(5), random(3, 4, 6)
    ours = ConvTranspose2x2(6, 5, FLOAT32).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    ours = ours.transpose(0, 2, 1, 3, 4).reshape(6, 8, 5)
    # With transpose_kernel the kernel is (rows, columns, out, in), as PyTorch scatters it.
    scattered = jax.lax.conv_transpose(
        x[None], kernel.transpose(1, 2, 3, 0), (2, 2), "VALID", transpose_kernel=True, precision="highest"
    )[0]
    np.testing.assert_allclose(ours, scattered + bias[None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("multimask", "count"), [(True, 3), (False, 1)])
def test_only_the_masks_asked_for_are_made_from_a_shared_image_side(multimask, count):
    params = {"params": jax.tree.map(jnp.asarray, random_params(SMALL)["mask_decoder"])}
    decoder = MaskDecoder(SMALL, FLOAT32)
    image, position = random(*SMALL.grid, SMALL.width), random(*SMALL.grid, SMALL.width)
    side = decoder.apply(params, image, position, method="image_side")
    for tokens in (random(2, SMALL.width), random(3, SMALL.width)):
        shared = decoder.apply(params, side, tokens, jnp.ones(len(tokens), bool), multimask)

        def alone(module, tokens=tokens):
            return module(module.image_side(image, position), tokens, jnp.ones(len(tokens), bool), multimask)

        assert shared[0].shape == (count, *SMALL.mask_size)
        assert shared[1].shape == (count,)
        for ours, expected in zip(shared, decoder.apply(params, method=alone), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
