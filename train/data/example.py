"""A record as a row of a batch."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt, UInt8

from samjax.config import SamConfig
from samjax.ops.rle import RLE, rle_box
from samjax.readers.left_out import Reason
from samjax.readers.record import BadRecord, Record, Source
from samjax.types import pytree

from ..batch import NO_CATEGORY, cell_dtype, cell_ratio, pack_cells
from ..config import DataConfig
from .augment import jitter_colours, sample_placement
from .clicks import first_clicks
from .placement import PlacedMask, Placement, place_photo
from .sampling import choose_masks, usable_masks

ATTEMPTS = 4  # at a crop that shows a usable mask; then the whole photo is shown


@pytree
class Example:
    """One photo with up to N masks, as in `Batch`."""

    image: UInt8[np.ndarray, "H W channels"]
    size: Int32[np.ndarray, "2"]
    cells: UInt[np.ndarray, "N h w"]
    valid: Bool[np.ndarray, " N"]
    categories: Int32[np.ndarray, " N"]
    clicks: Float32[np.ndarray, "N 3"] | None = None


class UsableSource:
    """A source in which records whose masks are all too small, or cover too much, are bad records.

    That is judged on the whole photo, so it does not depend on chance. Photos without objects have no masks to judge.
    """

    def __init__(self, source: Source, model: SamConfig, config: DataConfig) -> None:
        self.source, self.model, self.config = source, model, config

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The name of a record, without reading it."""
        return self.source.name(index)

    def __getitem__(self, index: int) -> Record:
        """Reads a record. Raises BadRecord if it cannot be read, or if it has masks and none of them can be used."""
        record = self.source[index]
        if not record.masks:
            return record
        whole = Placement.fitting(record.rgb.shape[:2], self.model.image_size)
        try:
            if next(usable_masks(record.masks, whole, self.config), None) is not None:
                return record
        except ValueError as error:  # a mask of another photo's size
            raise BadRecord(str(error), Reason.SIZE) from error
        raise BadRecord(
            f"none of its {len(record.masks)} masks has at least {self.config.min_area} pixels of the model's input "
            f"(data.min_area) and covers at most {self.config.max_cover:.0%} of the photo (data.max_cover)",
            Reason.NO_FITTING_MASK,
        )


def augmented_example(
    record: Record,
    model: SamConfig,
    config: DataConfig,
    random: np.random.Generator,
    choice: np.random.Generator | None = None,
    *,
    clicks: bool = False,
) -> Example:
    """The record as training sees it, with all that is random about it drawn from `random`, the choice of masks from
    `choice` if that is given; with `clicks`, also its masks' first recorded clicks."""
    choice = choice or random
    original = record.rgb.shape[:2]
    for _ in range(ATTEMPTS):
        shown = None
        if config.follow and record.masks and random.random() < config.follow:
            shown = _box(record.masks[random.integers(len(record.masks))])
        placement = sample_placement(original, model.image_size, config, random, shown)
        if masks := choose_masks(record.masks, placement, config, choice):
            break
    else:
        placement = Placement.fitting(original, model.image_size)
        masks = choose_masks(record.masks, placement, config, choice)
    photo = jitter_colours(place_photo(record.rgb, placement), config, random)
    example = _example(photo, masks, record.categories, model, config)
    if not clicks:
        return example
    numbers = [number for number, _ in masks]
    shown = first_clicks(record, numbers, example.cells, placement, cell_ratio(model))
    return dataclasses.replace(example, clicks=shown)


def _box(rle: RLE) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) in pixels, ends exclusive."""
    x, y, width, height = rle_box(rle)
    return x, y, x + width, y + height


def plain_example(record: Record, model: SamConfig, config: DataConfig, random: np.random.Generator) -> Example:
    """The record as inference sees it; only the choice of masks is drawn from `random`."""
    placement = Placement.fitting(record.rgb.shape[:2], model.image_size)
    masks = choose_masks(record.masks, placement, config, random)
    return _example(place_photo(record.rgb, placement), masks, record.categories, model, config)


def empty_example(model: SamConfig, config: DataConfig) -> Example:
    """A black photo without masks, which only pads."""
    return _example(np.zeros((*model.image_size, model.channels), np.uint8), [], (), model, config)


def _example(
    photo: np.ndarray,
    masks: list[tuple[int, PlacedMask]],
    categories: Sequence[int | None],
    model: SamConfig,
    config: DataConfig,
) -> Example:
    ratio, slots = cell_ratio(model), config.masks_per_image
    height, width = model.image_size
    image = np.zeros((height, width, photo.shape[2]), np.uint8)
    image[: photo.shape[0], : photo.shape[1]] = photo
    cells = np.zeros((slots, height // ratio, width // ratio), cell_dtype(ratio))
    of_slots = np.full(slots, NO_CATEGORY, np.int32)
    for slot, (number, mask) in enumerate(masks):
        _fill_cells(mask, cells[slot], ratio)
        category = categories[number] if categories else None
        if category is not None and 0 <= category < 2**31:
            of_slots[slot] = category
    return Example(image, np.array(photo.shape[:2], np.int32), cells, np.arange(slots) < len(masks), of_slots)


def _fill_cells(mask: PlacedMask, target: np.ndarray, ratio: int) -> None:
    """Draws and packs no more than the cells that the mask touches: most masks are small."""
    x0, y0, x1, y1 = mask.box
    if x0 >= x1 or y0 >= y1:
        return
    left, top, right, bottom = x0 // ratio, y0 // ratio, -(-x1 // ratio), -(-y1 // ratio)
    aligned = np.zeros(((bottom - top) * ratio, (right - left) * ratio), bool)
    y, x = y0 - top * ratio, x0 - left * ratio
    aligned[y : y + y1 - y0, x : x + x1 - x0] = mask.draw((x0, y0, x1, y1))
    target[top:bottom, left:right] = pack_cells(aligned, ratio)
