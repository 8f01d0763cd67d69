"""The latest point of the encoder before anything that is trained."""

import dataclasses

import pytest
from example_models import SMALL
from example_training import NANO

from samjax.config import VARIANTS
from samjax.train.cached.point import arrays_at, latest_point
from samjax.train.config import TrainConfig, TuneConfig
from samjax.train.trainable import grown_network, trained_shapes
from samjax.train.trainable.freezing import parameter_names


@pytest.mark.parametrize(
    ("tune", "point"),
    [
        (TuneConfig(), None),
        (TuneConfig(mode="decoder", prompt_encoder=True), "image"),
        (TuneConfig(mode="hq"), "image"),
        (TuneConfig(mode="parser"), "blocks/11"),
        (TuneConfig(mode="parser+decoder"), "blocks/11"),
        (TuneConfig(mode="last_blocks", last=2), "blocks/9"),
        (TuneConfig(mode="last_blocks", last=12), None),
        (TuneConfig(mode="lora"), None),
        (TuneConfig(mode="lora", late=4), "blocks/7"),
        (TuneConfig(mode="lora", late=11), "blocks/0"),
        (TuneConfig(mode="adapter"), None),
        (TuneConfig(mode="patch_embed"), None),
        (TuneConfig(mode="patterns", patterns=(r"neck/2/kernel", r"^mask_decoder/")), "blocks/11"),
        (TuneConfig(mode="patterns", patterns=(r"blocks/5/mlp/lin1/bias",)), "blocks/4"),
    ],
    ids=lambda value: value.mode if isinstance(value, TuneConfig) else None,
)
def test_every_mode_has_the_latest_point_that_it_can(tune, point):
    sam = grown_network(tune, VARIANTS["vit_b"])
    assert latest_point(sam, parameter_names(trained_shapes(TrainConfig(tune=tune), sam))) == point


def test_taps_that_the_decoder_takes_are_kept_with_the_point():
    hq = dataclasses.replace(SMALL, mask_decoder=dataclasses.replace(SMALL.mask_decoder, hq=True))
    (tap,) = hq.decoder_taps
    assert arrays_at(hq, "image") == ("image", tap)
    assert arrays_at(hq, tap) == (tap,)
    assert arrays_at(NANO, "image") == ("image",)
