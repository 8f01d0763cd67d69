"""The placement of a photo in the model's input, and the way of its pixels and masks there.

ORIGINAL: pixels of the photo. INPUT: pixels of the model's input. Between them stands the SCALED photo, of which a
window, perhaps mirrored, lies in the upper left of the INPUT frame; what is right of it and below is padding.

The photo is resampled as inference resamples it (`samjax.transforms.resize_photo`). A mask is sampled at the centres
of INPUT pixels: that is unbiased at any scale (a threshold on covered area would take away what is thinner than half a
pixel), leaves every boundary within half a pixel of the photo's, and is read off the runs without drawing the mask at
its ORIGINAL size.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from samjax.ops.rle import RLE, run_lengths
from samjax.transforms import Size, by_channels, input_size, resize_photo


@dataclasses.dataclass(frozen=True)
class Placement:
    """Sizes are (height, width), corners (y, x), both in pixels."""

    original: Size
    scaled: Size  # of the whole photo after scaling
    corner: tuple[int, int]  # of the window in the SCALED photo
    size: Size  # of the window, which is what the INPUT frame shows
    flip: bool  # left and right exchanged, within the window

    @classmethod
    def fitting(cls, original: Size, image_size: Size) -> "Placement":
        """The whole photo, as inference places it."""
        fitted = input_size(original, image_size)
        return cls(original, fitted, (0, 0), fitted, False)

    @functools.cached_property
    def rows(self) -> Int64[np.ndarray, " h"]:
        """The ORIGINAL row under the centre of each INPUT row."""
        return self._samples(0)

    @functools.cached_property
    def columns(self) -> Int64[np.ndarray, " w"]:
        """The ORIGINAL column under the centre of each INPUT column."""
        columns = self._samples(1)
        return columns[::-1] if self.flip else columns

    def seen(self, x: float | int, y: float | int) -> tuple[float, float] | None:
        """Where the INPUT frame shows the point (x, y) of the ORIGINAL photo; None if that is beyond the window.

        Integers name pixels in both frames, and their centres go where those of photo and masks go.
        """
        row, column = (
            (value + 0.5) * scaled / original - corner
            for value, scaled, original, corner in zip((y, x), self.scaled, self.original, self.corner, strict=True)
        )
        column = self.size[1] - column if self.flip else column
        if not (0 <= row < self.size[0] and 0 <= column < self.size[1]):
            return None
        return column - 0.5, row - 0.5

    def _samples(self, axis: int) -> np.ndarray:
        inputs = np.arange(self.corner[axis], self.corner[axis] + self.size[axis], dtype=np.int64)
        return (2 * inputs + 1) * self.original[axis] // (2 * self.scaled[axis])

    @functools.cached_property
    def _rows_above(self) -> np.ndarray:
        """The number of INPUT rows above each ORIGINAL row, from 0 to height inclusive."""
        return np.searchsorted(self._samples(0), np.arange(self.original[0] + 1))

    @functools.cached_property
    def _columns_before(self) -> np.ndarray:
        """The number of INPUT columns, unflipped, before each ORIGINAL column, from 0 to width inclusive."""
        return np.searchsorted(self._samples(1), np.arange(self.original[1] + 1))


def place_photo(rgb: UInt8[np.ndarray, "H W channels"], placement: Placement) -> UInt8[np.ndarray, "h w channels"]:
    """The window of the scaled photo; only the pixels under it are resampled."""
    from PIL import Image

    if placement.size == placement.scaled:
        window = resize_photo(rgb, placement.scaled)
    else:
        y0, y1, x0, x1 = (
            edge * original / scaled
            for corner, side, original, scaled in zip(
                placement.corner, placement.size, placement.original, placement.scaled, strict=True
            )
            for edge in (corner, corner + side)
        )

        def resized(part: np.ndarray) -> np.ndarray:
            size = placement.size[1], placement.size[0]
            return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)))

        window = by_channels(resized, rgb)
    return window[:, ::-1] if placement.flip else window


@dataclasses.dataclass(frozen=True)
class PlacedMask:
    """A mask in the INPUT frame, as runs; `draw` makes pixels of a part of it."""

    placement: Placement
    edges: Int64[np.ndarray, " E"]  # where runs start and end in turn, counted down the ORIGINAL columns
    cover: float  # share of the ORIGINAL photo
    area: int  # pixels of the INPUT frame

    @classmethod
    def of(cls, rle: RLE, placement: Placement) -> "PlacedMask":
        """Raises ValueError if the mask has another size than the photo."""
        if tuple(rle["size"]) != placement.original:
            raise ValueError(f"a mask of size {tuple(rle['size'])} belongs to a photo of size {placement.original}")
        edges = np.cumsum(run_lengths(rle))
        edges = edges[: len(edges) // 2 * 2]
        x, y = np.divmod(edges, placement.original[0])
        before, above = placement._columns_before, placement._rows_above
        here = before[np.minimum(x + 1, placement.original[1])] - before[x]  # INPUT columns that show column x
        samples = before[x] * placement.size[0] + here * above[y]  # INPUT pixels before each edge
        cover = int((edges[1::2] - edges[::2]).sum()) / (placement.original[0] * placement.original[1])
        return cls(placement, edges, cover, int((samples[1::2] - samples[::2]).sum()))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) in INPUT pixels, ends exclusive, that holds all of the mask; it may be larger than needed.

        Empty where no run reaches into the window.
        """
        height = self.placement.original[0]
        starts, lasts = self.edges[::2], self.edges[1::2] - 1
        if not len(starts):
            return 0, 0, 0, 0
        columns = self.placement._columns_before
        x0, x1 = int(columns[starts[0] // height]), int(columns[lasts[-1] // height + 1])
        if (starts // height == lasts // height).all():
            rows = self.placement._rows_above
            y0, y1 = int(rows[(starts % height).min()]), int(rows[(lasts % height).max() + 1])
        else:  # a run that continues in the next column touches the lower and the upper edge
            y0, y1 = 0, self.placement.size[0]
        if self.placement.flip:
            x0, x1 = self.placement.size[1] - x1, self.placement.size[1] - x0
        return x0, y0, x1, y1

    def draw(self, box: tuple[int, int, int, int]) -> Bool[np.ndarray, "h w"]:
        """The mask's pixels within a box (x0, y0, x1, y1) of the window, ends exclusive."""
        x0, y0, x1, y1 = box
        if x0 >= x1 or y0 >= y1:
            return np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
        height = self.placement.original[0]
        columns, place = self._columns_of(x0, x1)
        # Edges in the frame that has a column for each of `columns` and a row for each of the box's.
        x, y = np.divmod(self.edges, height)
        column = np.searchsorted(columns, x)
        here = columns[np.minimum(column, len(columns) - 1)] == x
        row = np.clip(self.placement._rows_above[y] - y0, 0, y1 - y0)
        edges = np.empty(len(x) + 2, np.int64)
        edges[0], edges[-1] = 0, len(columns) * (y1 - y0)
        edges[1:-1] = column * (y1 - y0) + row * here
        inside = np.zeros(len(edges) - 1, bool)
        inside[1::2] = True
        mask = np.repeat(inside, edges[1:] - edges[:-1]).reshape(len(columns), y1 - y0)
        return (mask if place is None else mask[place]).T

    def _columns_of(self, x0: int, x1: int) -> tuple[np.ndarray, np.ndarray | slice | None]:
        """The ORIGINAL columns under a range of INPUT columns, each once and in order, and which is where."""
        columns = self.placement.columns[x0:x1]
        if self.placement.scaled[1] > self.placement.original[1]:
            return np.unique(columns, return_inverse=True)
        return (columns[::-1], slice(None, None, -1)) if self.placement.flip else (columns, None)
