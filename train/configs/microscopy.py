r"""Cells and organelles under the microscope, with micro-sam's settings (its `train_sam`, August 2026).

    samjax train microscopy --data.train labelmap=IMAGES,MAPS --data.val labelmap=HELD_OUT,HELD_OUT_MAPS \
        --model.init vit_b --out runs/microscopy

From there: all of ViT-B learns; AdamW at 1e-5 with weight decay 0.01; 25 objects of a photo a step; a point (three
masks) or a box (one mask) first, then seven passes with corrections; dice and the squared error of the predicted IoU of
all masks, a mean over passes. Different here: the rate is constant, there it falls while validation does not improve,
and the run stops; a correction is one click, there one on the object and one beside it; the logits always go back in,
there every second time; boxes move to both sides, there outwards by up to 2.5 % of a side; the first prompt is drawn
for each mask, there its kind alternates from step to step. Crops, there of 512 x 512 pixels, show half of the photo's
sides to all of it.

`data.masks_per_image` 10 is its setting for a GPU of 16 GB, 25 for one of 32 GB. 10,000 steps are a hundred epochs of a
hundred photos. Not run by this project: no score to expect. `nuclei` has settings of our own.
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
    model=ModelConfig(init="vit_b"),
    data=DataConfig(masks_per_image=25, flip=0.5, scale=(1.0, 2.0)),
    interaction=InteractionConfig(corrections=7, refinements=0, box_noise=0.0125, box_multimask=False),
    loss=LossConfig(focal=0.0, dice=1.0, iou=1.0, iou_of="all", resolution="input", over_passes="mean"),
    optim=OptimConfig(learning_rate=1e-5, schedule="constant", warmup_steps=0, weight_decay=0.01),
    run=RunConfig(steps=10_000, batch=1, validate_every=500),
)
