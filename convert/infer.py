"""Infers the configuration from the shapes of the parameters, under Meta's names."""

import contextlib
import dataclasses

from samjax.config import DecoderConfig, SamConfig
from samjax.nn import encoders
from samjax.nn.encoders.inference import MAX_DEPTH, Declared, Shapes, bounded, count

NOTHING = Declared()
# Raised for a name that is missing or misshaped; the comparison of all names will say so.
_MISSING = (KeyError, ValueError, IndexError, ZeroDivisionError)


def candidates(shapes: Shapes, declared: Declared = NOTHING) -> list[SamConfig]:
    """Returns the configurations that the shapes may belong to, the likeliest of each family of encoders first.

    That one follows from the shapes alone. ViT's last one is the nearest variant in width and depth, so that one
    damaged shape is reported as one difference. For a sound variant they are the same, and there is one.

    Args:
        shapes: shapes in PyTorch's layout by Meta's names; any shapes, also of a hostile file.
        declared: what a config.json beside the file declares.
    """
    found: list[SamConfig] = []
    for family in encoders.FAMILIES:
        with contextlib.suppress(*_MISSING):
            first, *others = [] if family.infer is None else family.infer(shapes, declared)
            with contextlib.suppress(*_MISSING):
                first = _decoder(first, shapes, declared)
            found += [first, *(other for other in others if other != first)]
    return found


def _decoder(config: SamConfig, shapes: Shapes, declared: Declared) -> SamConfig:
    """Fills in the decoder and the prompt encoder; raises one of `_MISSING`."""
    width = bounded(shapes["mask_decoder.iou_token.weight"][1])
    layer = "mask_decoder.transformer.layers.0"
    decoder = DecoderConfig(
        depth=count(shapes, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        heads=declared.decoder_heads,
        mlp_dim=bounded(shapes[f"{layer}.mlp.lin1.weight"][0]),
        downsample=width // shapes[f"{layer}.cross_attn_token_to_image.q_proj.weight"][0],
        multimask_outputs=bounded(shapes["mask_decoder.mask_tokens.weight"][0], MAX_DEPTH) - 1,
        iou_head_dim=bounded(shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0]),
        iou_head_depth=count(shapes, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        hq="mask_decoder.hf_token.weight" in shapes,
    )
    mask_channels = bounded(shapes["prompt_encoder.mask_downscaling.3.weight"][0])
    return dataclasses.replace(config, mask_decoder=decoder, width=width, mask_channels=mask_channels)
