"""Recorded clicks as first prompts: those of a record in the INPUT frame, and the check that the data have any.

What a person clicked to make a mask goes where the photo and the mask go: scaled, cropped and mirrored with them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, UInt

from samjax.config import PromptLabel
from samjax.readers.record import Record
from samjax.readers.sources import OF_CLICKS, Joined

from ..config import InteractionConfig
from .placement import Placement


def first_clicks(
    record: Record, numbers: Sequence[int], cells: UInt[np.ndarray, "N h w"], placement: Placement, ratio: int
) -> Float32[np.ndarray, "N 3"]:
    """(x, y, 1) of the first click recorded for each mask of a row, in the INPUT frame, integers naming pixels.

    Zeros where there is none, where it is labelled as beside the object, where the window does not show it, and where
    its cell has no pixel of the mask. A cell, and not the pixel: people do not aim better, and a thin object may lose
    the pixel that was clicked when it is scaled.

    Args:
        record: what the masks and clicks are of.
        numbers: which of its masks are in the row, in the order of `cells`; further cells only pad.
        cells: the masks, as `Batch.cells`.
        placement: of the photo.
        ratio: INPUT pixels along a side of a cell.
    """
    found = np.zeros((len(cells), 3), np.float32)
    for slot, number in enumerate(numbers if record.clicks else ()):
        if not record.clicks[number]:
            continue
        x, y, label = record.clicks[number][0]
        seen = placement.seen(x, y)
        if label != PromptLabel.FOREGROUND or seen is None:
            continue
        column, row = (int((value + 0.5) // ratio) for value in seen)
        if cells[slot, row, column]:
            found[slot] = *seen, 1
    return found


def check_clicks(config: InteractionConfig, sources: Mapping[str, Joined]) -> None:
    """Raises ValueError if recorded clicks are to be shown and `sources`, by the options that name them, have none."""
    share = config.recorded_share
    if share > 0 and not any(source.has_clicks() for source in sources.values()):
        raise ValueError(
            f"interaction.recorded_share is {share:g}, and no object of {' or '.join(sources)} has recorded clicks of "
            f"which the first is on it. Give data of a format that keeps them ({', '.join(OF_CLICKS)}), or leave "
            "interaction.recorded_share at 0"
        )
