"""The image encoder in bfloat16, parameters and all, on pixels that lie on the device."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.models import NAMES, config_of, random_params, random_pixels
from gpu_sections.stopwatch import Warm, speed, warm
from samjax import Execution, SamConfig
from samjax.convert.huggingface import model_config
from samjax.model import jitted_encode
from samjax.train.flops import encoder_flops

DTYPE = "bfloat16"


def in_samjax(setting: Setting, *, variant: str, batches: Sequence[int]) -> Iterator[Record]:
    config, execution = config_of(setting, variant), Execution.for_backend(compute_dtype=DTYPE)
    params = random_params(config, DTYPE)
    for images in batches:
        pixels = jax.device_put(random_pixels(config, images))
        pixels = pixels[0] if images == 1 else pixels  # one photo comes without the axis, as in `Sam.encode`
        program = jax_device.compiled(jitted_encode, config, params, pixels, execution)
        encode = functools.partial(program.call, params, pixels)
        _require_finite(bool(jnp.isfinite(encode().image).all()))
        timing = warm(encode, jax_device.finish)
        memory = {"peak_bytes": jax_device.peak_bytes(), "program_bytes": program.bytes}
        yield _record(config, variant, images, timing, compile_seconds=program.seconds, **memory)


def in_meta(
    setting: Setting, *, variant: str, batches: Sequence[int], compiling: Literal["whole", "blocks"]
) -> Iterator[Record]:
    """Meta's encoder as it is, then compiled by `torch.compile`: the whole of it, or each block, which takes two
    programs however many blocks there are."""
    import torch
    from parity.reference import build_reference

    from gpu_sections import torch_device

    config = config_of(setting, variant)
    encoder = build_reference(config, device=str(torch_device.device())).image_encoder.to(torch.bfloat16)
    yield from _in_torch(config, variant, batches, encoder)
    if compiling == "whole":
        contender, encoder = "torch.compile", torch.compile(encoder, dynamic=False)
    else:
        contender = "torch.compile of each block"
        for block in encoder.blocks:
            block.compile(dynamic=False)
    yield from _in_torch(config, variant, batches, encoder, contender=contender)


def in_transformers(setting: Setting, *, variant: str, batches: Sequence[int]) -> Iterator[Record]:
    import torch
    import transformers

    from gpu_sections import torch_device

    config, device = config_of(setting, variant), torch_device.device()
    theirs = transformers.SamConfig.from_dict(model_config(config, DTYPE))
    with torch.device(device):
        model = transformers.AutoModel.from_config(theirs, attn_implementation="sdpa")
    encoder = model.to(device, torch.bfloat16).eval().vision_encoder
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)  # they start at almost nothing
    yield from _in_torch(config, variant, batches, lambda pixels: encoder(pixels).last_hidden_state)


def _in_torch(
    config: SamConfig,
    variant: str,
    batches: Sequence[int],
    encoder: Callable[..., Any],
    contender: str | None = None,
) -> Iterator[Record]:
    """`contender` is who compiles, in its first run; None: the job's, who does not."""
    import torch

    from gpu_sections import torch_device

    for images in batches:
        pixels = torch.from_numpy(random_pixels(config, images)).permute(0, 3, 1, 2)
        pixels = pixels.contiguous().to(torch_device.device(), torch.bfloat16)
        with torch.no_grad():
            start = time.perf_counter()
            _require_finite(bool(encoder(pixels).isfinite().all()))
            first = time.perf_counter() - start
            torch_device.forget_peak()
            timing = warm(functools.partial(encoder, pixels), torch_device.finish)
        compiling = {"contender": contender, "compile_seconds": first - timing.seconds} if contender else {}
        yield _record(config, variant, images, timing, peak_bytes=torch_device.peak_bytes(), **compiling)


def _record(config: SamConfig, variant: str, images: int, timing: Warm, **more: Any) -> Record:
    what = f"{NAMES[variant]} encoder, batch {images}"
    return speed(what, DTYPE, timing, count=images, flops=images * encoder_flops(config), **more)


def _require_finite(finite: bool) -> None:
    if not finite:
        raise ArithmeticError("the features are not finite")
