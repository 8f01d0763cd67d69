"""A few dozen labelled photos: prompt encoder and mask decoder learn; from 200 photos on the image encoder, too.

    samjax train few_images --data.train labelme=PHOTOS --data.val labelme=HELD_OUT --model.init vit_b --out runs/mine

Up to 200 photos the image encoder stays as it is, beyond that LoRA changes it a little: `--tune.mode auto` says what it
chose and why, and names of modes decide otherwise. Where the encoder stays, a step takes little memory, and what the
encoder makes of eight views of each photo is kept, so that it is computed once: a laptop will do, a GPU takes minutes
for the whole run. Hold out some photos: they are measured before the first step and every 50 steps, and the best
checkpoint on them is what `samjax export` writes. Prompts are points and boxes alike, so that box-only fine-tuning does
not break clicks.
"""

from samjax.train.config import (
    CacheConfig,
    DataConfig,
    InteractionConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    TuneConfig,
)

CONFIG = TrainConfig(
    model=ModelConfig(init="vit_b"),
    data=DataConfig(
        max_bad_share=0.2, masks_per_image=8, flip=0.5, scale=(0.7, 1.5), brightness=0.2, contrast=0.2, saturation=0.2
    ),
    interaction=InteractionConfig(corrections=4, refinements=1),
    optim=OptimConfig(
        learning_rate=1e-4,
        schedule="cosine",
        warmup_steps=50,
        weight_decay=1e-4,
        no_decay=(r"bias$", r"scale$", r"embedding$"),
        clip_norm=0.1,
        ema=0.99,
    ),
    tune=TuneConfig(mode="auto", prompt_encoder=True),
    cache=CacheConfig(views=8),
    run=RunConfig(
        steps=500, batch=4, log_every=5, validate_every=50, validation_images=50, picture_every=50, checkpoint_every=50
    ),
)
