"""Hugging Face's `SamModel` folder: config.json and preprocessor_config.json, read and written."""

import json
from pathlib import Path
from typing import Any

from samjax.checkpoint import CheckpointError, plain_vit
from samjax.config import SamConfig
from samjax.nn.encoders.inference import Declared
from samjax.transforms import channel_statistics

_IMAGE_MEAN, _IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of red, green and blue in 0..1


def write_configs(folder: Path, config: SamConfig, dtype: str) -> None:
    """Writes the two files that `SamModel.from_pretrained` and `SamProcessor.from_pretrained` read.

    Raises:
        CheckpointError: the model does not take square images.
    """
    for name, content in (
        ("config.json", model_config(config, dtype)),
        ("preprocessor_config.json", preprocessor_config(config)),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def model_config(config: SamConfig, dtype: str = "float32") -> dict[str, Any]:
    """Returns config.json, as `SamModel.save_pretrained` writes it.

    Raises:
        CheckpointError: the image encoder is no plain ViT, or the model does not take square images.
    """
    encoder, decoder = plain_vit(config, who="Hugging Face's SamModel"), config.mask_decoder
    image_size = _square(config)
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "dtype": dtype,
        "torch_dtype": dtype,  # the field's name before transformers 5
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": encoder.width,
            "output_channels": config.width,
            "num_hidden_layers": encoder.depth,
            "num_attention_heads": encoder.heads,
            "num_channels": encoder.channels,
            "image_size": image_size,
            "patch_size": encoder.patch_size,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "attention_dropout": 0.0,
            "initializer_range": 1e-10,
            "qkv_bias": True,
            "mlp_ratio": float(encoder.mlp_ratio),
            "mlp_dim": encoder.mlp_ratio * encoder.width,
            "use_abs_pos": True,
            "use_rel_pos": True,
            "window_size": encoder.window_size,
            "global_attn_indexes": list(encoder.global_blocks),
            "num_pos_feats": config.width // 2,
        },
        "prompt_encoder_config": {
            "model_type": "sam_prompt_encoder",
            "hidden_size": config.width,
            "image_size": image_size,
            "patch_size": encoder.patch_size,
            "image_embedding_size": config.grid[0],
            "mask_input_channels": config.mask_channels,
            "num_point_embeddings": 4,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        "mask_decoder_config": {
            "model_type": "sam_mask_decoder",
            "hidden_size": config.width,
            "hidden_act": "relu",
            "mlp_dim": decoder.mlp_dim,
            "num_hidden_layers": decoder.depth,
            "num_attention_heads": decoder.heads,
            "attention_downsample_rate": decoder.downsample,
            "num_multimask_outputs": decoder.multimask_outputs,
            "iou_head_depth": decoder.iou_head_depth,
            "iou_head_hidden_dim": decoder.iou_head_dim,
            # Meta's transformer has PyTorch's default of 1e-5. transformers' default, and Hugging Face's own
            # conversions, say 1e-6, so that their masks differ from Meta's.
            "layer_norm_eps": 1e-5,
        },
    }


def preprocessor_config(config: SamConfig) -> dict[str, Any]:
    """Returns preprocessor_config.json: longest side to the input size, ImageNet's mean and deviation, padding.

    Raises:
        CheckpointError: the model does not take square images.
    """
    side, mask_side = _square(config), config.mask_size[0]
    mean, std = channel_statistics(config.channels)
    return {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": config.channels == 3,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": _IMAGE_MEAN + [round(float(value) / 255, 6) for value in mean[3:]],
        "image_std": _IMAGE_STD + [round(float(value) / 255, 6) for value in std[3:]],
        "mask_pad_size": {"height": mask_side, "width": mask_side},
        "mask_size": {"longest_edge": mask_side},
        "pad_size": {"height": side, "width": side},
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": side},
    }


def declared_by(declared: dict[str, Any] | None, source: Path) -> Declared:
    """Reads from config.json what shapes cannot tell; the defaults if there is none.

    Raises:
        CheckpointError: a section, or a field that is read, is of the wrong type.
    """
    if not declared:
        return Declared()
    vision, decoder = (_section(declared, name, source) for name in ("vision_config", "mask_decoder_config"))
    blocks = vision.get("global_attn_indexes")
    heads = decoder.get("num_attention_heads", 8)
    window = vision.get("window_size")
    if not isinstance(heads, int) or not isinstance(window, int | None) or not isinstance(blocks, list | None):
        raise CheckpointError(f"{source}: config.json is damaged; fetch it again")
    return Declared(heads, window, tuple(blocks) if blocks else None)


def check_declared(declared: dict[str, Any] | None, config: SamConfig, source: Path) -> None:
    """Compares config.json, if there is one, with the configuration that the shapes show.

    Raises:
        CheckpointError: it declares another function or another kind of model, or is damaged, or the model does not
            take square images, as Hugging Face's do.
    """
    if not declared:
        return
    kind = declared.get("model_type", "sam")
    if kind != "sam":
        raise CheckpointError(f"{source}: config.json is of a {kind!r} model, expected 'sam'")
    expected = model_config(config)
    for section in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        found = _section(declared, section, source)
        for field, value in expected[section].items():
            # Old files leave fields out or null, and the epsilon is known to be wrong in them.
            if field in ("layer_norm_eps", "initializer_range", "model_type") or found.get(field) is None:
                continue
            if found[field] != value:
                raise CheckpointError(
                    f"{source}: config.json says {section}.{field} = {str(found[field])[:80]}, the parameters {value}"
                )


def _section(declared: dict[str, Any], name: str, source: Path) -> dict[str, Any]:
    """Returns a section of config.json, empty if it is left out. Raises `CheckpointError` if it is no JSON object."""
    section = declared.get(name) or {}
    if not isinstance(section, dict):
        raise CheckpointError(f"{source}: config.json is damaged; fetch it again")
    return section


def _square(config: SamConfig) -> int:
    """Returns the side of the model's input, pixels. Raises `CheckpointError` if the input is not square."""
    height, width = config.image_size
    if height != width:
        raise CheckpointError(f"Hugging Face's SamModel takes square images only, this model {config.image_size}")
    return height
