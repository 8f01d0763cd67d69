"""How many floating-point operations SAM needs, and how many a device can do: what model FLOP utilisation is made of.

Counted are multiplications and additions of matrix products and convolutions as the code of `samjax` does them
(windows padded, decoder reordered), two for each product; norms, softmax and activations are left out.
"""

import math
import time

import jax
import jax.numpy as jnp

from samjax.config import SamConfig

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
    """Of one image's embedding."""
    encoder = config.image_encoder
    tokens, width = math.prod(encoder.grid), encoder.width
    count = 2 * tokens * 3 * encoder.patch_size**2 * width
    for block in range(encoder.depth):
        if block in encoder.global_blocks:
            windows, grid = 1, encoder.grid
        else:
            windows = math.prod(-(-side // encoder.window_size) for side in encoder.grid)
            grid = (encoder.window_size, encoder.window_size)
        keys = math.prod(grid)
        attention = 2 * 2 * keys * keys * width  # logits, values
        positions = 2 * keys * sum(grid) * width
        count += windows * (attention + positions)
        count += 2 * tokens * width * width * (3 + 1 + 2 * encoder.mlp_ratio)  # qkv, proj, MLP
    return count + 2 * tokens * (width + 9 * config.width) * config.width  # neck


def decoder_flops(config: SamConfig, *, prompt_tokens: int, multimask: bool, mask_prompt: bool) -> int:
    """Of one prompt of `prompt_tokens` points and corners on one image.

    Without a mask prompt, what all prompts of an image share is not counted: see `image_side_flops`.
    """
    decoder, width = config.mask_decoder, config.width
    inner = width // decoder.downsample
    image = math.prod(config.grid)
    tokens = 1 + config.mask_tokens + prompt_tokens

    def projections(number: int) -> int:
        return 2 * tokens * number * width * inner

    count = 0
    for layer in range(decoder.depth):
        count += 2 * tokens * 4 * width * width + 2 * 2 * tokens * tokens * width  # self-attention
        count += 2 * 2 * tokens * width * decoder.mlp_dim
        values_and_out = projections(2) + 2 * decoder.heads * tokens * image * width  # image to tokens, folded
        if layer == 0:
            count += projections(2) + 2 * 2 * tokens * image * inner  # tokens to image
            count += projections(1) + 2 * tokens * image * inner + values_and_out
        else:
            count += _folded(config, tokens) + projections(2)
            count += projections(2) + 2 * decoder.heads * tokens * image * width + values_and_out
    count += _folded(config, tokens) + projections(2)  # the last look at the image
    masks = decoder.multimask_outputs if multimask else 1
    count += 2 * image * 4 * width * (width // 4) + 2 * 4 * image * 4 * (width // 4) * (width // 8)  # upscaling
    count += masks * (2 * 2 * width * width + 2 * width * (width // 8) + 2 * 16 * image * (width // 8))
    hidden = decoder.iou_head_dim
    count += 2 * hidden * (width + hidden * (decoder.iou_head_depth - 2) + config.mask_tokens)
    if mask_prompt:
        channels = config.mask_channels
        count += 2 * image * (4 * 4 * (channels // 4) + 4 * (channels // 4) * channels + channels * width)
        count += image_side_flops(config)
    return count


def image_side_flops(config: SamConfig) -> int:
    """Of the first decoder layer's projections of the image, which prompts without a mask share."""
    return 2 * math.prod(config.grid) * 3 * config.width * (config.width // config.mask_decoder.downsample)


def _folded(config: SamConfig, tokens: int) -> int:
    """Tokens attend to an image that is never projected: projections folded into the tokens, logits and context."""
    decoder, width = config.mask_decoder, config.width
    inner = width // decoder.downsample
    return 2 * 2 * tokens * width * inner + 2 * 2 * decoder.heads * tokens * math.prod(config.grid) * width


def step_flops(config: SamConfig, *, images: int, masks: int, passes: int, prompt_tokens: int) -> int:
    """Of one training step: forward, and backward as twice the forward. Recomputation is not counted, as is usual.

    Args:
        config: the model.
        images: in the batch, on all devices together.
        masks: of each image, valid or not: all slots are computed.
        passes: decoder passes for each mask; the first asks for three masks, the others have a mask prompt.
        prompt_tokens: slots for points and corners.
    """
    first = decoder_flops(config, prompt_tokens=prompt_tokens, multimask=True, mask_prompt=False)
    later = decoder_flops(config, prompt_tokens=prompt_tokens, multimask=False, mask_prompt=True)
    of_image = encoder_flops(config) + image_side_flops(config) + masks * (first + (passes - 1) * later)
    return 3 * images * of_image


def peak_flops(device: jax.Device, compute_dtype: str) -> float:
    """FLOP/s of matrix products that one device can do: from its data sheet, or measured where the table lacks it."""
    return known_peak(device.device_kind, compute_dtype) or _measured(device, compute_dtype)


def known_peak(kind: str, compute_dtype: str) -> float | None:
    """What `PEAK` says about a `device_kind`."""
    return next((peaks[compute_dtype] for start, peaks in PEAK if kind.startswith(start)), None)


def utilisation(flops: int, seconds: float, devices: int, peak: float) -> float:
    """Model FLOP utilisation: the share of the devices' peak that the step's own operations take."""
    return flops / (seconds * devices * peak)


def _measured(device: jax.Device, compute_dtype: str, side: int = 1024) -> float:
    """The fastest of a few products of square matrices. Devices simulated by one CPU share what is measured."""
    a = jax.device_put(jnp.ones((side, side), jnp.dtype(compute_dtype)), device)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
