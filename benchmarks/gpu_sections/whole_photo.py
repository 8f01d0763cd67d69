"""Everything in a photo of 1200 x 1800 pixels, from its pixels to run-length encoded masks."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from everything import read_photo, thresholds, write_confident_checkpoint

import samjax
from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.models import NAMES, config_of
from gpu_sections.stopwatch import speed, warm
from samjax.convert import verify

KEEP = 0.35  # share of the masks that the predicted IoU lets through, and half of those the stability score
POINTS_PER_SIDE, TINY_POINTS_PER_SIDE = 32, 6


def in_samjax(setting: Setting, *, variant: str, dtype: str) -> Iterator[Record]:
    """In float32 products are TF32, JAX's default on a GPU."""
    photo = _photo(setting)
    checkpoint, options = _prepare(setting, variant, photo)
    generator = samjax.SamAutomaticMaskGenerator(samjax.load(checkpoint).with_dtype(dtype), **options)
    yield _measure(setting, variant, dtype, functools.partial(generator.generate, photo), jax_device)


def in_meta(setting: Setting, *, variant: str) -> Iterator[Record]:
    """In float32 with TF32 products: under autocast Meta's generator stops where it makes NumPy arrays of bfloat16."""
    import torch
    from parity.reference import import_segment_anything

    from gpu_sections import torch_device

    torch_device.multiply_in_tf32()
    photo = _photo(setting)
    checkpoint, options = _prepare(setting, variant, photo)
    segment_anything = import_segment_anything()
    model = verify.load_reference(checkpoint).to(torch_device.device())
    generator = segment_anything.SamAutomaticMaskGenerator(model, **options)
    with torch.no_grad():
        yield _measure(setting, variant, "float32", functools.partial(generator.generate, photo), torch_device)


def _photo(setting: Setting) -> np.ndarray:
    photo = read_photo(None)
    return np.ascontiguousarray(photo[::12, ::12]) if setting.tiny else photo


def _prepare(setting: Setting, variant: str, photo: np.ndarray) -> tuple[Path, dict[str, Any]]:
    """A checkpoint, and options under which it finds masks; made by the first contender, and the others' too."""
    checkpoint, found = setting.checkpoint or setting.scratch / "everything.pth", setting.scratch / "everything.json"
    if not found.exists():
        if setting.checkpoint is None:
            write_confident_checkpoint(config_of(setting, variant), checkpoint)
        found.write_text(json.dumps(thresholds(checkpoint, photo, KEEP)))
    points = TINY_POINTS_PER_SIDE if setting.tiny else POINTS_PER_SIDE
    return checkpoint, {**json.loads(found.read_text()), "points_per_side": points, "output_mode": "coco_rle"}


def _measure(setting: Setting, variant: str, dtype: str, generate: Callable[[], Any], device: Any) -> Record:
    """`device` is the module of the framework's."""
    start = time.perf_counter()
    masks = len(generate())
    first = time.perf_counter() - start
    timing = warm(generate, device.finish, warmups=0)
    height, width = _photo(setting).shape[:2]
    points = (TINY_POINTS_PER_SIDE if setting.tiny else POINTS_PER_SIDE) ** 2
    what = f"{NAMES[variant]}, everything in {height} x {width}, {points:,} points"
    more: dict[str, Any] = {"compile_seconds": first - timing.seconds} if device is jax_device else {}
    return speed(what, dtype, timing, count=1, masks=masks, peak_bytes=device.peak_bytes(), **more)
