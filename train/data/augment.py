"""Random augmentation of a photo: its scale, crop, mirror image and colours.

Every draw comes from the generator that is passed in. Where the configuration asks for nothing, nothing is changed:
the photo is then shown exactly as inference shows it.
"""

import math

import numpy as np
from jaxtyping import UInt8

from samjax.transforms import Size

from ..config import DataConfig
from .placement import Placement


def sample_placement(
    original: Size,
    image_size: Size,
    config: DataConfig,
    random: np.random.Generator,
    shown: tuple[float, float, float, float] | None = None,
) -> Placement:
    """Large-scale jitter (Copy-Paste, arXiv 2012.07177, section 3) and a horizontal flip.

    The scale, relative to fitting `image_size`, is uniform in `config.scale`. A side that is then longer than the
    input is cropped at a uniformly drawn place; one that is shorter is padded at its end, as SAM pads. Where a box
    (x0, y0, x1, y1) in ORIGINAL pixels is to be `shown`, only places are drawn from where all of it is seen, or
    nothing but it where it is larger than the input.
    """
    low, high = config.scale
    factor = float(random.uniform(low, high)) if low < high else low
    flip = config.flip > 0 and bool(random.random() < config.flip)
    # At factor 1 this is `input_size`, bit for bit.
    scale = min(image_size[0] / original[0], image_size[1] / original[1]) * factor
    scaled = max(int(original[0] * scale + 0.5), 1), max(int(original[1] * scale + 0.5), 1)
    size = min(scaled[0], image_size[0]), min(scaled[1], image_size[1])
    rooms = [(0, whole - part) for whole, part in zip(scaled, size, strict=True)]
    if shown is not None:
        rooms = [
            _showing(shown[1 - axis] * ratio, shown[3 - axis] * ratio, size[axis], scaled[axis])
            for axis, ratio in enumerate((scaled[0] / original[0], scaled[1] / original[1]))
        ]
    y, x = (low + int(random.integers(high - low + 1)) for low, high in rooms)
    return Placement(original, scaled, (y, x), size, flip)


def _showing(start: float, end: float, part: int, whole: int) -> tuple[int, int]:
    """The first and the last place of a window of `part` pixels in a side of `whole` that sees all from `start` to
    `end`, or nothing beside it."""
    first, last = sorted((math.floor(start), math.ceil(end) - part))
    return min(max(first, 0), whole - part), min(max(last, 0), whole - part)


def jitter_colours(
    rgb: UInt8[np.ndarray, "H W channels"], config: DataConfig, random: np.random.Generator
) -> UInt8[np.ndarray, "H W channels"]:
    """torchvision's ColorJitter: brightness, contrast, saturation and hue, one after the other in a random order.

    Brightness scales the colours; contrast scales their distance from the photo's mean grey, saturation their distance
    from their own grey; hue turns them. The first three factors are uniform in 1 ± the setting, hue in ± the setting.
    """
    steps = [
        (step, float(random.uniform(centre - width, centre + width)))
        for step, centre, width in (
            (scale_brightness, 1, config.brightness),
            (scale_contrast, 1, config.contrast),
            (scale_saturation, 1, config.saturation),
            (turn_hue, 0, config.hue),
        )
        if width > 0
    ]
    for index in random.permutation(len(steps)):
        step, amount = steps[index]
        rgb = step(rgb, amount)
    return rgb


def scale_brightness(rgb: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """The photo with all colours scaled; `factor` 1 changes nothing."""
    return _enhanced("Brightness", rgb, factor)


def scale_contrast(rgb: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """The photo with the distance of colours from its mean grey scaled; `factor` 1 changes nothing."""
    return _enhanced("Contrast", rgb, factor)


def scale_saturation(rgb: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """The photo with the distance of colours from their own grey scaled; `factor` 1 changes nothing."""
    return _enhanced("Color", rgb, factor)


def turn_hue(rgb: UInt8[np.ndarray, "H W 3"], turns: float) -> UInt8[np.ndarray, "H W 3"]:
    """The photo with its hues turned, 1 being all the way round; in 8-bit HSV, as torchvision does with Pillow."""
    from PIL import Image

    hsv = Image.fromarray(rgb).convert("HSV")
    hue, saturation, value = hsv.split()
    hue = Image.fromarray(np.asarray(hue) + np.uint8(round(turns * 256) % 256))  # wraps, as hue does
    return np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def _enhanced(what: str, rgb: np.ndarray, factor: float) -> np.ndarray:
    """Pillow's ImageEnhance, by which torchvision defines these operations."""
    from PIL import Image, ImageEnhance

    return np.asarray(getattr(ImageEnhance, what)(Image.fromarray(rgb)).enhance(factor))
