"""Grids of points, crops and tiles of a photo. Boxes are (x0, y0, x1, y1) in pixels, ends exclusive.

Border tiles stick out of the photo, filled with the colour that normalisation takes to zero: scale and content of a
tile do not depend on where the photo ends.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

Box = tuple[int, int, int, int]


class Crop(NamedTuple):
    """A part of a photo, and the layer of crops that it belongs to: 0 is the whole photo."""

    box: Box
    layer: int


def point_grid(per_side: int) -> Float64[np.ndarray, "P 2"]:
    """per_side² points (x, y), evenly spaced in [0, 1] and row by row. Raises ValueError below one point."""
    if per_side < 1:
        raise ValueError(f"a grid needs at least one point a side, got {per_side}")
    side = np.linspace(0.5 / per_side, 1 - 0.5 / per_side, per_side)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def point_grids(per_side: int, layers: int, downscale: int) -> list[Float64[np.ndarray, "P 2"]]:
    """The grid of the whole photo and of each layer of crops; points per side shrink by `downscale` a layer.

    Raises ValueError for impossible numbers, and where a layer would have no points.
    """
    if layers < 0 or downscale < 1:
        raise ValueError(f"layers cannot be negative nor the downscale factor below 1, got {layers} and {downscale}")
    sides = [int(per_side / downscale**layer) for layer in range(layers + 1)]
    if layers and sides[-1] < 1 <= per_side:
        raise ValueError(
            f"crop layer {sides.index(0)} has no points: {per_side} points per side are divided by {downscale} for "
            "each layer; use more points, fewer layers or a smaller crop_n_points_downscale_factor"
        )
    return [point_grid(side) for side in sides]


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[Crop]:
    """The whole photo of `size` (height, width), then (2^i)² crops for each layer i, column by column.

    Same boxes and order as the reference's `generate_crop_boxes`, but for crops that have no pixel of a tiny photo.
    Raises ValueError for impossible layers and overlaps.
    """
    if layers < 0:
        raise ValueError(f"the number of crop layers cannot be negative, got {layers}")
    if not 0 <= overlap_ratio < 1:
        raise ValueError(f"the overlap of crops is a share from 0 to below 1, got {overlap_ratio}")
    height, width = size
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        corners = itertools.product(
            [(crop_width - overlap) * i for i in range(count)], [(crop_height - overlap) * i for i in range(count)]
        )
        crops += [
            Crop((x, y, min(x + crop_width, width), min(y + crop_height, height)), layer)
            for x, y in corners
            if x < width and y < height
        ]
    return crops


def tile_boxes(size: tuple[int, int], tile: int, overlap: int) -> list[Box]:
    """Square tiles of side `tile` that cover a photo of `size` (height, width), row by row.

    They form a lattice from the photo's corner with `overlap` pixels between neighbours. The last ones stick out of the
    photo: what a tile shows, and at which scale, does not depend on where the photo ends.
    Raises ValueError for impossible sides and overlaps.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise ValueError(f"tiles need a positive side and an overlap from 0 to below it, got {tile} and {overlap}")
    step = tile - overlap
    ys, xs = ([i * step for i in range(max(1, math.ceil((side - overlap) / step)))] for side in size)
    return [(x, y, x + tile, y + tile) for y in ys for x in xs]
