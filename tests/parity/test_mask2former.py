"""Hugging Face's Mask2Former with random weights, read and computed by samjax: classes and masks after every layer."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from parity.comparison import LOGITS_BAR, relative_error

from samjax.checkpoint import LazyArray
from samjax.convert.mask2former import mask2former_config, match_mask2former, read_mask2former
from samjax.execution import Execution
from samjax.mask2former import Mask2FormerConfig, predict
from samjax.nn.backbones.config import ResNetConfig, SwinConfig
from samjax.nn.heads.config import Mask2FormerHeadConfig

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # of libraries that are not ours
STAGES = ["stage1", "stage2", "stage3", "stage4"]
BACKBONES = {
    "swin": {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 3},
    "resnet": {"embedding_size": 8, "hidden_sizes": (16, 32, 48, 64), "depths": (2, 1, 1, 1)},
}
SMALL = {
    "feature_size": 64,
    "mask_feature_size": 24,
    "hidden_dim": 64,
    "encoder_feedforward_dim": 40,
    "dim_feedforward": 56,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "num_queries": 6,
    "num_labels": 3,
}


def in_torch(backbone: str, of_backbone: dict, **fields):
    transformers = pytest.importorskip("transformers")
    kind = {"swin": transformers.SwinConfig, "resnet": transformers.ResNetConfig}[backbone]
    config = transformers.Mask2FormerConfig(backbone_config=kind(**of_backbone, out_features=STAGES), **fields)
    return transformers.Mask2FormerForUniversalSegmentation(config).eval()


def build(backbone: str, of_backbone: dict, **fields):
    """A model of Hugging Face's in which no parameter is zero or one: whatever is swapped or dropped is seen."""
    torch = pytest.importorskip("torch")
    model = in_torch(backbone, of_backbone, **fields)
    generator = torch.Generator().manual_seed(0)

    def noise(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "norm.weight", "normalization.weight")):
                tensor.copy_(1 + 0.2 * noise(tensor).abs())
            elif "relative_position_bias_table" in name:
                tensor.copy_(0.2 * noise(tensor))
            elif name.endswith(("sampling_offsets.weight", "attention_weights.weight")):
                # Half a cell, half a logit. With larger ones, float32 itself is 1e-3 from float64, theirs as ours.
                tensor.copy_(0.5 * noise(tensor) / tensor.shape[1] ** 0.5)
            elif tensor.is_floating_point() and tensor.ndim < 2:
                tensor.add_(0.1 * noise(tensor))
    return model


def config_of(model) -> Mask2FormerConfig:
    return mask2former_config(json.loads(model.config.to_json_string(use_diff=False)), Path("memory"))


def tensors_of(model) -> dict[str, LazyArray]:
    """A state dict, whose tensors may have shapes only."""
    return {
        name: LazyArray(tuple(tensor.shape), np.dtype(np.float32), lambda tensor=tensor: tensor.numpy())
        for name, tensor in model.state_dict().items()
    }


def matched(model):
    """Our configuration and parameters of a model of Hugging Face's."""
    leaves = match_mask2former(config_of(model), tensors_of(model), Path("memory"))
    return config_of(model), unflatten_dict({name: leaf.read() for name, leaf in leaves.items()}, sep="/")


@functools.cache
def small(backbone: str):
    """(Hugging Face's model, our configuration, our parameters)."""
    model = build(backbone, BACKBONES[backbone], **SMALL)
    return model, *matched(model)


def reference(model, pixels):
    """Class and mask logits before the first layer and after each."""
    import torch

    with torch.no_grad():
        found = model(torch.tensor(pixels).permute(2, 0, 1)[None], output_auxiliary_logits=True)
    answers = [(each["class_queries_logits"][0], each["masks_queries_logits"][0]) for each in found.auxiliary_logits]
    return [*answers, (found.class_queries_logits[0], found.masks_queries_logits[0])]


run = jax.jit(predict, static_argnames=("config", "execution"))


def assert_same(model, config, params, pixels) -> float:
    """Asserts the bar for the answers before the first layer and after each, and returns the largest error."""
    expected = reference(model, pixels)
    answers = run(config, params, pixels, Execution())
    assert len(answers) == len(expected) == config.head.decoder.depth + 1
    errors = [
        relative_error(mine, theirs)
        for ours, pair in zip(answers, expected, strict=True)
        for mine, theirs in zip(ours, pair, strict=True)
    ]
    assert max(errors) <= LOGITS_BAR
    return max(errors)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_classes_and_masks_after_every_layer(backbone):
    """Sides that no stride divides, so that all that is padded, rounded and resized counts."""
    pixels = np.random.RandomState(0).standard_normal((75, 101, 3)).astype(np.float32)
    assert assert_same(*small(backbone), pixels) <= 1e-5  # measured: 2e-6


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_folder_is_read_as_the_state_dict_of_the_model(backbone, tmp_path):
    """Files have other names than the classes of transformers 5."""
    model, config, params = small(backbone)
    model.save_pretrained(tmp_path / "model")
    of_file, found = read_mask2former(tmp_path / "model")
    assert of_file == config
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("backbone", "published", "millions"), [("swin", SwinConfig(), 47), ("resnet", ResNetConfig(), 44)]
)
def test_names_and_shapes_of_the_published_models(backbone, published, millions):
    """With Swin-T and ResNet-50; millions of parameters as in the paper's table 1."""
    import torch

    with torch.device("meta"):
        model = in_torch(backbone, {}, num_labels=80)
    config = config_of(model)
    assert config == Mask2FormerConfig(published, Mask2FormerHeadConfig(80))
    leaves = match_mask2former(config, tensors_of(model), Path("memory"))
    assert sum(leaf.size for leaf in leaves.values()) // 10**6 == millions


@pytest.mark.heavy
@pytest.mark.parametrize("backbone", BACKBONES)
def test_models_of_the_published_size(backbone):
    model = build(backbone, {}, num_labels=80)
    pixels = np.random.RandomState(0).standard_normal((203, 305, 3)).astype(np.float32)
    config, params = matched(model)
    print(backbone, assert_same(model, config, params, pixels))
