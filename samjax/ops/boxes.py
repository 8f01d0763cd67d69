"""Boxes (x0, y0, x1, y1) and non-maximum suppression as operations of fixed size.

Boxes that are compared share a frame and a unit, usually pixels. Their sides are x1 - x0 and y1 - y0. That holds for
inclusive boxes too, although these cover one pixel more each way: the reference compares its masks' boxes so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int, Int32, Real

BLOCK = 256  # candidates compared with all others at once


def box_iou(first: Float32[Array, "N 4"], second: Float32[Array, "M 4"]) -> Float32[Array, "N M"]:
    """Intersection over union of boxes (x0, y0, x1, y1) of one frame; 0 where both are empty.

    Areas are (x1 - x0)(y1 - y0).
    """
    low = jnp.maximum(first[:, None, :2], second[None, :, :2])
    high = jnp.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = jnp.prod(jnp.maximum(high - low, 0), axis=2)
    areas = [jnp.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return jnp.where(union > 0, intersection / union, 0)


def greedy(
    suppressed: Callable[[Int32[Array, " B"]], Bool[Array, "B N"]], valid: Bool[Array, " N"]
) -> Bool[Array, " N"]:
    """Greedy suppression: which of N candidates, sorted with the best first, no better kept one suppresses.

    N is at least 1; candidates that are not valid are not kept and suppress none. `suppressed(rows)` says which
    candidates (columns) would suppress those numbered `rows`. It is called with B = min(N, 256) numbers at once, and
    what it says of numbers beyond N - 1 does not matter.

    Whether a candidate is kept follows from the better ones alone, so iterating "kept = not suppressed by a kept better
    one" settles in as many rounds as the longest chain of suppressions; that happens block by block, which bounds the
    memory. Blocks beyond the last valid candidate are not visited.
    """
    count, size = len(valid), min(BLOCK, len(valid))
    valid = jnp.pad(valid, (0, -count % size))
    used = jnp.where(valid, jnp.arange(len(valid), dtype=jnp.int32) + 1, 0).max()
    blocks = (used + size - 1) // size
    better = np.arange(size)[:, None] > np.arange(size)

    def visit(block, kept):
        start = jnp.asarray(block, jnp.int32) * size  # without jit, loops count in Python's integers
        rows = start + jnp.arange(size, dtype=jnp.int32)
        by_all = jnp.pad(suppressed(rows), ((0, 0), (0, -count % size)))
        free = lax.dynamic_slice_in_dim(valid, start, size) & ~(by_all & kept[None]).any(1)
        within = lax.dynamic_slice_in_dim(by_all, start, size, axis=1) & better

        def settle(state):
            now = state[0]
            return free & ~(within & now[None]).any(1), now

        now, _ = lax.while_loop(lambda state: (state[0] != state[1]).any(), settle, settle((free, free)))
        return lax.dynamic_update_slice_in_dim(kept, now, start, 0)

    return lax.fori_loop(0, blocks, visit, jnp.zeros(len(valid), bool))[:count]


def keep_by_nms(
    boxes: Float32[Array, "N 4"],
    scores: Float32[Array, " N"],
    valid: Bool[Array, " N"],
    iou_threshold: Float32[Array, ""] | float,
) -> tuple[Int32[Array, " N"], Bool[Array, " N"]]:
    """Greedy box NMS as torchvision's: `by_score`'s order, and which of the candidates IN THAT ORDER are kept.

    There is at least one box; all are (x0, y0, x1, y1) in one frame. A box is dropped if it is not valid or if its IoU
    with a better kept one is above the threshold.
    """
    order = by_score(scores, valid)
    sorted_boxes = boxes[order]

    def suppressed(rows):
        return box_iou(sorted_boxes[rows], sorted_boxes) > iou_threshold

    return order, greedy(suppressed, valid[order])


def by_score(scores: Float32[Array, " N"], valid: Bool[Array, " N"]) -> Int32[Array, " N"]:
    """Indices by descending score, equal scores as they come, those that are not valid at the end."""
    return jnp.lexsort((-scores, ~valid)).astype(jnp.int32)


def float32_below(number: float) -> np.float32:
    """The largest float32 that is not above `number`: a float32 exceeds the one exactly when it exceeds the other.

    torchvision holds float32 IoUs against thresholds in double precision, and 3/10 in float32 is above 0.3.
    """
    rounded = np.float32(number)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > number else rounded


_keep_by_nms = jax.jit(keep_by_nms)


def nms(boxes: Real[np.ndarray, "N 4"], scores: Real[np.ndarray, " N"], iou_threshold: float) -> Int[np.ndarray, " K"]:
    """Indices of the boxes that greedy NMS keeps, by descending score; any number of boxes, on the host.

    Boxes are (x0, y0, x1, y1) in one frame; coordinates and scores are rounded to float32. A box is dropped if its IoU
    with a better kept one is above the threshold.
    Runs `keep_by_nms` on a count rounded up to a power of two, so that few programs are compiled.
    """
    count = len(boxes)
    size = 1 << max(count - 1, 0).bit_length()
    padded = np.zeros((size, 4), np.float32)
    padded[:count] = boxes
    padded_scores = np.zeros(size, np.float32)
    padded_scores[:count] = scores
    columns = map(jnp.asarray, (padded, padded_scores, np.arange(size) < count, float32_below(iou_threshold)))
    order, kept = _keep_by_nms(*columns)
    return np.asarray(order)[np.asarray(kept)].astype(int)
