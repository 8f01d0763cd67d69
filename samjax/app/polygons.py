"""Masks as outlines for drawing, by `samjax.writers.outlines`, also of photos too large to decode a mask of at once."""

import functools

import numpy as np

from samjax.ops.rle import RLE, encode_rle, foreground_runs, rle_box
from samjax.writers.outlines import outline

Ring = list[list[float]]  # (x, y), pixel (0, 0) covering [0, 1] x [0, 1]; the first is not repeated


def polygons(rle: RLE, tolerance: float) -> list[list[Ring]]:
    """The parts of a mask, each the outer ring and then its holes, simplified by up to `tolerance` pixels."""
    return _polygons(rle["counts"], tuple(rle["size"]), tolerance)


@functools.lru_cache(4096)
def _polygons(counts: str, size: tuple[int, int], tolerance: float) -> list[list[Ring]]:
    rle = {"size": list(size), "counts": counts}
    x0, y0, width, height = map(int, rle_box(rle))
    if not width:
        return []
    # Only the columns and rows with foreground are ever unpacked.
    edges = np.zeros(width * size[0] + 1, np.int8)
    runs = foreground_runs(rle)
    runs = runs[runs[:, 0] < runs[:, 1]] - x0 * size[0]
    np.add.at(edges, runs[:, 0], 1)
    np.add.at(edges, runs[:, 1], -1)
    part = np.cumsum(edges[:-1], dtype=np.int8).reshape(width, size[0]).T[y0 : y0 + height].astype(bool)
    corner = np.array([x0, y0])
    return [
        [np.round(np.asarray(ring.coords)[:-1] + corner, 2).tolist() for ring in (shape.exterior, *shape.interiors)]
        for shape in outline(encode_rle(part), tolerance)
    ]
