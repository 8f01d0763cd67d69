"""ViT-tiny from scratch on a laptop, first of three stages: windows of 64 pixels. The bundled model began like this.

    samjax train tiny --data.train sa1b=DATA/train --data.val sa1b=DATA/val --out runs/tiny
    samjax export runs/tiny runs/tiny.safetensors

Hardware: 2 cores, 3 GB; half a second a step. The model's input has 256 pixels; a window has the positions of its place
in it, so what is learnt here holds there, at a tenth of the cost. After 1,250 steps (70,000 masks) of 1,365 photos the
mIoU over the whole validation photos was 0.43 after five clicks and 0.39 for the boxes of small objects; large objects
have to be seen whole (`tiny_128`, `tiny_256`).

A class-balanced cross-entropy at the start, and cross-attention whose queries and keys start equal, get it going: focal
and dice loss alone predict empty masks for hundreds of steps when nothing is pretrained. With them the best of three
masks for the first click passes an IoU of 0.15 by step 200.
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
    model=ModelConfig(variant="vit_tiny", window=64, aligned_attention=True),
    data=DataConfig(
        masks_per_image=8,
        flip=0.5,
        scale=(1.0, 4.0),  # of what fits 64 pixels
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        threads=2,
    ),
    interaction=InteractionConfig(corrections=2, refinements=0, box_noise_limit=5.0),
    loss=LossConfig(balanced=1.0),
    optim=OptimConfig(
        learning_rate=1e-3,
        schedule="cosine",
        final_rate=0.3,
        warmup_steps=100,
        betas=(0.9, 0.99),
        weight_decay=0.05,
        no_decay=(r"bias$", r"scale$", r"embedding$", r"pos_embed$", r"rel_pos_[hw]$"),
        clip_norm=1.0,
        ema=0.998,
    ),
    run=RunConfig(
        steps=5000,
        batch=8,
        remat=False,
        images_together=4,
        masks_together=2,
        log_every=50,
        validate_every=2500,
        validation_images=32,
        picture_every=5000,
        checkpoint_every=250,
    ),
)
