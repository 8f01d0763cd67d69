r"""Buildings, fields and the like in aerial and satellite pictures: many objects, seen from above at any size.

    samjax train remote_sensing --data.train coco=TILES,train.json --data.val coco=HELD_OUT,val.json \
        --model.init vit_b --eval.retain sa1b=OLD --out runs/aerial

All of ViT-B learns, early layers hardly: the rate falls by 0.8 a block and the encoder has a fifth of it. Crops of half
to twice the fitting size stand for other ground resolutions, colours for other sensors and seasons. A tile holds many
objects, most of them small, and clicks as well as boxes are shown, so that both keep working.
Hardware, by estimate: one accelerator with 24 GB for 4 tiles a step. Not run by this project: no score to expect.
"""

from samjax.train.config import DataConfig, InteractionConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(init="vit_b"),
    data=DataConfig(
        masks_per_image=24,
        flip=0.5,
        scale=(0.5, 2.0),
        follow=0.5,  # otherwise half of the crops of a sparse tile would show nothing
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=0.05,
    ),
    interaction=InteractionConfig(corrections=4, refinements=1),
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
    run=RunConfig(steps=4_000, batch=4, compute_dtype="bfloat16", validate_every=250, validation_images=100),
)
