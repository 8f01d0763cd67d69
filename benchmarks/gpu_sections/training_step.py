"""A training step as the recipes for SA-1B have it, 11 passes for each mask, on photos made in memory."""

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.models import NAMES, config_of, random_params
from gpu_sections.stopwatch import check, speed, warm
from samjax import SamConfig
from samjax.sharding import batch_sharding, make_mesh
from samjax.train.batch import Batch, cell_ratio, pack_cells
from samjax.train.flops import peak_flops, step_flops, utilisation
from samjax.train.optim import make_optimizer
from samjax.train.state import init_state
from samjax.train.step import make_step


def in_samjax(setting: Setting, *, variant: str, images: int, masks: int) -> Iterator[Record]:
    sam = config_of(setting, variant)
    recipe = importlib.import_module(f"samjax.train.configs.sa1b_{variant}").CONFIG
    recipe = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, batch=images))
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = scenes(sam, images, masks)
    valid, passes = int(batch.valid.sum()), recipe.interaction.passes
    optimizer = make_optimizer(recipe.optim, sam, recipe.run.steps)
    held = [init_state(recipe, sam, random_params(sam), optimizer, mesh)]
    batch = jax.device_put(batch, batch_sharding(mesh))
    program = jax_device.compiled(make_step(recipe, sam, optimizer, mesh), held[0], batch)
    metrics = []

    def step() -> Any:
        held[0], measured = program.call(held[0], batch)
        metrics.append(measured)
        return held[0], measured

    timing = warm(step, jax_device.finish, warmups=1)
    what = f"{NAMES[variant]} training step, {images} photos, {valid} masks, {passes} passes"
    finite = [bool(measured["finite"]) for measured in metrics]
    losses = [float(measured["loss"]) for measured in metrics]
    yield check(f"{what}: steps that are finite", float(np.mean(finite)), 1.0, at_least=True, losses=losses)
    yield check(f"{what}: masks miscounted", abs(int(metrics[-1]["masks"]) - valid), 0)
    flops = step_flops(
        sam,
        images=images,
        masks=valid / images,
        passes=passes,
        prompt_tokens=2 + recipe.interaction.corrections,
    )
    peak = peak_flops(jax_device.card(), recipe.run.compute_dtype)
    yield speed(
        what,
        recipe.run.compute_dtype,
        timing,
        count=images,
        flops=flops,
        mfu=peak and utilisation(flops, timing.seconds, 1, peak),  # of the data sheet's peak, as training logs it
        compile_seconds=program.seconds,
        peak_bytes=jax_device.peak_bytes(),
        program_bytes=program.bytes,
    )


def scenes(sam: SamConfig, images: int, slots: int) -> Batch:
    """Photos, blurred noise with an ellipse of its own colour for each mask; one slot of each but the
    first photo is empty."""
    random = np.random.default_rng(0)
    height, width = sam.image_size
    photos, cells = [], []
    for _ in range(images):
        noise = random.integers(0, 256, (8, 8, 3), np.uint8)
        photo = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        masks = []
        for _ in range(slots):
            center, radius = random.uniform(0.1, 0.9, 2) * (width, height), random.uniform(0.03, 0.2, 2) * width
            box = [*(center - radius), *(center + radius)]
            ImageDraw.Draw(photo).ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
            mask = Image.new("1", (width, height))
            ImageDraw.Draw(mask).ellipse(box, fill=1)
            masks.append(np.asarray(mask))
        photos.append(np.asarray(photo))
        cells.append(pack_cells(np.stack(masks), cell_ratio(sam)))
    valid = np.ones((images, slots), bool)
    valid[1:, -1] = False
    number = np.arange(images)
    size = np.tile(np.array(sam.image_size, np.int32), (images, 1))
    return Batch(np.stack(photos), size, np.stack(cells), valid, number.astype(np.uint32), number.astype(np.int32))
