import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax import Execution
from samjax.nn.encoders.vit import GridAttention, resample_positions
from samjax.ops import windows
from samjax.ops.attention import Plain, grid_attention


def test_windows_attend_to_their_padding_as_in_the_reference():
    """The reference pads with zeros before it projects, so a padding token's query, key and value are the bias."""
    encoder = SMALL.image_encoder
    params = jax.tree.map(jnp.asarray, random_params(SMALL)["image_encoder"]["blocks"]["1"]["attn"])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((*encoder.grid, encoder.width)), jnp.float32)
    ours = GridAttention(encoder, Execution(), is_global=False).apply({"params": params}, x)

    size, heads = encoder.window_size, encoder.heads
    outputs = []
    for window in windows.partition(windows.pad_to_windows(x, size), size):
        qkv = window @ params["qkv"]["kernel"] + params["qkv"]["bias"][None, None]
        outputs.append(grid_attention(qkv, (params["rel_pos_h"], params["rel_pos_w"]), heads, Plain()))
    merged = windows.merge(jnp.stack(outputs), encoder.grid)
    expected = merged @ params["proj"]["kernel"] + params["proj"]["bias"][None, None]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image_size", [(40, 88), (128, 128)])
def test_constant_position_tables_stay_constant_at_other_sizes(image_size):
    constant = jax.tree.map(lambda leaf: np.full_like(leaf, 0.7), random_params(SMALL)["image_encoder"])
    resampled = resample_positions(constant, SMALL.with_image_size(image_size).image_encoder)
    assert resampled["pos_embed"].shape[1:3] == SMALL.with_image_size(image_size).grid
    jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, 0.7, atol=1e-5), resampled)


def test_position_tables_are_smooth_functions_of_place():
    """Upsampled twofold and read at every cell's middle, an absolute table comes back."""
    config = SMALL.with_image_size((128, 128)).image_encoder
    table = np.linspace(-1, 1, 8, dtype=np.float32)[None, :, None, None] * np.ones((1, 8, 8, 48), np.float32)
    params = {"pos_embed": table}
    big = resample_positions(params, config)["pos_embed"]
    pairs = np.asarray(big).reshape(1, 8, 2, 8, 2, 48).mean((2, 4))
    np.testing.assert_allclose(pairs[:, 2:-2], table[:, 2:-2], atol=1e-5)
