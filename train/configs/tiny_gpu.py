r"""The bundled model on a GPU, for some minutes of its time: everything that is packed, in large batches.

    python -m samjax.train.packing DATA packed
    samjax train tiny_gpu --data.train sa1b=packed/train --data.val sa1b=packed/val --run.minutes 8 --out runs/tiny_gpu
    samjax export runs/tiny_gpu samjax-tiny.safetensors --dtype float16

It starts from the bundled weights; `--model.init None --model.variant vit_tiny --model.aligned-attention
--loss.balanced 1` starts from nothing. Photos are read, decoded and augmented by a dozen processes. The run ends by the
clock (`run.minutes`), compiling included, and validates every minute.

Hardware: one GPU with 24 GB and a dozen CPU cores. Not yet run on a GPU, so there is no score to expect; a few steps of
it are run by the tests on CPU.
"""

import dataclasses

from samjax.train.config import LossConfig, ModelConfig, RunConfig, TrainConfig
from samjax.train.configs.tiny_256 import CONFIG as ON_CPU

CONFIG = TrainConfig(
    model=ModelConfig(init="samjax-tiny"),
    data=dataclasses.replace(ON_CPU.data, masks_per_image=8, scale=(0.7, 1.7), threads=2, workers=12),
    interaction=dataclasses.replace(ON_CPU.interaction, corrections=3),
    loss=LossConfig(iou=2.0, iou_of="all", focal_alpha=0.5),
    optim=dataclasses.replace(ON_CPU.optim, learning_rate=1.5e-3, final_rate=0.0, warmup_steps=100, ema=0.998),
    run=RunConfig(
        steps=10_000,  # what the schedules are laid over
        minutes=8.0,
        batch=64,
        compute_dtype="bfloat16",
        remat=False,
        masks_together=8,
        log_every=50,
        validate_minutes=1.0,
        validation_images=256,
        picture_every=100_000,
        checkpoint_every=100_000,
    ),
)
