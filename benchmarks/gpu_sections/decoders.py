"""Masks for many single points of one photo, whose embedding lies on the device: the decoder, three masks each."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.models import NAMES, config_of, random_params
from gpu_sections.stopwatch import Warm, speed, warm
from samjax import Embedding, Execution, Prompts, SamConfig
from samjax.model import jitted_decode
from samjax.train.flops import decoder_flops, image_side_flops

DTYPE = "bfloat16"
TOGETHER = 64  # prompts that Meta's generator decodes at once
POINT_TOKENS = 2  # a point and the padding point


def in_samjax(setting: Setting, *, variant: str, prompts: Sequence[int]) -> Iterator[Record]:
    config, execution = config_of(setting, variant), Execution.for_backend(compute_dtype=DTYPE)
    params = random_params(config, DTYPE)
    size = jnp.asarray(config.image_size, jnp.int32)
    embedding = Embedding(jnp.asarray(_features(config), execution.dtype), size, size)
    for count in prompts:
        asked = jax.device_put(Prompts.of(_points(config, count)))
        program = jax_device.compiled(jitted_decode, config, params, embedding, asked, execution, multimask=True)
        timing = warm(functools.partial(program.call, params, embedding, asked), jax_device.finish)
        memory = {"peak_bytes": jax_device.peak_bytes(), "program_bytes": program.bytes}
        yield _record(config, variant, count, timing, compile_seconds=program.seconds, **memory)


def in_meta(setting: Setting, *, variant: str, prompts: Sequence[int]) -> Iterator[Record]:
    """Autocast: with parameters in bfloat16 Meta's Fourier features of float32 coordinates are an error."""
    import torch
    from parity.reference import build_reference

    from gpu_sections import torch_device

    config, device = config_of(setting, variant), torch_device.device()
    model = build_reference(config, device=str(device))
    features = torch.from_numpy(_features(config)).to(device).permute(2, 0, 1)[None]

    def decode(coordinates: Any) -> None:
        for some in coordinates.split(TOGETHER):
            labels = torch.ones(some.shape[:2], dtype=torch.int, device=device)
            sparse, dense = model.prompt_encoder((some, labels), None, None)
            positions = model.prompt_encoder.get_dense_pe()
            model.mask_decoder(features, positions, sparse, dense, multimask_output=True)

    for count in prompts:
        coordinates = torch.from_numpy(_points(config, count)).to(device)
        torch_device.forget_peak()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            timing = warm(functools.partial(decode, coordinates), torch_device.finish)
        yield _record(config, variant, count, timing, peak_bytes=torch_device.peak_bytes())


def _points(config: SamConfig, count: int) -> np.ndarray:
    """(count, 1, 2) points (x, y) in pixels of the model's input."""
    return np.random.default_rng(0).uniform((0, 0), config.image_size[::-1], (count, 1, 2)).astype(np.float32)


def _features(config: SamConfig) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((*config.grid, config.width), np.float32)


def _record(config: SamConfig, variant: str, count: int, timing: Warm, **more: Any) -> Record:
    of_prompt = decoder_flops(config, prompt_tokens=POINT_TOKENS, multimask=True, mask_prompt=False)
    flops = count * of_prompt + image_side_flops(config)
    what = f"{NAMES[variant]} decoder, {count:,} prompt{'s' if count > 1 else ''}"
    return speed(what, DTYPE, timing, count=count, unit="prompts", flops=flops, **more)
