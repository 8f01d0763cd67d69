r"""ViT-B on SA-1B as in the SAM paper (arXiv 2304.02643, Appendix A), from an MAE encoder.

    samjax train sa1b_vit_b --data.train sa1b=gs://BUCKET/sa1b --model.mae mae_pretrain_vit_base.pth \
        --out FOLDER --distributed

128 photos a step, 180,000 steps; the paper used 128 A100. Expected: mIoU on 23 data sets of 55.9 after one click, 80.9
after five. Not run by this project: no such data or machines were at hand.
"""

from samjax.train.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(variant="vit_b"),
    data=DataConfig(masks_per_image=64),
    optim=OptimConfig(learning_rate=8e-4, layer_decay=0.6),
    run=RunConfig(steps=180_000, batch=128, compute_dtype="bfloat16", drop_path=0.6),
)
