"""Floating-point operations that SAM needs, and that a device can do: the parts of model FLOP utilisation.

Counted are multiplications and additions of matrix products and convolutions as the code of `samjax` does them
(windows padded, decoder reordered, projections folded where the decoder folds them), two for each product; norms,
softmax and activations are left out.
"""

import math
from collections.abc import Collection
from typing import Any

from flax.traverse_util import flatten_dict

from samjax.config import SamConfig
from samjax.model import abstract_params
from samjax.nn.encoders import family_of
from samjax.ops.attention.tokens import folds

from .cached.point import IMAGE

# Dense matrix products of one device, FLOP/s, by the beginning of JAX's `device_kind` (the manufacturers' data sheets).
# float32 stands for what "float32" in JAX means by default there: one bfloat16 pass on TPUs, TF32 on GPUs.
PEAK: tuple[tuple[str, dict[str, float]], ...] = (
    ("TPU v6", {"bfloat16": 918e12, "float32": 918e12}),  # "TPU v6 lite", Trillium
    ("TPU v5 lite", {"bfloat16": 197e12, "float32": 197e12}),  # v5e
    ("TPU v5e", {"bfloat16": 197e12, "float32": 197e12}),
    ("TPU v5", {"bfloat16": 459e12, "float32": 459e12}),  # "TPU v5" and "TPU v5p"
    ("TPU v4", {"bfloat16": 275e12, "float32": 275e12}),
    ("TPU v3", {"bfloat16": 61.5e12, "float32": 61.5e12}),  # JAX sees a chip's two cores as two devices
    ("TPU v2", {"bfloat16": 22.5e12, "float32": 22.5e12}),
    ("NVIDIA B200", {"bfloat16": 2250e12, "float32": 1125e12}),
    ("NVIDIA H200", {"bfloat16": 989e12, "float32": 494e12}),
    ("NVIDIA GH200", {"bfloat16": 989e12, "float32": 494e12}),
    ("NVIDIA H100 PCIe", {"bfloat16": 756e12, "float32": 378e12}),
    ("NVIDIA H100", {"bfloat16": 989e12, "float32": 494e12}),
    ("NVIDIA A100", {"bfloat16": 312e12, "float32": 156e12}),
    ("NVIDIA L40S", {"bfloat16": 362e12, "float32": 183e12}),
    ("NVIDIA L40", {"bfloat16": 181e12, "float32": 90.5e12}),
    ("NVIDIA L4", {"bfloat16": 121e12, "float32": 60e12}),
    ("NVIDIA A10G", {"bfloat16": 70e12, "float32": 35e12}),
    ("NVIDIA A10", {"bfloat16": 125e12, "float32": 62.5e12}),
    ("Tesla V100", {"bfloat16": 15.7e12, "float32": 15.7e12}),  # tensor cores take neither
    ("Tesla T4", {"bfloat16": 8.1e12, "float32": 8.1e12}),
)


def encoder_flops(config: SamConfig) -> int:
    """Operations of one image's embedding."""
    return sum(family_of(config.image_encoder).flops(config.image_encoder, config.width))


def trained_encoder_flops(config: SamConfig, trained: Collection[str], kept: str | None = None) -> int:
    """Operations of one image's embedding in a training step: forward from the kept features on, and backward down to
    the first layer that has trained parameters.

    Backward is twice the forward, less what frozen kernels' gradients would be: as much as the products with them. In
    the first trained layer, what comes into it has a gradient, too. What low-rank factors and singular values add is
    left out.

    Args:
        config: the model.
        trained: names of what is trained.
        kept: the point of the encoder whose features are kept (`samjax.train.cached.point`); None: none are.
    """
    encoder, part = config.image_encoder, "image_encoder/"
    family = family_of(encoder)
    layers = family.flops(encoder, config.width)
    after = 0 if kept is None else len(layers) if kept == IMAGE else family.tap_names(encoder).index(kept) + 2
    first = min(
        (family.layer(encoder, name.removeprefix(part)) for name in trained if name.startswith(part)),
        default=len(layers),
    )
    frozen = [0] * len(layers)  # operations with frozen kernels, by layer
    leaves: dict[str, Any] = flatten_dict(abstract_params(config)["image_encoder"], sep="/")
    for name, leaf in leaves.items():
        if name.endswith("kernel") and part + name not in trained:
            frozen[family.layer(encoder, name)] += 2 * math.prod(config.grid) * leaf.size
    backward = (2 * count - min(still, count) for count, still in zip(layers, frozen, strict=True))
    return sum(layers[after:]) + sum(list(backward)[first:])


def decoder_flops(config: SamConfig, *, prompt_tokens: int, multimask: bool, mask_prompt: bool) -> int:
    """Operations of one prompt of `prompt_tokens` points and corners on one image.

    Without a mask prompt, what all prompts of an image share is not counted: see `image_side_flops`.
    """
    decoder, width = config.mask_decoder, config.width
    image = math.prod(config.grid)
    tokens = config.output_tokens + prompt_tokens

    count = 0
    for layer in range(decoder.depth):
        count += 2 * tokens * 4 * width * width + 2 * 2 * tokens * tokens * width  # self-attention
        count += 2 * 2 * tokens * width * decoder.mlp_dim
        count += _attention_flops(config, tokens, projected=layer == 0)  # tokens to image
        count += _attention_flops(config, tokens, projected=layer == 0, image_asks=True)
    count += _attention_flops(config, tokens, projected=False)  # the last look at the image
    masks = decoder.multimask_outputs if multimask else 1
    count += 2 * image * 4 * width * (width // 4) + 2 * 4 * image * 4 * (width // 4) * (width // 8)  # upscaling
    count += masks * (2 * 2 * width * width + 2 * width * (width // 8) + 2 * 16 * image * (width // 8))
    if decoder.hq:
        count += 2 * 2 * width * width + 2 * width * (width // 8)  # the token's MLP
        count += 2 * 16 * image * (9 * (width // 8) * (width // 4) + 9 * (width // 4) + width // 8)  # fusion, mask
    hidden = decoder.iou_head_dim
    count += 2 * hidden * (width + hidden * (decoder.iou_head_depth - 2) + config.mask_tokens)
    if mask_prompt:
        channels = config.mask_channels
        count += 2 * image * (4 * 4 * (channels // 4) + 4 * (channels // 4) * channels + channels * width)
        count += image_side_flops(config)
    return count


def image_side_flops(config: SamConfig) -> int:
    """Operations of the first decoder layer's projections of the image, which prompts without a mask share."""
    return 2 * math.prod(config.grid) * 3 * config.width * (config.width // config.mask_decoder.downsample)


def hq_side_flops(config: SamConfig) -> int:
    """Operations of HQ-SAM's features of an image, which all its prompts share: 0 without HQ-SAM's token."""
    if not config.mask_decoder.hq:
        return 0
    width, image = config.width, math.prod(config.grid)
    _, early = config.image_encoder.early_output  # type: ignore[attr-defined]  # as the config checks
    parts = (early, width), (width, width // 4)  # the encoder's block and the embedding: channels before and between
    return sum(2 * image * 4 * inputs * hidden + 2 * 4 * image * 4 * hidden * (width // 8) for inputs, hidden in parts)


def _attention_flops(config: SamConfig, tokens: int, *, projected: bool, image_asks: bool = False) -> int:
    """Operations of one cross-attention between tokens and image, in the order of `samjax.ops.attention.tokens`.

    Args:
        projected: whether the image's projections are at hand, those of `image_side_flops`.
        image_asks: the image attends to the tokens; otherwise they attend to it.
    """
    width, heads = config.width, config.mask_decoder.heads
    inner = width // config.mask_decoder.downsample
    image = math.prod(config.grid)
    folded = folds(tokens, inner // heads)
    of_tokens, of_image = 2 * tokens * width * inner, 2 * image * width * inner  # a projection
    within, across = 2 * tokens * image * inner, 2 * heads * tokens * image * width  # logits or values; the same folded
    if image_asks:
        logits = of_tokens + (within if projected else of_tokens + across if folded else of_image + within)
        values = of_tokens + (of_tokens + across if folded else within + of_image)
        return logits + values
    own = 2 * of_tokens  # query and output
    if projected:
        return own + 2 * within
    return own + (2 * of_tokens + 2 * across if folded else 2 * of_image + 2 * within)


def step_flops(
    config: SamConfig, *, images: int, masks: float, passes: int, prompt_tokens: int, encoder: int | None = None
) -> int:
    """Operations of one training step: forward, and backward as twice the forward. Recomputation is not counted, as is
    usual.

    Args:
        config: the model.
        images: in the batch, on all devices together.
        masks: valid ones of an image, the mean: blocks of slots without any are skipped.
        passes: decoder passes for each mask; the first asks for three masks, the others have a mask prompt.
        prompt_tokens: slots for points and corners.
        encoder: operations of an image's embedding (`trained_encoder_flops`); None: all of the encoder is trained.
    """
    first = decoder_flops(config, prompt_tokens=prompt_tokens, multimask=True, mask_prompt=False)
    later = decoder_flops(config, prompt_tokens=prompt_tokens, multimask=False, mask_prompt=True)
    encoder = 3 * encoder_flops(config) if encoder is None else encoder
    shared = image_side_flops(config) + passes * hq_side_flops(config)
    return round(images * (encoder + 3 * (shared + masks * (first + (passes - 1) * later))))


def peak_flops(kind: str, compute_dtype: str) -> float | None:
    """The peak of a `device_kind` by `PEAK`; None if it is not there."""
    return next((peaks[compute_dtype] for start, peaks in PEAK if kind.startswith(start)), None)


def utilisation(flops: int, seconds: float, devices: int, peak: float) -> float:
    """Model FLOP utilisation: the share of the devices' peak that the step's own operations take."""
    return flops / (seconds * devices * peak)
