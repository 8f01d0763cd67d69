"""Masks as outlines for drawing."""

import functools

import numpy as np

from samjax.ops.rle import RLE
from samjax.writers.outlines import outline

Ring = list[list[float]]  # (x, y), pixel (0, 0) covering [0, 1] x [0, 1]; the first is not repeated


def polygons(rle: RLE, tolerance: float) -> list[list[Ring]]:
    """The parts of a mask, each the outer ring and then its holes, simplified by up to `tolerance` pixels."""
    return _polygons(rle["counts"], tuple(rle["size"]), tolerance)


@functools.lru_cache(4096)
def _polygons(counts: str, size: tuple[int, int], tolerance: float) -> list[list[Ring]]:
    return [
        [np.round(np.asarray(ring.coords)[:-1], 2).tolist() for ring in (part.exterior, *part.interiors)]
        for part in outline({"size": list(size), "counts": counts}, tolerance)
    ]
