"""The key table is a bijection; the configuration follows from shapes; what does not fit is explained."""

import dataclasses

import numpy as np
import pytest
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st

from samjax import VARIANTS, convert
from samjax.checkpoint import CheckpointError, LazyArray, lazy
from samjax.config import DecoderConfig, ImageEncoderConfig, SamConfig
from samjax.convert.identify import identify
from samjax.convert.infer import Declared, candidates
from samjax.convert.mapping import find_entries, to_torch
from samjax.convert.matching import expected_entries
from samjax.convert.state_dict import open_state_dict
from samjax.convert.torch_writer import write_torch
from samjax.model import abstract_params

CUSTOM = {
    "small": SMALL,
    "not square": SMALL.with_image_size((48, 80)),
    "one side as long as a window": SMALL.with_image_size((24, 64)),
    "no global block": dataclasses.replace(
        SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, global_blocks=())
    ),
    "another decoder": SamConfig(
        SMALL.image_encoder,
        DecoderConfig(depth=3, mlp_dim=48, downsample=4, multimask_outputs=5, iou_head_dim=24, iou_head_depth=4),
        width=32,
        mask_channels=8,
    ),
    "a wide MLP": SamConfig(ImageEncoderConfig(width=32, depth=2, heads=4, global_blocks=(0,), mlp_ratio=3)),
    "ViT-B whose windows are as large as its grid": VARIANTS["vit_b"].with_image_size(224),
}


def meta_tensors(config):
    """Tensors under Meta's names that hold nothing: shapes are all that is asked."""
    table = expected_entries(config)
    leaves = flatten_dict(abstract_params(config), sep="/")
    empty = {
        name: LazyArray(leaf.shape, np.dtype(leaf.dtype), lambda s=leaf.shape: np.zeros(s, np.float32))
        for name, leaf in leaves.items()
    }
    return {table[name].meta: to_torch(leaf, table[name].axes) for name, leaf in empty.items()}


@pytest.mark.parametrize("config", [*VARIANTS.values(), *CUSTOM.values()], ids=[*VARIANTS, *CUSTOM])
def test_the_key_table_is_a_bijection(config):
    ours = set(flatten_dict(abstract_params(config), sep="/"))
    depth = config.mask_decoder.iou_head_depth
    table = find_entries(ours, source="ours", iou_head_depth=depth)
    assert set(table) == ours
    for source in ("meta", "huggingface", "ours"):
        names = {getattr(entry, source): entry for entry in table.values()}
        assert len(names) == len(ours)
        assert find_entries(names, source=source, iou_head_depth=depth) == names


def test_names_that_resemble_the_table_are_not_in_it():
    for name in (
        "image_encoder.blocks.{}.norm1.weight",
        "image_encoder.blocks.norm1.weight",
        "image_encoder.blocks.0.norm1.weight.extra",
        "image_encoder.blocks.0.norm3.weight",
        "image_encoder.neck.4.weight",
        "image_encoder/pos_embed",
        "",
    ):
        assert find_entries([name], source="meta") == {}


@pytest.mark.parametrize("config", [*VARIANTS.values(), *CUSTOM.values()], ids=[*VARIANTS, *CUSTOM])
def test_the_configuration_follows_from_the_shapes(config):
    shapes = {name: tensor.shape for name, tensor in meta_tensors(config).items()}
    assert candidates(shapes)[0] == config


@pytest.fixture(scope="module")
def tensors():
    table = expected_entries(SMALL)
    leaves = flatten_dict(random_params(SMALL), sep="/")
    return {table[name].meta: to_torch(lazy(leaf), table[name].axes) for name, leaf in leaves.items()}


def write(folder, tensors):
    write_torch(folder / "sam.pth", tensors)
    return folder / "sam.pth"


def error(folder, tensors):
    with pytest.raises(CheckpointError) as caught:
        convert.read(write(folder, tensors))
    # Converting it fails in the same way, and writes nothing.
    with pytest.raises(CheckpointError):
        convert.convert(folder / "sam.pth", folder / "out.safetensors")
    assert [file.name for file in folder.iterdir()] == ["sam.pth"]
    return str(caught.value)


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("prefix", ["module.", "sam.", "module.sam.", "_orig_mod.", "model.sam_model."])
def test_prefixes_of_wrappers_are_taken_off(prefix, tensors, tmp_path):
    config, params = convert.read(write(tmp_path, {prefix + name: tensor for name, tensor in tensors.items()}))
    assert config == SMALL
    assert flatten_dict(params, sep="/").keys() == flatten_dict(random_params(SMALL), sep="/").keys()


def test_a_missing_parameter_is_named(tensors, tmp_path):
    message = error(tmp_path, without(tensors, "mask_decoder.transformer.layers.1.norm4.bias"))
    assert "missing (1):\n    mask_decoder.transformer.layers.1.norm4.bias (64,)" in message
    assert "extra" not in message
    assert "misshaped" not in message


def test_an_extra_parameter_is_named(tensors, tmp_path):
    message = error(tmp_path, tensors | {"criterion.weight": lazy(np.ones(3, np.float32))})
    assert "extra (1):\n    criterion.weight (3,)" in message
    assert "missing" not in message


def test_a_renamed_parameter_is_found_by_shape_and_name(tensors, tmp_path):
    renamed = without(tensors, "image_encoder.neck.0.weight")
    renamed["image_encoder.neck.conv1.weight"] = tensors["image_encoder.neck.0.weight"]
    message = error(tmp_path, renamed)
    assert "image_encoder.neck.0.weight (64, 48, 1, 1) (nearest: image_encoder.neck.conv1.weight)" in message
    assert "image_encoder.neck.conv1.weight (64, 48, 1, 1) (nearest: image_encoder.neck.0.weight)" in message


def test_a_misshaped_parameter_is_named_with_both_shapes(tensors, tmp_path):
    name = "image_encoder.blocks.1.mlp.lin1.weight"
    message = error(tmp_path, tensors | {name: lazy(np.zeros((192, 47), np.float32))})
    assert f"misshaped (1):\n    {name}: expected (192, 48), found (192, 47)" in message


def test_a_transposed_square_matrix_is_beyond_shapes_but_a_missing_axis_is_not(tensors, tmp_path):
    name = "image_encoder.patch_embed.proj.weight"
    message = error(tmp_path, tensors | {name: lazy(np.zeros((48, 192), np.float32))})
    assert name in message


def test_one_damaged_shape_of_a_known_variant_is_one_difference(tmp_path):
    tensors = meta_tensors(VARIANTS["vit_tiny"])
    tensors["mask_decoder.mask_tokens.weight"] = lazy(np.zeros((5, 128), np.float32))
    message = error(tmp_path, tensors)
    assert "does not fit a vit_tiny" in message
    assert "misshaped (1):\n    mask_decoder.mask_tokens.weight: expected (4, 128), found (5, 128)" in message
    assert "missing" not in message


@pytest.mark.parametrize("rows", [1, 4, 7, 12, 0])
def test_a_decoder_too_narrow_for_its_heads_is_refused_like_any_other(rows, tensors, tmp_path):
    """Its cross-attentions have fewer channels than heads, or a number that the heads do not divide."""
    narrow = dict(tensors)
    for name, tensor in tensors.items():
        if "token_to_image" in name or "image_to_token" in name:
            axis = int("out_proj.weight" in name)
            if not name.endswith("out_proj.bias"):
                narrow[name] = lazy(np.take(tensor.read(), range(rows), axis))
    message = error(tmp_path, narrow)
    assert "does not fit a" in message
    assert "misshaped" in message


SIZES = st.sampled_from([0, 1, 2, 3, 5, 8, 16, 63, 64, 255, 4096, 65_536, 65_537, 1 << 40])
TELLING = (  # parameters whose shapes the configuration follows from
    "image_encoder.pos_embed",
    "image_encoder.patch_embed.proj.weight",
    "image_encoder.blocks.0.attn.rel_pos_h",
    "image_encoder.blocks.1.attn.rel_pos_w",
    "image_encoder.blocks.0.mlp.lin1.weight",
    "mask_decoder.iou_token.weight",
    "mask_decoder.mask_tokens.weight",
    "mask_decoder.transformer.layers.0.mlp.lin1.weight",
    "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight",
    "mask_decoder.iou_prediction_head.layers.0.weight",
    "prompt_encoder.mask_downscaling.3.weight",
)


@given(st.data())
def test_any_shapes_give_configurations_that_can_be_built(data):
    """No division by zero, no index beyond a shape, no table that needs more memory than there is."""
    shapes = {name: tensor.shape for name, tensor in meta_tensors(SMALL).items()}
    for name in data.draw(st.lists(st.sampled_from(TELLING), min_size=1, max_size=4)):
        shape = list(shapes[name])
        if shape and data.draw(st.booleans()):
            shape[data.draw(st.integers(0, len(shape) - 1))] = data.draw(SIZES)
        else:
            shape = data.draw(st.lists(SIZES, max_size=5))
        shapes[name] = tuple(shape)
    for config in candidates(shapes, Declared(decoder_heads=data.draw(st.sampled_from([8, 1, 3, 0, -8])))):
        decoder, encoder = config.mask_decoder, config.image_encoder
        assert (config.width // decoder.downsample) % decoder.heads == 0
        assert config.width >= decoder.downsample * decoder.heads
        assert encoder.width % encoder.heads == 0
        assert 0 < min(config.grid) <= max(config.grid) <= 2048


def test_grids_whose_tables_would_not_fit_in_memory_are_not_believed():
    shapes = {name: tensor.shape for name, tensor in meta_tensors(SMALL).items()}
    shapes["image_encoder.pos_embed"] = (1, 4096, 8, 48)
    assert {max(config.grid) for config in candidates(shapes)} <= {8, 32, 64}


def test_long_lists_of_differences_are_cut(tensors, tmp_path):
    half = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask_decoder.transformer")}
    message = error(tmp_path, half)
    assert "… and" in message
    assert message.count("\n") < 40


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_numbers_of_other_types_are_refused(dtype, tensors, tmp_path):
    name = "mask_decoder.iou_token.weight"
    message = error(tmp_path, tensors | {name: lazy(np.ones((1, 64), dtype))})
    assert f"{name} is {np.dtype(dtype).name}; expected float32, float16, bfloat16 or float64, to be rounded" in message


def test_empty_and_foreign_dictionaries_are_refused(tmp_path):
    assert "no state dict" in error(tmp_path, {})
    message = error(tmp_path, {"layer1.0.conv1.weight": lazy(np.ones((2, 2), np.float32))})
    assert "is no SAM checkpoint" in message
    assert "It looks like a ResNet." in message


# Names as the official checkpoints of each have them.
ARCHITECTURES = {
    "SAM 2": [
        "image_encoder.trunk.blocks.0.attn.qkv.weight",
        "sam_mask_decoder.iou_token.weight",
        "memory_attention.a",
    ],
    "SAM 3": ["detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight", "tracker.maskmem_tpos_enc"],
    "HQ-SAM": ["image_encoder.pos_embed", "mask_decoder.hf_token.weight", "mask_decoder.hf_mlp.layers.0.weight"],
    "MobileSAM (TinyViT encoder)": ["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"],
    "EfficientSAM": [
        "image_encoder.pos_embed",
        "prompt_encoder.invalid_points.weight",
        "mask_decoder.iou_token.weight",
    ],
    "EfficientViT-SAM": ["image_encoder.backbone.stages.0.op_list.0.main.conv.weight"],
    "SAM with adapters (Medical SAM Adapter, SAM-Med2D)": ["image_encoder.blocks.0.MLP_Adapter.D_fc1.weight"],
    "SAM with LoRA weights (merge them into the model first)": ["image_encoder.blocks.0.attn.qkv.linear_a_q.weight"],
    "SAM's image encoder alone": ["pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "neck.0.weight"],
    "FastSAM or another YOLO": ["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"],
    "an optimizer's state": ["exp_avg", "exp_avg_sq", "step"],
    "MAE pre-training": [
        "cls_token",
        "patch_embed.proj.weight",
        "decoder_embed.weight",
        "decoder_blocks.0.norm1.weight",
    ],
    "DINOv2": ["cls_token", "patch_embed.proj.weight", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight"],
    "CLIP": ["logit_scale", "visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"],
    "a ViT of timm, DeiT, DINO or MAE": [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
    ],
    "a Hugging Face ViT": ["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"],
    "Swin Transformer": ["layers.0.blocks.0.attn.relative_position_bias_table"],
    "Mask R-CNN or another Detectron2 detector": [
        "backbone.bottom_up.stem.conv1.weight",
        "roi_heads.box_head.fc1.weight",
    ],
    "DETR": ["transformer.encoder.layers.0.linear1.weight", "class_embed.weight", "query_embed.weight"],
    "ConvNeXt": ["downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"],
    "a ResNet": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "a U-Net": [
        "inc.double_conv.0.weight",
        "down1.maxpool_conv.1.double_conv.0.weight",
        "up1.up.weight",
        "outc.conv.bias",
    ],
    "a language model": ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"],
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures_are_named(architecture):
    assert identify(ARCHITECTURES[architecture]) == architecture
    assert identify([f"module.{name}" for name in ARCHITECTURES[architecture]]) == architecture


def test_sam_itself_and_the_unknown_look_like_nothing_else(tensors):
    assert identify(tensors) is None
    assert identify(["foo.weight", "bar.bias"]) is None


def test_a_relative_of_sam_is_named_beside_the_differences(tensors, tmp_path):
    message = error(tmp_path, tensors | {"mask_decoder.hf_token.weight": lazy(np.ones((1, 64), np.float32))})
    assert "The names look like HQ-SAM, which is another architecture." in message
    assert "mask_decoder.hf_token.weight (1, 64)" in message


def test_the_file_of_the_fixture_is_sound(tensors, tmp_path):
    read = open_state_dict(write(tmp_path, tensors)).tensors
    assert all(np.array_equal(read[name].read(), tensor.read()) for name, tensor in tensors.items())
    assert convert.read(tmp_path / "sam.pth")[0] == SMALL
