"""Compiling ahead of time what photos and prompts will need."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from samjax import transforms
from samjax.model import jitted_decode, jitted_encode
from samjax.types import PROMPT_BUCKETS, TOKEN_BUCKETS, Prompts, bucket


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds that a program took to compile (or to be read from the compilation cache), and to run once compiled."""

    program: str
    compile_seconds: float
    run_seconds: float


def compile_programs(
    sam: Any,  # a `samjax.Sam`, whose method `warmup` this is
    *,
    points: Sequence[int] = (1,),
    prompts: Sequence[int] = (1,),
    multimask: Sequence[bool] = (True, False),
    mask_prompts: bool = False,
    photo_sizes: Sequence[transforms.Size] = (),
) -> list[Timing]:
    """Compiles the programs that one photo needs, and times each.

    These are the encoder; the decoder for the buckets that hold these numbers of `points` in a prompt (a box counts as
    one) and of `prompts` of a photo, for each `multimask`, with `mask_prompts` also for prompts with a mask; and the
    upscaling of masks, cut off at 0, to `photo_sizes`, (height, width) in pixels.

    Later calls find the programs compiled; with JAX's persistent compilation cache, later processes too.
    """
    config, params, execution = sam.config, sam.params, sam.execution
    channels = config.channels
    pixels = np.zeros((*config.image_size, channels), np.float32)
    timings = [_time("encode", jitted_encode, config, params, pixels, execution)]
    embedding = sam.encode(np.zeros((1, 1, channels), np.uint8))
    shapes = {
        (bucket(count, PROMPT_BUCKETS), bucket(tokens + 1, TOKEN_BUCKETS)) for count in prompts for tokens in points
    }
    for (count, tokens), masked, flag in itertools.product(
        sorted(shapes), (False, True) if mask_prompts else (False,), multimask
    ):
        blank = Prompts(
            np.zeros((count, tokens, 2), np.float32),
            np.zeros((count, tokens), np.int32),
            np.ones(count, bool),
            np.zeros((count, *config.mask_size), np.float32) if masked else None,
            np.ones(count, bool) if masked else None,
        )
        name = f"decode {count} prompt(s) of up to {tokens} tokens{' and a mask' if masked else ''}"
        arguments = config, params, embedding, blank, execution
        name += ", three masks" if flag else ", one mask"
        timings.append(_time(name, jitted_decode, *arguments, multimask=flag, hq=None))
    logits = np.zeros(config.mask_size, np.float32)
    for size in photo_sizes:
        start = time.perf_counter()
        transforms.upscale_masks(logits, size, config)
        warm = time.perf_counter()
        transforms.upscale_masks(logits, size, config)
        run = time.perf_counter() - warm
        timings.append(Timing(f"upscale to {size[0]} x {size[1]}", max(warm - start - run, 0.0), run))
    return timings


def _time(name: str, program: Any, *args: Any, **kwargs: Any) -> Timing:
    start = time.perf_counter()
    program.lower(*args, **kwargs).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(program(*args, **kwargs))  # the first run of a program also loads it
    warm = time.perf_counter()
    jax.block_until_ready(program(*args, **kwargs))
    return Timing(name, compiled - start, time.perf_counter() - warm)
