r"""ViT-tiny from scratch, last of three stages: the whole input of 256 pixels, with Muon.

    samjax train tiny_256 --model.init runs/tiny_128.safetensors --data.train sa1b=DATA/train \
        --data.val sa1b=DATA/val --out runs/tiny_256
    samjax export runs/tiny_256 mine.safetensors --dtype float16

Hardware: 2 cores; about 5 seconds a step of 48 masks. Large objects are new to a model that has seen windows: it finds
nothing of them, and stays at that, until the class-balanced cross-entropy is back for a while. A box alone gives one
mask here, as Meta's predictor asks for it. Further runs, with `--loss.balanced 0 --loss.focal-alpha 0.5`, then remove
the bias of the paper's focal loss towards background. The bundled model came about in eight runs, these stages among
them: samjax/assets/samjax-tiny.md has their settings, and what came out.
"""

import dataclasses

from samjax.train.config import LossConfig, ModelConfig, TrainConfig
from samjax.train.configs.tiny_128 import CONFIG as SECOND

CONFIG = TrainConfig(
    model=ModelConfig(variant="vit_tiny"),
    data=dataclasses.replace(SECOND.data, masks_per_image=12, scale=(0.8, 1.5)),
    interaction=dataclasses.replace(SECOND.interaction, box_multimask=False, box_noise=0.03, box_noise_limit=4.0),
    loss=LossConfig(balanced=1.0, balanced_until=0.25, iou=2.0, iou_of="all"),
    optim=dataclasses.replace(SECOND.optim, optimizer="muon", learning_rate=1e-3, final_rate=0.05, warmup_steps=20),
    run=dataclasses.replace(SECOND.run, steps=2200, batch=4, validate_every=2200, checkpoint_every=50),
)
