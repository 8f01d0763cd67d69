"""Random changes of a photo: the distribution of placements, and colours by their definitions."""

import colorsys

import numpy as np
import pytest
from example_models import random_photo

from samjax.train.config import DataConfig
from samjax.train.data import augment
from samjax.train.data.augment import jitter_colours, sample_placement
from samjax.train.data.placement import Placement


def draws(config: DataConfig, original: tuple[int, int], count: int = 400) -> list[Placement]:
    random = np.random.default_rng(0)
    return [sample_placement(original, (64, 64), config, random) for _ in range(count)]


@pytest.mark.parametrize("original", [(60, 90), (97, 41), (500, 333), (64, 64), (1, 700)])
def test_nothing_is_augmented_unless_asked_for(original):
    assert set(draws(DataConfig(), original, 10)) == {Placement.fitting(original, (64, 64))}


def test_half_of_the_photos_are_mirrored_at_half_probability():
    flips = sum(placement.flip for placement in draws(DataConfig(flip=0.5), (60, 90)))
    assert 160 < flips < 240
    assert all(placement.flip for placement in draws(DataConfig(flip=1.0), (60, 90), 20))


def test_scales_are_uniform_and_crops_lie_anywhere():
    placed = draws(DataConfig(scale=(0.1, 2.0)), (60, 90))
    factors = np.array([placement.scaled[1] / 64 for placement in placed])
    counts, _ = np.histogram(factors, np.linspace(0.1, 2.0, 11))
    assert ((counts - 40) ** 2 / 40).sum() < 27.9  # chi-squared with 9 degrees of freedom at 0.1 %
    for placement in placed:
        height, width = placement.scaled
        assert abs(height / width - 60 / 90) < 0.6 / width + 0.6 / height  # rounded sides
        assert placement.size == (min(height, 64), min(width, 64))
    places = [p.corner[1] / (p.scaled[1] - p.size[1]) for p in placed if p.scaled[1] > 74]
    assert len(places) > 100
    assert min(places) < 0.05
    assert max(places) > 0.95
    assert abs(np.mean(places) - 0.5) < 0.1
    assert all(p.corner == (0, 0) for p in placed if p.scaled[1] <= 64)


@pytest.mark.parametrize(
    "box", [(70.0, 10.0, 80.0, 20.0), (0.0, 0.0, 9.0, 60.0), (3.0, 5.0, 88.0, 58.0), (89.0, 59.0, 90.0, 60.0)]
)
def test_a_box_that_is_to_be_shown_is_seen_whole_or_alone_wherever_it_lies(box):
    config, random = DataConfig(scale=(0.5, 6.0)), np.random.default_rng(0)
    places = set()
    for _ in range(300):
        placed = sample_placement((60, 90), (64, 64), config, random, box)
        for axis in (0, 1):
            ratio = placed.scaled[axis] / (60, 90)[axis]
            start, end = box[1 - axis] * ratio, box[3 - axis] * ratio
            first, last = placed.corner[axis], placed.corner[axis] + placed.size[axis]
            assert first >= 0
            assert last <= placed.scaled[axis]
            whole, alone = first <= start and end <= last + 1e-9, start <= first + 1 and last <= end + 1
            assert whole or alone
        places.add(placed.corner)
    assert len(places) > 50


def test_the_generator_decides_everything():
    config = DataConfig(flip=0.5, scale=(0.5, 2.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    photo = random_photo(40, 50)
    assert draws(config, (60, 90), 5) == draws(config, (60, 90), 5)
    first, again, other = (jitter_colours(photo, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def grey(rgb: np.ndarray) -> np.ndarray:
    """Luma of ITU-R 601, as Pillow and torchvision define grey."""
    return rgb @ np.array([0.299, 0.587, 0.114])


DEFINITIONS = {  # torchvision.transforms.functional's adjust_brightness, adjust_contrast, adjust_saturation
    "scale_brightness": lambda rgb, factor: rgb * factor,
    "scale_contrast": lambda rgb, factor: grey(rgb).mean() + factor * (rgb - grey(rgb).mean()),
    "scale_saturation": lambda rgb, factor: grey(rgb)[..., None] + factor * (rgb - grey(rgb)[..., None]),
}


@pytest.mark.parametrize("step", DEFINITIONS)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_colours_follow_their_definitions(step, factor):
    photo = random_photo(40, 50)
    ours = getattr(augment, step)(photo, factor)
    expected = np.clip(DEFINITIONS[step](photo.astype(float), factor), 0, 255)
    assert np.abs(ours - expected).max() < 2.1  # Pillow rounds grey, its mean, and the result


@pytest.mark.parametrize("turns", [-0.3, 0.0, 0.1, 0.5])
def test_hue_turns_colours(turns):
    # saturated colours, whose hue 8 bits hold well
    photo = np.array([[colorsys.hsv_to_rgb(i / 32, 0.9, 0.5 + j / 16) for i in range(32)] for j in range(8)])
    photo = (photo * 255).astype(np.uint8)
    ours = augment.turn_hue(photo, turns)
    for before, after in zip(photo.reshape(-1, 3) / 255, ours.reshape(-1, 3) / 255, strict=True):
        (h, s, v), (h2, s2, v2) = colorsys.rgb_to_hsv(*before), colorsys.rgb_to_hsv(*after)
        assert abs((h2 - h - turns + 0.5) % 1 - 0.5) < 0.02
        assert abs(s2 - s) < 0.03
        assert abs(v2 - v) < 0.01


def test_jitter_stays_within_its_settings_and_each_setting_acts_alone():
    photo = np.full((8, 8, 3), 100, np.uint8)
    means = [jitter_colours(photo, DataConfig(brightness=0.4), np.random.default_rng(i)).mean() for i in range(200)]
    assert 60 <= min(means) < 66
    assert 134 < max(means) <= 140
    for setting in ("contrast", "saturation", "hue"):  # all of which leave a plain grey photo alone
        np.testing.assert_array_equal(
            jitter_colours(photo, DataConfig(**{setting: 0.4}), np.random.default_rng(0)), photo
        )
    np.testing.assert_array_equal(jitter_colours(photo, DataConfig(), np.random.default_rng(0)), photo)
