"""Reads Hugging Face's `Mask2FormerForUniversalSegmentation`, with a Swin or a ResNet, without PyTorch."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.mask2former import Mask2FormerConfig, abstract_params
from samjax.mismatch import explain_mismatch
from samjax.nn.backbones.config import BackboneConfig, ResNetConfig, SwinConfig
from samjax.nn.heads.config import Mask2FormerHeadConfig, MaskedDecoderConfig, PixelDecoderConfig
from samjax.types import Params

from .mapping import KeyEntry, KeyRule, entries_by, to_ours, torch_shape
from .mask2former_keys import HEAD, RESNET, SWIN, to_file_names
from .matching import to_known_dtypes
from .state_dict import StateDict, open_state_dict

_BACKBONES: dict[type, tuple[KeyRule, ...]] = {SwinConfig: SWIN, ResNetConfig: RESNET}
# Fields of config.json that change the function, with the only value that is computed here.
_FIXED: dict[str, Any] = {
    "model_type": "mask2former",
    "activation_function": "relu",
    "pre_norm": False,
    "common_stride": 4,
    "feature_strides": [4, 8, 16, 32],
}
_FIXED_BACKBONE: dict[str, dict[str, Any]] = {
    "swin": {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "num_channels": 3,
        "qkv_bias": True,
        "use_absolute_embeddings": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "resnet": {
        "hidden_act": "relu",
        "num_channels": 3,
        "layer_type": "bottleneck",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
}


def read_mask2former(path: str | os.PathLike[str]) -> tuple[Mask2FormerConfig, Params]:
    """Reads a checkpoint folder of Hugging Face's, or the file of weights in it.

    Warns if float64 is rounded to float32.

    Returns:
        The configuration, and the parameters as nested dicts of numpy arrays in the dtypes of the file but for
        float64.

    Raises:
        CheckpointError: there is no config.json beside the weights, it declares what is not computed here, or names or
            shapes of parameters are not exactly those of the model that it declares.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    opened = open_state_dict(path)
    if opened.declared is None:
        raise CheckpointError(
            f"{path}: a Mask2Former needs the config.json beside its weights, which says how many heads it has and how "
            "large its windows are; give the folder that Hugging Face's save_pretrained has written"
        )
    config = mask2former_config(opened.declared, path)
    used = {name: opened.tensors[name] for name in to_file_names(opened.tensors)}
    tensors, rounded = to_known_dtypes(used, path)
    for message in rounded:
        warnings.warn(f"{path}: {message}", stacklevel=2)
    leaves = {name: leaf.read() for name, leaf in match_mask2former(config, tensors, path).items()}
    return config, unflatten_dict(leaves, sep="/")


def mask2former_config(declared: Mapping[str, Any], source: Path) -> Mask2FormerConfig:
    """The configuration that config.json declares; what it leaves out is Hugging Face's default.

    Raises:
        CheckpointError: it is of another model, or declares what is not computed here, or sizes that do not fit.
    """
    _check_fixed(declared, _FIXED, source, "")
    width = declared.get("feature_size", 256)
    heads = declared.get("num_attention_heads", 8)
    classes, backbone = (declared.get(name) or {} for name in ("id2label", "backbone_config"))
    if not isinstance(classes, Mapping) or not isinstance(backbone, Mapping):
        raise CheckpointError(f"{source}: config.json is damaged; fetch it again")
    try:
        pixel_decoder = PixelDecoderConfig(
            width=width,
            mask_width=declared.get("mask_feature_size", 256),
            depth=declared.get("encoder_layers", 6),
            heads=heads,
            mlp_dim=declared.get("encoder_feedforward_dim", 1024),
        )
        decoder = MaskedDecoderConfig(
            width=declared.get("hidden_dim", 256),
            depth=declared.get("decoder_layers", 10) - 1,  # it counts the answer before the first layer
            heads=heads,
            mlp_dim=declared.get("dim_feedforward", 2048),
            queries=declared.get("num_queries", 100),
            projects_levels=declared.get("enforce_input_projection", False),
        )
        head = Mask2FormerHeadConfig(len(classes) or 2, pixel_decoder, decoder)
        return Mask2FormerConfig(_backbone_config(backbone, source), head)
    except (TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{source}: config.json declares no Mask2Former that fits together: {error}") from None


def _backbone_config(declared: Mapping[str, Any], source: Path) -> BackboneConfig:
    kind = declared.get("model_type", "swin")
    if kind not in _FIXED_BACKBONE:
        raise CheckpointError(f"{source}: config.json says the backbone is a {kind!r}; expected 'swin' or 'resnet'")
    _check_fixed(declared, _FIXED_BACKBONE[kind], source, "backbone_config.")
    if kind == "resnet":
        return ResNetConfig(
            declared.get("embedding_size", 64),
            tuple(declared.get("hidden_sizes", (256, 512, 1024, 2048))),
            tuple(declared.get("depths", (3, 4, 6, 3))),
        )
    ratio = declared.get("mlp_ratio", 4)
    if ratio != int(ratio):
        raise CheckpointError(f"{source}: config.json says backbone_config.mlp_ratio = {ratio}, not a whole number")
    return SwinConfig(
        width=declared.get("embed_dim", 96),
        depths=tuple(declared.get("depths", (2, 2, 6, 2))),
        heads=tuple(declared.get("num_heads", (3, 6, 12, 24))),
        window=declared.get("window_size", 7),
        patch=declared.get("patch_size", 4),
        mlp_ratio=int(ratio),
    )


def _check_fixed(declared: Mapping[str, Any], fixed: Mapping[str, Any], source: Path, section: str) -> None:
    for field, value in fixed.items():
        found = declared.get(field)
        if found is not None and found != value:
            raise CheckpointError(f"{source}: config.json says {section}{field} = {str(found)[:80]}, expected {value}")


def match_mask2former(config: Mask2FormerConfig, tensors: StateDict, source: Path) -> dict[str, LazyArray]:
    """Matches every name and shape of a state dict with our parameters, flat ("a/b/c") and still unread.

    Names are those of Hugging Face's files, or of a state dict of its classes.

    Raises:
        CheckpointError: with the names that are missing, extra and misshaped.
    """
    renamed = {new: tensors[name] for name, new in to_file_names(tensors).items()}
    table = mask2former_entries(config)
    shapes: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    expected = {
        entry.name_in("huggingface"): torch_shape(shapes[name].shape, entry.axes) for name, entry in table.items()
    }
    difference = explain_mismatch(expected, {name: tensor.shape for name, tensor in renamed.items()})
    if difference:
        raise CheckpointError(f"{source} does not hold the Mask2Former that its config.json declares\n{difference}")
    return {name: to_ours(renamed[entry.name_in("huggingface")], entry.axes) for name, entry in table.items()}


def mask2former_entries(config: Mask2FormerConfig) -> dict[str, KeyEntry]:
    """The entry of the key table for every parameter, by our names.

    Raises:
        CheckpointError: the table has no names for some, as of a pyramid of more levels than Hugging Face's.
    """
    ours: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    found = entries_by((*_BACKBONES[type(config.backbone)], *HEAD), ours, "ours")
    if missing := [name for name in ours if name not in found]:
        raise CheckpointError(f"Hugging Face has no name for {missing[0]} and {len(missing) - 1} more parameters")
    return found
