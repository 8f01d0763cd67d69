r"""Scratches, dents, cracks and stains on parts of one kind, from twenty labelled photos.

    samjax train defects --data.train labelme=PHOTOS --data.val labelme=HELD_OUT --model.init vit_b \
        --eval.retain sa1b=OLD --out runs/defects

Prompt encoder and mask decoder learn, the image encoder stays. Defects are thin and small: crops of the fitting size to
three times that make them larger, and half of them show one (`data.follow`). Twenty photos are learnt by heart soon, so
the run is short, the weights are averaged, and a pull to the start (`optim.anchor`) keeps what the model could do
before. Hold five photos out: the best checkpoint on them is what `samjax export` writes.
Hardware: that of `few_images`, a laptop or any GPU. Not run by this project: no such photos were at hand, so there is
no score to expect.
"""

from samjax.train.config import (
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
        masks_per_image=4,
        min_area=8,
        flip=0.5,
        scale=(1.0, 3.0),
        follow=0.5,
        brightness=0.3,
        contrast=0.3,
        saturation=0.1,
        max_bad_share=0.2,
    ),
    interaction=InteractionConfig(corrections=3, refinements=1),
    optim=OptimConfig(
        learning_rate=1e-4,
        schedule="cosine",
        warmup_steps=20,
        weight_decay=0.0,
        anchor=20.0,
        clip_norm=0.1,
        ema=0.98,
    ),
    tune=TuneConfig(mode="decoder", prompt_encoder=True),
    run=RunConfig(
        steps=300, batch=4, log_every=5, validate_every=25, validation_images=20, picture_every=50, checkpoint_every=50
    ),
)
