"""The choice among masks."""

from collections import Counter

import numpy as np
from pycocotools import mask as coco

from samjax.ops.rle import as_text
from samjax.train.config import DataConfig
from samjax.train.data.placement import Placement
from samjax.train.data.sampling import choose_masks

PHOTO = (40, 60)


def band(start: int, stop: int) -> dict:
    """A mask of whole columns."""
    mask = np.zeros(PHOTO, np.uint8, order="F")
    mask[:, start:stop] = 1
    return as_text(coco.encode(mask))


def starts(chosen) -> list[int]:
    return [int(mask.edges[0]) // PHOTO[0] for _, mask in chosen]


WHOLE = Placement.fitting(PHOTO, PHOTO)


def test_masks_are_drawn_uniformly_and_without_replacement():
    bands = [band(i, i + 1) for i in range(12)] + [band(0, 60), band(1, 60)]  # the last two cover too much
    config = DataConfig(masks_per_image=3)
    random = np.random.default_rng(0)
    seen, pairs = Counter(), Counter()
    for _ in range(1200):
        chosen = starts(choose_masks(bands, WHOLE, config, random))
        assert len(set(chosen)) == 3
        seen.update(chosen)
        pairs.update([tuple(sorted(chosen[:2]))])
    assert set(seen) == set(range(12))
    # Without replacement, counts of one mask vary by 1 - 3/12 less than those of a chi-squared.
    assert sum((count - 300) ** 2 / 300 for count in seen.values()) < 31.3  # 11 degrees of freedom, 0.1 %
    expected = 1200 / 66
    assert len(pairs) == 66
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 107.3  # 65 degrees, 0.1 %


def test_all_are_used_where_there_are_few():
    chosen = choose_masks([band(i, i + 2) for i in range(5)], WHOLE, DataConfig(), np.random.default_rng(0))
    assert sorted(starts(chosen)) == [0, 1, 2, 3, 4]


def test_masks_that_cover_too_much_or_show_too_little_are_dropped():
    bands = [band(0, 54), band(0, 55), band(3, 4), band(59, 60)]
    usable = choose_masks(bands, WHOLE, DataConfig(max_cover=0.9, min_area=41), np.random.default_rng(0))
    assert [mask.area for _, mask in usable] == [54 * 40]
    usable = choose_masks(bands, WHOLE, DataConfig(max_cover=0.9, min_area=40), np.random.default_rng(0))
    assert sorted(mask.area for _, mask in usable) == [40, 40, 54 * 40]


def test_what_counts_is_what_the_crop_shows():
    """The right half of the photo at twice its size."""
    crop = Placement(PHOTO, (80, 120), (0, 60), (80, 60), False)
    bands = [band(0, 31), band(0, 29), band(40, 41), band(20, 60), band(31, 60)]
    config = DataConfig(min_area=2 * 80)
    assert sorted(starts(choose_masks(bands, crop, config, np.random.default_rng(0)))) == [0, 40]
    assert len(choose_masks(bands, crop, DataConfig(min_area=2 * 80, max_cover=1.0), np.random.default_rng(0))) == 4


def test_slots_are_filled_by_masks_that_the_crop_leaves():
    """Of 40 masks 4 are in the crop: they are found, although 40 masks compete for 4 slots."""
    crop = Placement(PHOTO, PHOTO, (0, 50), (40, 10), False)
    bands = [band(i, i + 1) for i in range(14, 54)]
    for seed in range(20):
        chosen = choose_masks(bands, crop, DataConfig(masks_per_image=4), np.random.default_rng(seed))
        assert sorted(starts(chosen)) == [50, 51, 52, 53]
        assert [14 + number for number, _ in chosen] == starts(chosen)  # with their numbers among all


def test_masks_of_nearly_the_whole_photo_are_dropped_from_crops_as_well():
    crop = Placement(PHOTO, PHOTO, (0, 0), (40, 10), False)
    assert starts(choose_masks([band(3, 60), band(3, 50)], crop, DataConfig(), np.random.default_rng(0))) == [3]
    assert not choose_masks([band(3, 60)], crop, DataConfig(), np.random.default_rng(0))
