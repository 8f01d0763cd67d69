"""Values that a configuration refuses, because no run can have them."""

import math
import re

import pytest

from samjax.train.config import DataConfig, EvalConfig, InteractionConfig, LossConfig, OptimConfig, RunConfig

SECTIONS = {
    "data": DataConfig,
    "interaction": InteractionConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "eval": EvalConfig,
    "run": RunConfig,
}


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *((f"run.{name}", 0) for name in ("steps", "batch", "accumulate", "validation_images", "keep_last")),
        *((f"run.{name}_every", 0) for name in ("log", "validate", "picture", "checkpoint")),
        *((f"run.{name}", 0) for name in ("cpu_devices", "images_together", "masks_together")),
        ("run.seed", -1),
        *((f"run.{name}", value) for name in ("drop_path", "dropout") for value in (-0.1, 1.0, math.nan)),
        *((f"optim.{name}", value) for name in ("learning_rate", "power") for value in (0.0, math.inf, math.nan)),
        *((f"optim.{name}", 0.0) for name in ("milestone_factor", "layer_decay", "encoder_rate", "clip_norm")),
        ("optim.warmup_steps", -1),
        *(("optim.milestones", shares) for shares in ((0.0, 0.5), (0.6, 0.5), (0.5, 0.5), (0.5, 1.1))),
        *(("optim.final_rate", rate) for rate in (-0.1, 1.1)),
        *(("optim.betas", betas) for betas in ((0.9, 1.0), (-0.1, 0.9))),
        ("optim.weight_decay", -0.1),
        *(("optim.anchor", strength) for strength in (-0.1, math.inf, math.nan, 1250.0)),
        ("eval.retain_images", 0),
        *(("data.mix_share", share) for share in (0.0, 1.0, -0.1)),
        *(("optim.ema", decay) for decay in (0.0, 1.0)),
        *((f"optim.{name}", (r"bias$", "(")) for name in ("no_decay", "frozen")),
        *((f"interaction.{name}", -1) for name in ("corrections", "refinements")),
        *((f"interaction.{name}", value) for name in ("box_probability", "recorded_share") for value in (-0.1, 1.1)),
        *((f"interaction.{name}", -0.1) for name in ("box_noise", "box_noise_limit")),
        *((f"loss.{name}", -0.1) for name in ("focal", "dice", "iou", "focal_gamma", "balanced")),
        *(("loss.focal_alpha", value) for value in (-0.1, 1.1)),
        ("loss.balanced_until", 0.0),
        *((f"data.{name}", 0) for name in ("masks_per_image", "prefetch")),
        *((f"data.{name}", -1) for name in ("threads", "workers", "min_area")),
        *((f"data.{name}", value) for name in ("max_bad_share", "max_cover", "flip") for value in (-0.1, 1.1)),
        *((f"data.{name}", value) for name in ("brightness", "contrast", "saturation") for value in (-0.1, 1.1)),
        *(("data.hue", value) for value in (-0.1, 0.6)),
        *(("data.scale", value) for value in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf))),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, bad):
    section, name = field.split(".")
    with pytest.raises(ValueError, match=rf"^{field} must be .*, got {re.escape(repr(bad))}$"):
        SECTIONS[section](**{name: bad})


def test_a_batch_is_cut_into_equal_pieces():
    with pytest.raises(ValueError, match=r"^run\.batch must be a multiple of run\.accumulate, 3, got 8$"):
        RunConfig(batch=8, accumulate=3)


def test_values_at_the_ends_of_their_ranges_are_taken():
    RunConfig(steps=1, batch=1, log_every=1, masks_together=1, seed=0, drop_path=0.0)
    OptimConfig(milestones=(), warmup_steps=0, betas=(0.0, 0.0), weight_decay=0.0, final_rate=1.0)
    OptimConfig(milestones=(0.5, 1.0), clip_norm=None, ema=None)
    InteractionConfig(corrections=0, refinements=0, box_probability=1.0, box_noise=0.0)
    LossConfig(focal=0.0, focal_alpha=1.0, balanced_until=1.0)
    DataConfig(scale=(1.0, 1.0), max_bad_share=1.0, threads=0, min_area=0, hue=0.5)
