"""The choice among a photo's masks."""

from collections.abc import Iterator, Sequence

import numpy as np

from samjax.ops.rle import RLE

from ..config import DataConfig
from .placement import PlacedMask, Placement


def choose_masks(
    masks: Sequence[RLE], placement: Placement, config: DataConfig, random: np.random.Generator
) -> list[tuple[int, PlacedMask]]:
    """Chooses at most `config.masks_per_image` of the usable masks, uniformly and without replacement, with their
    numbers among all.

    All masks that the placement leaves usable are equally likely. They are looked at in a random order until there are
    enough, so that no more are read than needed; none is turned into pixels.
    """
    chosen = []
    order = random.permutation(len(masks))
    for number, mask in usable_masks([masks[index] for index in order], placement, config):
        chosen.append((int(order[number]), mask))
        if len(chosen) == config.masks_per_image:
            break
    return chosen


def usable_masks(masks: Sequence[RLE], placement: Placement, config: DataConfig) -> Iterator[tuple[int, PlacedMask]]:
    """The masks, with their numbers, that are large enough in the INPUT frame and cover neither too much of the photo
    nor of its window.

    A mask that fills a crop would have no background to put a click on.
    """
    limit = config.max_cover * placement.size[0] * placement.size[1]
    for number, mask in enumerate(masks):
        placed = PlacedMask.of(mask, placement)
        if placed.cover <= config.max_cover and config.min_area <= placed.area <= limit:
            yield number, placed
