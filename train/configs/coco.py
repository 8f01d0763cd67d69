r"""ViT-B, all of it, fine-tuned on the instances of COCO or LVIS.

    samjax train coco --data.train coco=COCO/train2017,COCO/annotations/instances_train2017.json \
        --data.val coco=COCO/val2017,COCO/annotations/instances_val2017.json --model.init vit_b --out runs/coco

Rates and clipping are those of SAM 2's fine-tuning. Hardware: 8 accelerators with 40 GB; two epochs at 32 photos a step
are 7,400 steps. On one, --run.accumulate 8 has the same result. Not run by this project: no such data or machines were
at hand, so there is no score to expect.
"""

from samjax.train.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(init="vit_b"),
    data=DataConfig(masks_per_image=16, flip=0.5, scale=(0.5, 2.0)),
    optim=OptimConfig(
        learning_rate=5e-6,
        encoder_rate=0.6,
        schedule="cosine",
        weight_decay=0.1,
        no_decay=(r"bias$", r"scale$"),
        clip_norm=0.1,
        ema=0.999,
    ),
    run=RunConfig(steps=7_400, batch=32, compute_dtype="bfloat16", drop_path=0.1),
)
