"""Encoders from MAE-pretrained ViTs: every array lands where it belongs, the rest stays, other networks are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from scipy import ndimage

from samjax.checkpoint import CheckpointError

WIDTH, DEPTH, PATCH, GRID = 48, 2, 8, 8  # of SMALL


def vit(*, width=WIDTH, depth=DEPTH, patch=PATCH, grid=GRID, cls=True):
    """A state dict under timm's names, which are also Facebook's."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return random.standard_normal(shape).astype(np.float32)

    tensors = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, grid * grid + cls, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch),
        "patch_embed.proj.bias": draw(width),
        "norm.weight": draw(width),
        "norm.bias": draw(width),
    }
    for i in range(depth):
        linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        linear |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in linear.items():
            tensors[f"blocks.{i}.{name}.weight"] = draw(*shape)
            tensors[f"blocks.{i}.{name}.bias"] = draw(shape[0])
        for name in ("norm1", "norm2"):
            tensors[f"blocks.{i}.{name}.weight"] = draw(width)
            tensors[f"blocks.{i}.{name}.bias"] = draw(width)
    return tensors


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL)


def saved(tensors, tmp_path, prefix=""):
    save_file({prefix + name: array for name, array in tensors.items()}, tmp_path / "mae.safetensors")
    return tmp_path / "mae.safetensors"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("cls", [True, False])
def test_every_array_takes_its_place_and_the_rest_stays(params, tmp_path, prefix, cls):
    from samjax.train.mae import load_mae

    tensors = vit(cls=cls)
    loaded = flatten_dict(load_mae(saved(tensors, tmp_path, prefix), SMALL, params), sep="/")
    before = flatten_dict(params, sep="/")
    assert loaded.keys() == before.keys()
    ours = {
        "image_encoder/pos_embed": tensors["pos_embed"][:, int(cls) :].reshape(1, GRID, GRID, WIDTH),
        "image_encoder/patch_embed/proj/kernel": tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "image_encoder/patch_embed/proj/bias": tensors["patch_embed.proj.bias"],
    }
    for i in range(DEPTH):
        for mine, theirs in (
            ("attn/qkv", "attn.qkv"),
            ("attn/proj", "attn.proj"),
            ("mlp/lin1", "mlp.fc1"),
            ("mlp/lin2", "mlp.fc2"),
        ):
            ours[f"image_encoder/blocks/{i}/{mine}/kernel"] = tensors[f"blocks.{i}.{theirs}.weight"].T
            ours[f"image_encoder/blocks/{i}/{mine}/bias"] = tensors[f"blocks.{i}.{theirs}.bias"]
        for norm in ("norm1", "norm2"):
            ours[f"image_encoder/blocks/{i}/{norm}/scale"] = tensors[f"blocks.{i}.{norm}.weight"]
            ours[f"image_encoder/blocks/{i}/{norm}/bias"] = tensors[f"blocks.{i}.{norm}.bias"]
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, ours.get(name, before[name]), err_msg=name)


def test_positions_are_resampled_to_the_grid(params, tmp_path):
    """A plane of positions stays one, but for the borders, where the last sample repeats, and the kernel's ripple."""
    from samjax.train.mae import load_mae, read_mae

    tensors = vit(grid=14)
    y, x = np.mgrid[:14, :14]
    tensors["pos_embed"][0, 1:, 0] = (2 * x - y).ravel()
    path = saved(tensors, tmp_path)
    plane = np.asarray(load_mae(path, SMALL, params)["image_encoder"]["pos_embed"])[0, :, :, 0]
    at = (np.arange(GRID) + 0.5) * 14 / GRID - 0.5
    np.testing.assert_allclose(plane[1:-1, 1:-1], (2 * at[None] - at[:, None])[1:-1, 1:-1], atol=0.15)
    assert "positions resampled from 14 x 14 to 8 x 8" in str(read_mae(path, SMALL))


def test_patches_of_another_size_give_a_plain_patch_what_they_gave(params, tmp_path):
    from samjax.train.mae import load_mae

    tensors = vit(patch=14)
    tensors["patch_embed.proj.weight"] = ndimage.gaussian_filter(tensors["patch_embed.proj.weight"], (0, 0, 3, 3)) + 1
    kernel = load_mae(saved(tensors, tmp_path), SMALL, params)["image_encoder"]["patch_embed"]["proj"]["kernel"]
    assert kernel.shape == (PATCH, PATCH, 3, WIDTH)
    np.testing.assert_allclose(kernel.sum((0, 1)).T, tensors["patch_embed.proj.weight"].sum((2, 3)), rtol=0.01)


def test_what_was_taken_and_left_can_be_read(tmp_path):
    from samjax.train.mae import read_mae

    tensors = vit() | {"mask_token": np.zeros((1, 1, 32), np.float32), "decoder_embed.bias": np.zeros(32, np.float32)}
    found = read_mae(saved(tensors, tmp_path), SMALL)
    assert found.dropped == ("cls_token", "decoder_embed.bias", "mask_token", "norm.bias", "norm.weight")
    left = set(found.initialised)
    assert "image_encoder/blocks/0/attn/rel_pos_h" in left
    assert "image_encoder/neck/0/kernel" in left
    assert "mask_decoder/iou_token/embedding" in left
    assert not left & set(found.params)
    text = str(found)
    assert f"taken from the file: {len(tensors) - 5} parameters" in text
    assert "image_encoder/blocks/*/attn" in text


def test_arrays_stay_where_the_parameters_were(params, tmp_path):
    from samjax.train.mae import load_mae

    device = jax.devices()[0]
    placed = jax.device_put(params, jax.sharding.SingleDeviceSharding(device))
    loaded = load_mae(saved(vit(), tmp_path), SMALL, placed)
    assert all(leaf.sharding == jax.sharding.SingleDeviceSharding(device) for leaf in jax.tree.leaves(loaded))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: vit(width=36), r"width 48 and 2 blocks.*\n.*misshaped.*\n.*expected \(48,\), found \(36,\)"),
        (lambda: vit(depth=3), r"extra \(12\):\n    blocks\.2\.attn"),
        (lambda: vit(depth=1), r"missing \(12\):\n    blocks\.1"),
        (
            lambda: vit() | {"pos_embed": np.zeros((1, 60, WIDTH), np.float32)},
            r"pos_embed: expected \(1, 65, 48\), found \(1, 60, 48\)",
        ),
        (lambda: {"conv1.weight": np.zeros(3, np.float32)}, r"holds no ViT.*'conv1\.weight'"),
    ],
)
def test_another_network_is_refused_with_the_difference(params, tmp_path, change, problem):
    from samjax.train.mae import load_mae

    with pytest.raises(CheckpointError, match=problem):
        load_mae(saved(change(), tmp_path), SMALL, params)


@pytest.mark.parity
def test_a_file_of_facebooks_layout_in_pytorchs_format(params, tmp_path):
    torch = pytest.importorskip("torch")
    from samjax.train.mae import load_mae

    tensors = vit(grid=14)
    torch.save({"model": {name: torch.from_numpy(array) for name, array in tensors.items()}}, tmp_path / "mae.pth")
    ours = np.asarray(load_mae(tmp_path / "mae.pth", SMALL, params)["image_encoder"]["pos_embed"])
    grid = torch.from_numpy(tensors["pos_embed"][:, 1:]).reshape(1, 14, 14, WIDTH).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, (GRID, GRID), mode="bicubic").permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parity
def test_our_encoder_computes_what_the_vit_computes(tmp_path):
    """With all blocks global, no relative positions and no neck, SAM's encoder is the plain ViT without class token."""
    torch = pytest.importorskip("torch")
    from samjax.execution import Execution
    from samjax.nn.encoders.vit import ViT
    from samjax.train.mae import load_mae

    encoder = dataclasses.replace(SMALL.image_encoder, global_blocks=(0, 1))
    config = dataclasses.replace(SMALL, image_encoder=encoder)
    tensors = {name: array * np.float32(0.1) for name, array in vit(cls=False).items()}
    start = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if "rel_pos" in path[-1].key else leaf, random_params(config)
    )
    params = load_mae(saved(tensors, tmp_path), config, start)["image_encoder"]
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    pixels = np.random.default_rng(1).standard_normal((64, 64, 3)).astype(np.float32)

    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    x = torch.nn.functional.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2) + state["pos_embed"]
    for i in range(DEPTH):
        block = {name.removeprefix(f"blocks.{i}."): tensor for name, tensor in state.items() if f"blocks.{i}." in name}

        def linear(x, name, block=block):
            return torch.nn.functional.linear(x, block[f"{name}.weight"], block[f"{name}.bias"])

        def norm(x, name, block=block):
            return torch.nn.functional.layer_norm(x, (WIDTH,), block[f"{name}.weight"], block[f"{name}.bias"], 1e-6)

        q, k, v = linear(norm(x, "norm1"), "attn.qkv").reshape(1, -1, 3, 3, 16).permute(2, 0, 3, 1, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + linear(attended.transpose(1, 2).reshape(x.shape), "attn.proj")
        x = x + linear(torch.nn.functional.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")

    def blocks_only(module, pixels):
        y = module.patch_embed(pixels) + module.pos_embed[0]
        for i in range(DEPTH):
            y = module.blocks[i](y)
        return y

    variables = {"params": jax.tree.map(jnp.asarray, params)}
    module = ViT(encoder, config.width, Execution())
    ours = module.apply(variables, jnp.asarray(pixels), method=blocks_only)
    np.testing.assert_allclose(np.asarray(ours).reshape(1, -1, WIDTH), x, rtol=1e-4, atol=1e-5)
