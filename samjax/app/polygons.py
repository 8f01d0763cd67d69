"""Masks as outlines for drawing."""

import numpy as np

from samjax.app.sized_cache import SizedCache
from samjax.ops.rle import RLE
from samjax.writers.outlines import outline

Ring = list[list[float]]  # (x, y), pixel (0, 0) covering [0, 1] x [0, 1]; the first is not repeated

_RING = 200  # bytes that a ring takes beside its points
_KNOWN: SizedCache[list[list[np.ndarray]]] = SizedCache(64_000_000)  # bytes


def polygons(rle: RLE, tolerance: float) -> list[list[Ring]]:
    """The parts of a mask, each the outer ring and then its holes, simplified by up to `tolerance` pixels."""
    key = rle["counts"], *rle["size"], tolerance
    parts = _KNOWN.get(key)
    if parts is None:
        parts = [
            [np.round(np.asarray(ring.coords)[:-1], 2) for ring in (part.exterior, *part.interiors)]
            for part in outline(rle, tolerance)
        ]
        size = sum(ring.nbytes + _RING for part in parts for ring in part)
        _KNOWN.put(key, parts, size + len(rle["counts"]) + _RING)
    return [[ring.tolist() for ring in part] for part in parts]
