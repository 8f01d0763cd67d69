r"""Medical scans with a box as prompt, with MedSAM's settings (arXiv 2304.12306; its train_one_gpu.py).

    samjax train medsam --data.train pairs=SCANS,MASKS --data.val pairs=HELD_OUT,HELD_OUT_MASKS --model.init vit_b \
        --eval.retain sa1b=OLD --out runs/medsam

From there: encoder and decoder learn and the prompt encoder stays; AdamW at 1e-4, constant, weight decay 0.01; a mask a
photo, one pass from its box; dice and cross-entropy at the size of the input (focal loss with gamma 0, alpha 0.5 and
weight 2 is the cross-entropy). Different here: boxes move by Gaussian noise of up to 20 pixels to all sides, there by 0
to 20 pixels outwards; photos keep their shape and Meta's normalisation, there they are stretched to squares in 0..1;
dice has plain sums of probabilities, there of their squares. The paper takes 160 photos a step and 150 epochs.

A model that sees boxes alone forgets clicks: the run warns of it, and `--eval.retain` measures it. The confidence of
masks is not trained either (`loss.iou` is 0), so it means nothing afterwards.
Hardware, by estimate: one accelerator with 16 GB for 2 photos a step. Not run by this project: no score to expect.
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
    data=DataConfig(masks_per_image=1, min_area=100),
    interaction=InteractionConfig(
        corrections=0, refinements=0, box_probability=1.0, box_noise=0.1, box_noise_limit=20.0, box_multimask=False
    ),
    loss=LossConfig(focal=2.0, focal_alpha=0.5, focal_gamma=0.0, dice=1.0, iou=0.0, resolution="input"),
    optim=OptimConfig(
        learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.01, frozen=(r"^prompt_encoder/",)
    ),
    run=RunConfig(steps=20_000, batch=2),
)
