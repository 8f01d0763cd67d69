"""Runs for tests of training: the smallest network that has every kind of part, batches and data for it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from example_annotations import jpeg, sa1b_json
from example_models import shapes_photo

from samjax.config import DecoderConfig, SamConfig, ViTConfig

SIDE, RATIO = 32, 2

# Its sizes divide by eight, so that eight devices have a part of every array that the rules name.
NANO = SamConfig(
    ViTConfig(width=32, depth=2, heads=2, global_blocks=(1,), image_size=(SIDE, SIDE), patch_size=8, window_size=3),
    DecoderConfig(depth=2, heads=2, mlp_dim=32, iou_head_dim=16),
    width=32,
    mask_channels=8,
)
# And one with less of each, for programs whose compilation a test has to wait for.
PICO = dataclasses.replace(
    NANO,
    image_encoder=dataclasses.replace(NANO.image_encoder, depth=1, global_blocks=(0,)),
    mask_decoder=dataclasses.replace(NANO.mask_decoder, depth=1),
)


def nano_batch(count: int, slots: int = 2, seed: int = 0, ragged: bool = False):
    """Photos of all sizes up to the model's input with discs and boxes; `ragged`: between none and all slots valid."""
    from samjax.train.batch import Batch, pack_cells

    random = np.random.RandomState(seed)
    image = np.full((count, SIDE, SIDE, 3), 77, np.uint8)
    masks, valid = np.zeros((count, slots, SIDE, SIDE), bool), np.ones((count, slots), bool)
    sizes = np.full((count, 2), SIDE, np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for i in range(count):
        sizes[i, i % 2] = random.randint(20, SIDE + 1)
        height, width = sizes[i]
        image[i, :height, :width] = random.randint(0, 256, 3)
        for j in range(slots):
            (cx, cy), radius = random.uniform(4, (width - 4, height - 4)), random.uniform(3, 9)
            disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            masks[i, j] = disc & (y < height) & (x < width)
            image[i][masks[i, j]] = random.randint(0, 256, 3)
    if ragged:
        valid = np.arange(slots) < (np.arange(count) % (slots + 1))[:, None]
    number = np.arange(count)
    cells = pack_cells(masks, RATIO)
    return Batch(image, sizes, cells, valid, number.astype(np.uint32), number.astype(np.int32))


def write_shapes(folder: Path, count: int, start: int = 0) -> Path:
    """A folder as SA-1B has them, of photos with discs and boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        photo, masks = shapes_photo(48 + number % 3 * 8, 64, seed=number)
        (folder / f"sa_{number}.jpg").write_bytes(jpeg(photo))
        (folder / f"sa_{number}.json").write_text(json.dumps(sa1b_json(number, masks)))
    return folder


def nano_recipe(folder: Path, **changes):
    """A run of a few steps on six photos; `changes` are fields of its `RunConfig`."""
    from samjax.train.config import DataConfig, InteractionConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

    data = folder / "data"
    if not data.exists():
        write_shapes(data, 6)
    often = {"log_every": 1, "checkpoint_every": 3, "validate_every": 100, "picture_every": 100}
    run = {"steps": 8, "batch": 4, "images_together": 4, "tensorboard": False, **often, **changes}
    return TrainConfig(
        model=ModelConfig(variant="pico"),
        data=DataConfig(train=(f"sa1b={data}",), masks_per_image=2, flip=0.5, min_area=4, threads=1),
        interaction=InteractionConfig(corrections=1, refinements=0),
        optim=OptimConfig(schedule="cosine", warmup_steps=2, clip_norm=1.0, ema=0.9),
        run=RunConfig(**run),
    )


# `samjax` with the small network among its variants. Compiled programs are kept between the processes of a test.
COMMAND = """
import sys
sys.path.insert(0, "tests")
from example_training import PICO
from samjax.config import VARIANTS
VARIANTS["pico"] = PICO
"""
MAIN = "from samjax.cli.command import main\nsys.exit(main(sys.argv[1:]))\n"


def stub_training(monkeypatch) -> list[int]:
    """Lets `loop.train` do all it does but compute: a step only counts, and validations score more and more.

    Returns a list to which each step adds its number, and each validation 0.
    """
    import jax

    from samjax.config import VARIANTS
    from samjax.train import loop
    from samjax.train.state import abstract_state
    from samjax.train.tasks.interactive import task
    from samjax.train.tasks.interactive.blocks import no_terms

    done: list[int] = []

    def init_state(config, sam, params, optimizer, mesh):
        leaves = abstract_state(config, PICO, optimizer, mesh)
        return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), leaves)

    def make_step(config, sam, optimizer, mesh):
        def step(state, batch):
            number = int(state.step) + 1
            done.append(number)
            metrics = {"loss": 1 / number, "gradient_norm": 1.0, "masks": 8, "finite": True}
            counted = jax.device_put(np.int32(number), state.step.sharding)
            return dataclasses.replace(state, step=counted), {**metrics, "terms": no_terms(config.interaction)}

        return step

    def validate(config, params, batches, execution):
        assert len(list(batches)) > 0
        done.append(0)
        score = 0.1 + len(done) / 100
        return {"iou": score, "iou_1": score, "masks": 12.0}

    monkeypatch.setitem(VARIANTS, "pico", PICO)
    monkeypatch.setattr(loop, "starting_params", lambda *_: {})
    monkeypatch.setattr(loop, "init_state", init_state)
    monkeypatch.setattr(loop, "make_step", make_step)
    monkeypatch.setattr(task, "validate", validate)
    monkeypatch.setattr(task, "picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    return done
