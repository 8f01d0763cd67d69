"""Hugging Face's Mask2Former folder is read strictly; `tests/parity` reads those of `transformers` itself."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from samjax.checkpoint import CheckpointError, lazy
from samjax.convert.mapping import to_torch
from samjax.convert.mask2former import mask2former_entries, read_mask2former
from samjax.convert.safetensors_file import write_safetensors
from samjax.mask2former import Mask2FormerConfig, abstract_params
from samjax.nn.backbones.config import SwinConfig
from samjax.nn.heads.config import Mask2FormerHeadConfig, MaskedDecoderConfig, PixelDecoderConfig

CONFIG = Mask2FormerConfig(
    SwinConfig(8, (1, 1, 1, 1), (1, 2, 4, 8), window=3),
    Mask2FormerHeadConfig(3, PixelDecoderConfig(32, 16, 1, heads=4, mlp_dim=16), MaskedDecoderConfig(32, 1, 4, 16, 5)),
)
DECLARED = {
    "model_type": "mask2former",
    "feature_size": 32,
    "mask_feature_size": 16,
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "num_queries": 5,
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "backbone_config": {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 4, 8],
        "window_size": 3,
    },
}
OFFSETS = "model.pixel_level_module.decoder.encoder.layers.0.self_attn.sampling_offsets.weight"


@pytest.fixture(scope="module")
def params():
    random = np.random.RandomState(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), abstract_params(CONFIG))


@pytest.fixture
def tensors(params):
    """Under the names of Hugging Face's files."""
    table = mask2former_entries(CONFIG)
    flat = flatten_dict(params, sep="/")
    return {str(entry.huggingface): to_torch(lazy(flat[name]), entry.axes) for name, entry in table.items()}


def write(folder, tensors, declared=DECLARED):
    write_safetensors(folder / "model.safetensors", tensors, {})
    if declared is not None:
        (folder / "config.json").write_text(json.dumps(declared))
    return folder


def test_every_parameter_is_read_from_its_place(tmp_path, tensors, params):
    config, found = read_mask2former(write(tmp_path, tensors))
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_what_only_training_needs_is_left_out(tmp_path, tensors, params):
    tensors["criterion.empty_weight"] = lazy(np.ones(4, np.float32))
    block = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self"
    tensors[f"{block}.relative_position_index"] = lazy(np.zeros((9, 9), np.int64))
    _, found = read_mask2former(write(tmp_path, tensors))
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_names_and_shapes_are_compared(tmp_path, tensors):
    tensors["model.other.weight"] = tensors.pop(OFFSETS)
    tensors["class_predictor.bias"] = lazy(np.zeros(81, np.float32))
    with pytest.raises(CheckpointError) as caught:
        read_mask2former(write(tmp_path, tensors))
    message = str(caught.value)
    assert f"missing (1):\n    {OFFSETS} (96, 32)" in message
    assert "extra (1):\n    model.other.weight (96, 32)" in message
    assert "class_predictor.bias: expected (4,), found (81,)" in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "maskformer"}, "model_type = maskformer, expected mask2former"),
        ({"pre_norm": True}, "pre_norm = True, expected False"),
        ({"hidden_dim": 30}, "multiple of 4 and of its 4 heads"),
        ({"num_queries": "many"}, "declares no Mask2Former that fits together"),
        ({"backbone_config": {"model_type": "focalnet"}}, "the backbone is a 'focalnet'; expected 'swin' or 'resnet'"),
        ({"backbone_config": {"hidden_act": "relu"}}, "backbone_config.hidden_act = relu, expected gelu"),
        ({"backbone_config": {"mlp_ratio": 2.5}}, "backbone_config.mlp_ratio = 2.5, not a whole number"),
        ({"backbone_config": [1]}, "config.json is damaged"),
        (
            {"backbone_config": {"model_type": "resnet", "layer_type": "basic"}},
            "layer_type = basic, expected bottleneck",
        ),
    ],
)
def test_a_model_that_is_not_computed_here_is_refused(tmp_path, tensors, change, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        read_mask2former(write(tmp_path, tensors, {**DECLARED, **change}))


def test_weights_without_their_configuration_are_refused(tmp_path, tensors):
    with pytest.raises(CheckpointError, match=r"needs the config\.json beside its weights"):
        read_mask2former(write(tmp_path, tensors, None) / "model.safetensors")
