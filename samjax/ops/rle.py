"""COCO run-length encoding of masks, by pycocotools: runs go down the columns and start with background.

An encoding's frame is the picture of H x W pixels that its "size" [H, W] states; coordinates are in its pixels, counted
from its upper left. Lengths of runs are numbers of pixels. Encodings that are compared or united are of one frame.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

RLE = dict[str, Any]  # {"size": [H, W], "counts": compressed runs as text}
_MOST_DIGITS = 6  # of a number, after the first: 35 bits


def coco_masks() -> Any:
    """`pycocotools.mask`, imported when it is used.

    Typed as Any, because its type stubs know runs as bytes only, and it takes text.
    """
    from pycocotools import mask

    return mask


def encode_rle(mask: Bool[np.ndarray, "H W"]) -> dict:
    """Encodes a mask as {"size": [H, W], "counts": compressed runs as text}, ready for JSON."""
    coco = coco_masks()
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return as_text(rle)


def encode_placed(mask: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int]) -> dict:
    """`encode_rle` of a frame that is background but for `mask`; the frame itself is never made.

    The frame has `size` (height, width) in pixels, and the mask's upper left pixel is its pixel `corner` (x, y). The
    mask must lie within the frame, which is not checked.
    """
    coco = coco_masks()
    (x0, y0), (height, width) = corner, size
    steps = np.diff(mask.T.astype(np.int8), axis=1, prepend=0, append=0).ravel()  # (w, h + 1): +1 starts, -1 ends a run
    edges = np.flatnonzero(steps)
    column, row = np.divmod(edges, mask.shape[0] + 1)
    edges = (x0 + column) * height + y0 + row
    starts, ends = edges[::2], edges[1::2]
    apart = starts[1:] != ends[:-1]  # a run that reaches the frame's lower edge may go on in the next column
    edges = np.stack([starts[np.r_[True, apart]], ends[np.r_[apart, True]]], 1).ravel() if len(starts) else edges
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    rle = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return as_text(rle)


class Runs(NamedTuple):
    """The runs of N masks, one mask's after the other."""

    lengths: Int[np.ndarray, " R"]  # pixels; background first, then in turns
    first: Int[np.ndarray, " N"]  # the index of each mask's first run
    malformed: Bool[np.ndarray, " N"]  # the mask's text is no encoding, and its lengths mean nothing


def parse_runs(texts: Sequence[str]) -> Runs:
    """Reads the texts of compressed runs (pycocotools' `rleToString`), also damaged ones.

    There is at least one text, and none is empty. The form: base 32, lowest digit first, 32 marks digits with more to
    come and 16 in the last one a negative number; from the fourth number on differences to the last but one. All texts
    are read together, because NumPy takes as long for one as for a hundred. Whether the runs fill a frame is left to
    the caller.
    """
    ascii_texts = [text if text.isascii() else "~" * len(text) for text in texts]  # ~ is no digit
    digits = np.frombuffer("".join(ascii_texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.cumsum([len(text) for text in texts])
    starts = np.r_[0, ends[:-1]]
    last = digits & 32 == 0
    last_of_text = np.zeros(len(digits), bool)
    last_of_text[ends - 1] = True
    final = last | last_of_text  # so that a text that breaks off does not run into the next
    number = np.cumsum(final) - final  # which number each digit belongs to
    place = np.arange(len(digits)) - np.flatnonzero(np.diff(number, prepend=-1))[number]
    bad = (digits < 0) | (digits > 63) | (place > _MOST_DIGITS) | (last_of_text & ~last)
    place = np.minimum(place, _MOST_DIGITS)
    values = np.bincount(number, ((digits & 31) << 5 * place).astype(float)).astype(np.int64)
    values -= np.where(digits[final] & 16, 1, 0) << 5 * (place[final] + 1)

    first = number[starts]
    count = np.diff(np.r_[first, len(values)])
    within = np.arange(len(values)) - np.repeat(first, count)
    for parity, least in ((1, 1), (0, 2)):
        chosen = np.where((within % 2 == parity) & (within >= least), values, 0)
        running = np.cumsum(chosen)
        base = np.repeat((running - chosen)[first], count)
        values = np.where((within % 2 == parity) & (within >= least), running - base, values)
    malformed = np.logical_or.reduceat(bad, starts) | np.logical_or.reduceat(values < 0, first)
    return Runs(values, first, malformed)


def run_lengths(rle: dict) -> Int[np.ndarray, " R"]:
    """The lengths of the runs in pixels, background first: COCO's uncompressed form. The runs of `rle` must be text."""
    return parse_runs([rle["counts"]]).lengths if rle["counts"] else np.zeros(0, np.int64)


def foreground_runs(rle: dict) -> Int[np.ndarray, "R 2"]:
    """Start and end (exclusive) of each run of foreground, in pixels counted down the columns: (x, y) is x·H + y.

    The runs of `rle` must be text.
    """
    edges = np.cumsum(run_lengths(rle))
    return edges[: len(edges) // 2 * 2].reshape(-1, 2)


def decode_rle(rle: dict) -> Bool[np.ndarray, "H W"]:
    """The mask of compressed runs (text or bytes), or of uncompressed ones (a list of lengths in pixels).

    Raises ValueError if runs go beyond the frame. They must also fill it, which is not checked.
    """
    coco = coco_masks()
    if isinstance(rle["counts"], list):
        rle = coco.frPyObjects(rle, *rle["size"])
    return coco.decode(rle).astype(bool)


def decode_within_box(rle: dict) -> tuple[Bool[np.ndarray, "h w"], tuple[int, int]]:
    """The part of a mask within its box, and the box's upper left pixel (x, y); the rest of the frame is never made.

    An empty mask has an empty part. The runs of `rle` must be text.
    """
    x0, y0, width, height = map(int, rle_box(rle))
    rows = rle["size"][0]
    runs = foreground_runs(rle)
    runs = runs[runs[:, 0] < runs[:, 1]] - x0 * rows
    steps = np.zeros(width * rows + 1, np.int8)  # +1 starts, -1 ends a run; a start may be an end
    steps[runs[:, 0]] += 1
    steps[runs[:, 1]] -= 1
    columns = np.cumsum(steps[:-1], dtype=np.int8).reshape(width, rows)
    return columns[:, y0 : y0 + height].T.astype(bool), (x0, y0)


def rle_area(rle: dict) -> int:
    """The number of foreground pixels."""
    coco = coco_masks()
    return int(coco.area(rle))


def rle_box(rle: dict) -> list[float]:
    """COCO's box [x, y, width, height] in pixels: (x, y) is the upper left pixel, and a single column has width 1.

    An empty mask has all zeros.
    """
    coco = coco_masks()
    return coco.toBbox(rle).tolist()


def inclusive_box(rle: dict) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the outermost pixels, ends inclusive; all 0 for an empty mask.

    The reference's convention (`batched_mask_to_box` in utils/amg.py).
    """
    x, y, width, height = map(int, rle_box(rle))
    return x, y, x + max(width - 1, 0), y + max(height - 1, 0)


def rle_iou(first: list[dict], second: list[dict]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of each of N masks with each of M, all of the same frame; 0 for two empty ones."""
    coco = coco_masks()
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.asarray(coco.iou(first, second, [0] * len(second)))


def clip_rle(rle: dict, box: tuple[int, int, int, int]) -> dict:
    """The part of a mask within a box (x0, y0, x1, y1) in whole pixels, ends exclusive; the frame stays the same."""
    coco = coco_masks()
    x0, y0, x1, y1 = box
    window = coco.frPyObjects(np.array([[x0, y0, x1 - x0, y1 - y0]], np.double), *rle["size"])[0]
    return as_text(coco.merge([rle, window], intersect=True))


def union_rle(rles: list[dict]) -> dict:
    """The union of masks, at least one, of the same frame."""
    coco = coco_masks()
    return as_text(coco.merge(rles))


def as_text(rle: dict) -> dict:
    """An encoding whose runs are text, ready for JSON; pycocotools' own has bytes."""
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
