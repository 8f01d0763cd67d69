r"""ViT-H on SA-1B as in the SAM paper (arXiv 2304.02643, Appendix A), from an MAE encoder.

    samjax train sa1b_vit_h --data.train sa1b=gs://BUCKET/sa1b --model.mae mae_pretrain_vit_huge.pth \
        --out FOLDER --distributed

256 photos a step, 90,000 steps (about two epochs). The paper took 68 hours on 256 A100; at most 64 masks a device and
photo there, as here. Compiled ahead of time for 256 TPU v5e chips, the step takes 3.5 GB of each. Expected: mIoU on 23
data sets of 58.1 after one click, 81.3 after five. Not run by this project: no such data or machines were at hand.
"""

from samjax.train.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig

CONFIG = TrainConfig(
    model=ModelConfig(variant="vit_h"),
    data=DataConfig(masks_per_image=64),
    optim=OptimConfig(learning_rate=8e-4, layer_decay=0.8),
    run=RunConfig(steps=90_000, batch=256, compute_dtype="bfloat16", drop_path=0.4, fsdp_axis=-1, data_axis=1),
)
