r"""ViT-L on SA-1B as in the SAM paper (arXiv 2304.02643, Appendix A), from an MAE encoder.

    samjax train sa1b_vit_l --data.train sa1b=gs://BUCKET/sa1b --model.mae mae_pretrain_vit_large.pth \
        --out FOLDER --distributed

128 photos a step, 180,000 steps; the paper used 128 A100. Expected: near ViT-H's scores (COCO, one click: 55.7). Not
run by this project: no such data or machines were at hand.
"""

from samjax.train.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(variant="vit_l"),
    data=DataConfig(masks_per_image=64),
    # Milestones are shares of the run: the paper's, of twice as many steps.
    optim=OptimConfig(learning_rate=4e-4, layer_decay=0.8),
    run=RunConfig(steps=180_000, batch=128, compute_dtype="bfloat16", drop_path=0.4, fsdp_axis=-1, data_axis=1),
)
