"""HQ-SAM's own code as an oracle: the package `segment-anything-hq`, with random weights."""

import functools
import importlib
import importlib.util
import sys
import types
from typing import Any

from parity.reference import shake, torchvision_stand_ins

from samjax.config import SamConfig

_TIMM = ("timm", "timm.models", "timm.models.layers", "timm.models.registry")


def import_segment_anything_hq() -> types.ModuleType:
    """The package. It imports timm for an encoder that no test runs, so what it takes from there stands in."""
    if "segment_anything_hq" in sys.modules:
        return sys.modules["segment_anything_hq"]
    import torch

    stand_ins = {name: types.ModuleType(name) for name in _TIMM}
    layers: Any = stand_ins["timm.models.layers"]
    layers.DropPath, layers.trunc_normal_ = torch.nn.Identity, torch.nn.init.trunc_normal_
    layers.to_2tuple = lambda side: (side, side)
    registry: Any = stand_ins["timm.models.registry"]
    registry.register_model = lambda function: function
    if importlib.util.find_spec("torchvision") is None:
        stand_ins |= torchvision_stand_ins()
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("segment_anything_hq")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def build_hq_reference(config: SamConfig, seed: int = 0):
    """HQ-SAM's torch `Sam` in the shape of `config`, square images only, random as `reference.build_reference` is."""
    import torch

    modeling = import_segment_anything_hq().modeling
    encoder, decoder = config.image_encoder, config.mask_decoder
    torch.manual_seed(seed)
    model = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=encoder.depth,
            embed_dim=encoder.width,
            img_size=encoder.image_size[0],
            mlp_ratio=encoder.mlp_ratio,
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=encoder.heads,
            patch_size=encoder.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=encoder.global_blocks,
            window_size=encoder.window_size,
            out_chans=config.width,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.width,
            image_embedding_size=config.grid,
            input_image_size=config.image_size,
            mask_in_chans=config.mask_channels,
        ),
        mask_decoder=modeling.MaskDecoderHQ(
            num_multimask_outputs=decoder.multimask_outputs,
            transformer=modeling.TwoWayTransformer(
                depth=decoder.depth,
                embedding_dim=config.width,
                mlp_dim=decoder.mlp_dim,
                num_heads=decoder.heads,
            ),
            transformer_dim=config.width,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_dim,
            vit_dim=encoder.width,
        ),
    )
    return shake(model, seed).eval()
