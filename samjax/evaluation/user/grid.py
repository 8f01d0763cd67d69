"""Everything in a photo, by asking for a grid of points."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from samjax.amg.crops import point_grid
from samjax.evaluation.protocol import Prompt


@dataclasses.dataclass(frozen=True)
class Grid:
    """A grid of points that asks for everything. Raises ValueError for what is no grid, and no threshold."""

    points_per_side: int
    nms_threshold: float  # IoU of boxes above which a mask is a duplicate of one with a higher predicted IoU
    points_per_batch: int = 64  # asked for together: memory, not results

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.points_per_batch < 1:
            raise ValueError(
                f"points per side and per batch are at least 1, got {self.points_per_side} and {self.points_per_batch}"
            )
        if not 0 < self.nms_threshold <= 1:
            raise ValueError(f"the threshold of suppression is an IoU above 0 and up to 1, got {self.nms_threshold}")

    def settings(self) -> dict[str, Any]:
        """The settings that decide results."""
        return {"points_per_side": self.points_per_side, "nms_threshold": self.nms_threshold}

    def prompts(self, size: tuple[int, int]) -> Iterator[list[Prompt]]:
        """One for each point of a photo of `size` (height, width), row by row, batch by batch."""
        points = (point_grid(self.points_per_side) * size[::-1]).astype(np.float32)
        label = np.ones(1, np.int32)
        for start in range(0, len(points), self.points_per_batch):
            yield [Prompt(point[None], label) for point in points[start : start + self.points_per_batch]]
