r"""Nuclei under the microscope (2018 Data Science Bowl), in COCO format: many small objects in few photos.

    samjax train nuclei --data.train coco=DSB/images/train,DSB/train.json --data.val coco=DSB/images/val,DSB/val.json \
        --model.init vit_b --out runs/nuclei

The whole of ViT-B learns, the encoder more slowly, at 512 pixels: the photos are small. Crops of a third to the whole
photo make nuclei larger; flips and colours stand for other stains. Hardware: one accelerator with 16 GB. Not run by
this project for want of one and of Meta's weights, so there is no score to expect.
"""

from samjax.train.config import DataConfig, InteractionConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(init="vit_b", image_size=512),
    data=DataConfig(
        masks_per_image=32,
        min_area=8,
        flip=0.5,
        scale=(1.0, 3.0),
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=0.05,
    ),
    interaction=InteractionConfig(box_noise_limit=5.0),
    optim=OptimConfig(
        learning_rate=5e-5,
        encoder_rate=0.2,
        layer_decay=0.8,
        schedule="cosine",
        warmup_steps=100,
        weight_decay=0.05,
        no_decay=(r"bias$", r"scale$", r"embedding$"),
        clip_norm=0.5,
        ema=0.999,
    ),
    run=RunConfig(steps=3_000, batch=8, compute_dtype="bfloat16", validate_every=250, validation_images=100),
)
