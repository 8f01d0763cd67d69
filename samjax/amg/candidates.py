"""Masks that have been found and not yet been sorted out, as columns on the host."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Candidates:
    """N masks of a photo; everything is in pixels of the ORIGINAL frame."""

    rles: list[dict[str, Any]]  # N compressed COCO RLEs of the photo's size
    boxes: Int[np.ndarray, "N 4"]  # (x0, y0, x1, y1) of the outermost pixels, inclusive; all 0 for an empty mask
    iou: Float[np.ndarray, " N"]  # predicted
    stability: Float[np.ndarray, " N"]
    points: Float[np.ndarray, "N 2"]  # (x, y) of the prompt
    crops: Int[np.ndarray, "N 4"]  # (x0, y0, x1, y1) of the crop or tile the mask was found in, ends exclusive

    def __len__(self) -> int:
        return len(self.rles)

    def take(self, indices: Sequence[int] | Int[np.ndarray, " K"]) -> "Candidates":
        """Those at `indices`, in that order."""
        index = np.asarray(indices, int)
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rles = [self.rles[i] for i in index]
        return Candidates(rles=rles, **{name: column[index] for name, column in columns.items() if name != "rles"})

    @classmethod
    def concatenate(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """The masks of all parts, one part after the other; none if there are no parts."""
        if not parts:
            return cls([], np.zeros((0, 4), int), np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros((0, 4), int))
        names = [field.name for field in dataclasses.fields(cls) if field.name != "rles"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(rles=[rle for part in parts for rle in part.rles], **columns)
