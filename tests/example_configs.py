"""Configurations of unusual shapes, and their parameters without numbers."""

import dataclasses

import numpy as np
from example_models import SMALL
from flax.traverse_util import flatten_dict

from samjax import VARIANTS
from samjax.checkpoint import LazyArray
from samjax.config import DecoderConfig, SamConfig, ViTConfig
from samjax.convert.mapping import to_torch
from samjax.convert.matching import expected_entries
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
    "a wide MLP": SamConfig(ViTConfig(width=32, depth=2, heads=4, global_blocks=(0,), mlp_ratio=3)),
    "HQ-SAM's token": SMALL.with_hq(),
    "adapters": dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, adapter=8)),
    "five channels": dataclasses.replace(SMALL, image_encoder=dataclasses.replace(SMALL.image_encoder, channels=5)),
    "ViT-B whose windows are as large as its grid": VARIANTS["vit_b"].with_image_size(224),
}
# Hugging Face's SamModel has no names for some of their parameters.
BEYOND_HUGGING_FACE = CUSTOM["HQ-SAM's token"], CUSTOM["adapters"]


def meta_tensors(config: SamConfig) -> dict[str, LazyArray]:
    """Makes tensors of zeros under Meta's names; tests ask for their shapes only."""
    table = expected_entries(config)
    leaves = flatten_dict(abstract_params(config), sep="/")
    empty = {
        name: LazyArray(leaf.shape, np.dtype(leaf.dtype), lambda s=leaf.shape: np.zeros(s, np.float32))
        for name, leaf in leaves.items()
    }
    return {table[name].meta: to_torch(leaf, table[name].axes) for name, leaf in empty.items()}
