"""ViT-tiny from scratch on a laptop's CPU, at 128 pixels.

    samjax train tiny --data.train sa1b=DATA/train --data.val sa1b=DATA/val --out runs/tiny

Hardware: 2 cores, 3 GB. 2 to 5 seconds a step; after 800 steps on 1,365 photos (50,000 masks, an hour) validation mIoU
was 0.23 for one click (0.32 for the best of three), 0.43 after five and 0.39 for the box, still rising slowly. Four
passes a mask instead of eleven. A class-balanced cross-entropy in the first fifth of the run, and cross-attention whose
queries and keys start equal, get it going: focal and dice loss alone predict empty masks for hundreds of steps when
nothing is pretrained.
"""

from samjax.train.config import (
    DataConfig,
    InteractionConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(variant="vit_tiny", image_size=128, aligned_attention=True),
    data=DataConfig(
        masks_per_image=8,
        flip=0.5,
        scale=(0.8, 2.5),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        threads=1,
    ),
    interaction=InteractionConfig(corrections=2, refinements=1, box_noise_limit=5.0),
    loss=LossConfig(balanced=1.0),
    optim=OptimConfig(
        learning_rate=1e-3,
        schedule="cosine",
        final_rate=0.01,
        warmup_steps=100,
        weight_decay=0.05,
        no_decay=(r"bias$", r"scale$", r"embedding$", r"pos_embed$", r"rel_pos_[hw]$"),
        clip_norm=1.0,
        ema=0.999,
    ),
    run=RunConfig(
        steps=1200,
        batch=8,
        remat=False,
        masks_together=2,
        cpu_devices=2,
        log_every=10,
        validate_every=100,
        validation_images=60,
        picture_every=200,
        checkpoint_every=50,
    ),
)
