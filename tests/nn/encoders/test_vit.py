import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax import Execution
from samjax.model import init_params, jitted_encode
from samjax.nn.encoders.vit import Block, GridAttention, PatchEmbed, resample_positions
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


WITH_ADAPTERS = dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, adapter=8))


def with_adapters(start):
    """Parameters of SMALL with adapters: as they are initialised, or random."""
    made = init_params(WITH_ADAPTERS, jax.random.key(1)) if start else random_params(WITH_ADAPTERS)
    blocks = {
        number: {**block, "adaptmlp": made["image_encoder"]["blocks"][number]["adaptmlp"]}
        for number, block in random_params(SMALL)["image_encoder"]["blocks"].items()
    }
    return {**random_params(SMALL), "image_encoder": {**random_params(SMALL)["image_encoder"], "blocks": blocks}}


def test_adapters_start_as_nothing_to_the_bit():
    pixels = jax.random.normal(jax.random.key(0), (*SMALL.image_size, 3))
    base = jitted_encode(SMALL, random_params(SMALL), pixels, Execution())
    adapted = jitted_encode(WITH_ADAPTERS, with_adapters(start=True), pixels, Execution())
    np.testing.assert_array_equal(base.image, adapted.image)
    other = jitted_encode(WITH_ADAPTERS, with_adapters(start=False), pixels, Execution())
    assert abs(other.image - base.image).max() > 0.01


def test_an_adapter_is_a_bottleneck_beside_the_mlp_with_a_scale():
    """AdaptFormer's equations (arXiv 2205.13535, section 3.2), in NumPy."""
    params = with_adapters(start=False)["image_encoder"]["blocks"]["1"]
    x = np.random.default_rng(0).standard_normal((*SMALL.grid, 48)).astype(np.float32)

    def run(config, params):
        arrays = jax.tree.map(jnp.asarray, params)
        return Block(config.image_encoder, Execution(), False).apply({"params": arrays}, jnp.asarray(x))

    adapter = params["adaptmlp"]
    plain = run(SMALL, {name: part for name, part in params.items() if name != "adaptmlp"})
    # The input of norm2 is what the block without its MLP gives.
    silent = {**params["mlp"], "lin2": jax.tree.map(np.zeros_like, params["mlp"]["lin2"])}
    middle = np.asarray(run(SMALL, {**{k: v for k, v in params.items() if k != "adaptmlp"}, "mlp": silent}))
    centred = middle - middle.mean(-1, keepdims=True)
    normalised = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    normalised = normalised * params["norm2"]["scale"] + params["norm2"]["bias"]
    hidden = np.maximum(normalised @ adapter["down_proj"]["kernel"] + adapter["down_proj"]["bias"], 0)
    expected = plain + adapter["scale"] * (hidden @ adapter["up_proj"]["kernel"] + adapter["up_proj"]["bias"])
    np.testing.assert_allclose(run(WITH_ADAPTERS, params), expected, rtol=1e-4, atol=1e-4)


def test_channels_whose_kernel_is_zero_leave_the_features_as_they_are_to_the_bit():
    config = dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, channels=5))
    params = random_params(SMALL)
    kernel = np.pad(params["image_encoder"]["patch_embed"]["proj"]["kernel"], ((0, 0), (0, 0), (0, 2), (0, 0)))
    projection = {**params["image_encoder"]["patch_embed"]["proj"], "kernel": kernel}
    wide = {**params, "image_encoder": {**params["image_encoder"], "patch_embed": {"proj": projection}}}
    pixels = jax.random.normal(jax.random.key(0), (*SMALL.image_size, 5))
    base = jitted_encode(SMALL, params, pixels[:, :, :3], Execution())
    np.testing.assert_array_equal(jitted_encode(config, wide, pixels, Execution()).image, base.image)
    with pytest.raises(ValueError, match="this model takes pixels of 5 channels, got 3"):
        jitted_encode(config, wide, pixels[:, :, :3], Execution())


def test_patches_of_many_channels_are_a_strided_convolution():
    config = dataclasses.replace(SMALL.image_encoder, channels=5)
    random = np.random.default_rng(0)
    kernel, bias, pixels = (
        jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((8, 8, 5, 48), (48,), (64, 64, 5))
    )
    ours = PatchEmbed(config, jnp.dtype(jnp.float32)).apply(
        {"params": {"proj": {"kernel": kernel, "bias": bias}}}, pixels
    )
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(pixels[None], kernel, (8, 8), "VALID", dimension_numbers=layout)[0]
    np.testing.assert_allclose(ours, expected + bias[None, None], rtol=1e-4, atol=1e-4)
