"""Segmentations in all the forms that annotations have, as checked run-length encodings of a photo's size."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8

from samjax.data.record import BadRecord, Record
from samjax.ops.rle import RLE, encode_placed, encode_rle
from samjax.transforms import Size

# A box or polygon may stick out of the photo by this share of its side: annotators draw beyond the edge, and the part
# outside is cut off. What sticks out further belongs to another photo, or has other units.
SLACK = 0.1


class Findings:
    """The masks of one photo as they are found, and what has to be left out."""

    def __init__(self, name: str, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        self.name, self.rgb = name, rgb
        self.size: Size = (rgb.shape[0], rgb.shape[1])
        self._masks: list[_Found] = []
        self._problems: list[str] = []

    def add(self, what: str, rle: RLE, identity: int | str, category: int | None = None) -> None:
        """`what` is what messages call the mask."""
        self._masks.append(_Found(what, rle, identity, category))

    def add_void(self, what: str, rle: RLE) -> None:
        """Pixels of which nothing is known."""
        self._masks.append(_Found(what, rle, "", is_void=True))

    def add_annotations(self, annotations: Sequence[Any]) -> None:
        """Of COCO's form: "id", "bbox" [x, y, width, height], "category_id", "iscrowd" and "segmentation"; all but
        the last may be missing. Crowds are void."""
        known = set()
        for number, annotation in enumerate(annotations):
            identity = annotation.get("id") if isinstance(annotation, dict) else None
            what = f"annotation {identity}" if identity is not None else f"annotation number {number}"
            try:
                if not isinstance(annotation, dict):
                    raise ValueError("it is no object")
                if identity is not None and repr(identity) in known:
                    raise ValueError("its id comes twice")
                known.add(repr(identity))
                if annotation.get("bbox"):
                    check_box(annotation["bbox"], self.size)
                rle = of_coco(annotation.get("segmentation"), self.size)
                if annotation.get("iscrowd"):
                    self.add_void(what, rle)
                    continue
                category = annotation.get("category_id")
                self.add(
                    what,
                    rle,
                    identity if isinstance(identity, int | str) else what,
                    category if isinstance(category, int) else None,
                )
            except ValueError as error:
                self.leave_out(what, error)

    def leave_out(self, what: str, why: object) -> None:
        self._problems.append(f"{what}: {why}")

    def record(self, *, empty: bool = False) -> Record:
        """The masks that are sound. Raises `BadRecord` where there are none, unless it may be `empty`."""
        sound = []
        flaws = flaws_of([found.rle for found in self._masks], self.size)
        for found, flaw in zip(self._masks, flaws, strict=True):
            if flaw is None:
                sound.append(found)
            else:
                self.leave_out(found.what, flaw)
        objects = [found for found in sound if not found.is_void]
        void = [found.rle for found in sound if found.is_void]
        if not objects and not empty:
            listed = "; ".join(self._problems[:3]) + ("; …" if len(self._problems) > 3 else "")
            raise BadRecord(f"no usable masks ({listed or 'it has no annotations'})")
        return Record(
            self.name,
            self.rgb,
            tuple(found.rle for found in objects),
            tuple(self._problems),
            tuple(found.identity for found in objects),
            tuple(found.category for found in objects),
            union(void) if void else None,
        )


@dataclasses.dataclass(frozen=True)
class _Found:
    what: str
    rle: RLE
    identity: int | str
    category: int | None = None
    is_void: bool = False


def of_coco(segmentation: Any, size: Size) -> RLE:
    """COCO's three forms: polygons, uncompressed runs, compressed runs (their text is checked by `Findings.record`).

    Raises ValueError with what is wrong.
    """
    if isinstance(segmentation, list):
        return of_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("its segmentation is neither a list of polygons nor an encoding with size and counts")
    counts, stated = segmentation["counts"], segmentation["size"]
    if not isinstance(stated, list) or list(stated) != list(size):
        raise ValueError(f"its mask has the size {stated} (height, width), the photo {list(size)}")
    if isinstance(counts, list):
        return _of_runs(counts, size)
    if not isinstance(counts, str):
        raise ValueError(f"its counts are {type(counts).__name__}, neither a text nor a list")
    try:
        return {"size": list(size), "counts": counts.encode("ascii")}
    except UnicodeEncodeError:
        raise ValueError("its counts are no run-length encoding") from None


def of_polygons(polygons: Sequence[Any], size: Size) -> RLE:
    """The union of COCO's polygons [x0, y0, x1, y1, ...], pixels of the ORIGINAL frame; parts outside are cut off.

    Fragments of fewer than three points, which COCO has here and there, do not count.
    Raises ValueError where there is no polygon, or one is out of range.
    """
    from pycocotools import mask as coco

    rings = []
    for polygon in polygons:
        try:
            ring = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise ValueError("its polygons are not lists of numbers") from None
        if ring.ndim != 1 or len(ring) % 2:
            raise ValueError("its polygons are not lists [x0, y0, x1, y1, ...]")
        if len(ring) >= 6:
            check_points(ring.reshape(-1, 2), size, "polygon")
            rings.append(ring.tolist())
    if not rings:
        raise ValueError("it has no polygon of three points or more")
    return coco.merge(coco.frPyObjects(rings, *size))


def _of_runs(counts: Sequence[Any], size: Size) -> RLE:
    from pycocotools import mask as coco

    try:
        runs = np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its counts are not whole numbers") from None
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"its runs do not add up to {size[0]} x {size[1]} pixels")
    return coco.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)


def of_mask(mask: Bool[np.ndarray, "H W"]) -> RLE:
    return _with_bytes(encode_rle(mask))


def of_labels(labels: Integer[np.ndarray, "H W"]) -> Iterator[tuple[int, RLE]]:
    """Each positive number of a map with its pixels."""
    from scipy import ndimage

    values = np.unique(labels)
    values = values[values > 0]
    if not len(values):
        return
    highest = int(values[-1])
    if highest > 4 * len(values):  # numbers with wide gaps; find_objects makes a list up to the highest
        labels = np.searchsorted(values, labels) * np.isin(labels, values) + np.isin(labels, values)
    else:
        labels = np.maximum(labels, 0).astype(np.int64)
        values = np.arange(1, highest + 1)
    height, width = labels.shape
    for number, window in enumerate(ndimage.find_objects(labels), 1):
        if window is not None:
            corner = (window[1].start, window[0].start)
            yield int(values[number - 1]), _with_bytes(encode_placed(labels[window] == number, corner, (height, width)))


def union(rles: Sequence[RLE]) -> RLE:
    from pycocotools import mask as coco

    return coco.merge(list(rles))


def check_box(box: Any, size: Size) -> None:
    """Of [x, y, width, height] in pixels. Raises ValueError where it is malformed, inverted or out of range.

    A width of 0 is a single column in some tools.
    """
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        raise ValueError(f"its box is {box!r}, not four numbers") from None
    if not (math.isfinite(x + y + width + height) and width >= 0 and height >= 0):
        raise ValueError(f"its box {[x, y, width, height]} is inverted or not finite")
    _check_extent(x, y, x + width, y + height, size, "box")


def check_points(points: Float64[np.ndarray, "N 2"], size: Size, what: str) -> None:
    """Raises ValueError where (x, y) are not finite or out of range; `what` they are is for the message."""
    if not np.isfinite(points).all():
        raise ValueError(f"its {what} holds NaN or infinity")
    _check_extent(*points.min(0).tolist(), *points.max(0).tolist(), size, what)


def _check_extent(left: float, top: float, right: float, bottom: float, size: Size, what: str) -> None:
    height, width = size
    x, y = SLACK * width, SLACK * height
    if left < -x or top < -y or right > width + x or bottom > height + y:
        raise ValueError(
            f"its {what} reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), "
            f"out of the photo of {width} x {height} pixels"
        )


def flaws_of(rles: Sequence[RLE], size: Size) -> list[str | None]:
    """What is wrong with each compressed encoding; None where it is a mask of this size with foreground.

    pycocotools reads beyond the end of texts that break off, so they are checked first: all of a photo's together,
    because NumPy takes as long for one as for a hundred. See `samjax.ops.rle.run_lengths` for the text's form.
    """
    flaws: list[str | None] = [None if rle["counts"] else "its mask has no runs" for rle in rles]
    texts = [rle["counts"] for rle in rles if rle["counts"]]
    if not texts:
        return flaws
    digits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    ends = np.cumsum([len(text) for text in texts])
    starts = np.r_[0, ends[:-1]]
    last = digits & 32 == 0
    last_of_text = np.zeros(len(digits), bool)
    last_of_text[ends - 1] = True
    final = last | last_of_text  # so that a text that breaks off does not run into the next
    number = np.cumsum(final) - final
    first = np.flatnonzero(np.diff(number, prepend=-1))
    place = np.arange(len(digits)) - first[number]
    bad_digit = (digits < 0) | (digits > 63) | (place > 6) | (last_of_text & ~last)
    values = np.bincount(number, ((digits & 31) << 5 * np.minimum(place, 6)).astype(float)).astype(np.int64)
    values -= np.where(digits[final] & 16, 1, 0) << 5 * (np.minimum(place[final], 6) + 1)

    begin = number[starts]  # of each text, among all numbers
    count = np.diff(np.r_[begin, len(values)])
    within = np.arange(len(values)) - np.repeat(begin, count)
    for parity, least in ((1, 1), (0, 2)):
        chosen = (within % 2 == parity) & (within >= least)
        running = np.cumsum(np.where(chosen, values, 0))
        base = np.repeat((running - np.where(chosen, values, 0))[begin], count)
        values = np.where(chosen, running - base, values)
    foreground = np.add.reduceat(np.where(within % 2 == 1, values, 0), begin)
    found = []
    for malformed, negative, total, area in zip(
        np.logical_or.reduceat(bad_digit, starts),
        np.logical_or.reduceat(values < 0, begin),
        np.add.reduceat(values, begin),
        foreground,
        strict=True,
    ):
        if malformed or negative:
            found.append("its counts are no run-length encoding")
        elif total != size[0] * size[1]:
            found.append(f"its runs cover {total} pixels, the photo has {size[1]} x {size[0]}")
        else:
            found.append(None if area else "its mask is empty")
    remaining = iter(found)
    return [flaw or next(remaining) for flaw in flaws]


def _with_bytes(rle: dict[str, Any]) -> RLE:
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
