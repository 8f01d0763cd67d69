"""Segmentations in all the forms that annotations have, as checked run-length encodings of a photo's size."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from samjax.ops.rle import RLE, as_text, coco_masks, encode_placed, parse_runs, union_rle
from samjax.readers.left_out import Problem, Reason, Unusable
from samjax.readers.numbers import identity, is_set, whole, whole_identity
from samjax.readers.record import BadRecord, Record
from samjax.transforms import Size

# A box or polygon may stick out of the photo by this share of its side: annotators draw beyond the edge, and the part
# outside is cut off. What sticks out further belongs to another photo, or has other units.
SLACK = 0.1


class Findings:
    """The masks of one photo as they are found, and what has to be left out."""

    def __init__(self, name: str, rgb: UInt8[np.ndarray, "H W channels"]) -> None:
        self.name, self.rgb = name, rgb
        self.size: Size = (rgb.shape[0], rgb.shape[1])
        self.origin: str | None = None  # see `Record`
        self.photo: str | None = None  # likewise
        self._masks: list[_Found] = []
        self._problems: list[Problem] = []

    def add(
        self,
        what: str,
        rle: RLE,
        identity: int | str,
        category: int | None = None,
        note: str = "",
        class_: str | None = None,
    ) -> None:
        """`what` is what messages call the mask, `note` a flaw of its annotation that does not matter, `class_` the
        name of its category."""
        self._masks.append(_Found(what, rle, identity, category, note=note, class_=class_))

    def add_void(self, what: str, rle: RLE, *, crowd: bool = False) -> None:
        """Pixels of which nothing is known; a crowd's are those of an annotation, which is counted."""
        self._masks.append(_Found(what, rle, "", is_void=True, is_crowd=crowd))

    def add_annotations(self, annotations: Sequence[Any], classes: Mapping[int, str] = MappingProxyType({})) -> None:
        """Adds annotations of COCO's form: "id", "bbox" [x, y, width, height], "category_id", "iscrowd" and
        "segmentation"; all but the last may be missing. Crowds are void. `classes` has the categories' names.

        Ids and boxes have no part in a mask: of annotations with one id those with the same segmentation are repeats,
        and a box that cannot be right is noted. Raises nothing: what cannot be used is left out, with its reason.
        """
        ids: set[int | str | None] = set()
        known: set[tuple[int | str | None, bytes]] = set()
        for number, annotation in enumerate(annotations):
            identity = _identity_of(annotation)
            what = f"annotation number {number}" if identity is None else f"annotation {identity}"
            if identity is not None and identity in ids:
                what += f" (number {number})"
            ids.add(identity)
            try:
                if not isinstance(annotation, dict):
                    raise Unusable("it is no object")
                rle = rle_from_coco(annotation.get("segmentation"), self.size)
                if is_crowd(annotation):
                    self.add_void(what, rle, crowd=True)
                    continue
                if (identity, rle["counts"]) in known:
                    raise Unusable("it comes twice, with the same segmentation", Reason.REPEAT)
                known.add((identity, rle["counts"]))
                category = whole_identity(annotation.get("category_id"))
                note = box_flaw(annotation.get("bbox"), self.size)
                name = None if category is None else classes.get(category)
                self.add(what, rle, what if identity is None else identity, category, note, name)
            except ValueError as error:
                self.leave_out(what, error)

    def leave_out(self, what: str, why: object) -> None:
        """`why` is an error; of `samjax.readers.left_out.Unusable` the kind is known too."""
        self._problems.append(Problem.of(what, why))

    def record(self, *, empty: bool = False) -> Record:
        """The masks that are sound. Raises `BadRecord` if there are none but there should be, unless it may be
        `empty`: masks without pixels, crowds, and no annotations at all are a photo without objects."""
        sound = []
        flaws = mask_flaws([found.rle for found in self._masks], self.size)
        for found, flaw in zip(self._masks, flaws, strict=True):
            if flaw is None:
                sound.append(found)
            else:
                self.leave_out(found.what, flaw)
        objects = [found for found in sound if not found.is_void]
        void = [found for found in sound if found.is_void]
        if not objects and not empty and any(problem.reason is not Reason.EMPTY for problem in self._problems):
            listed = "; ".join(map(str, self._problems[:3])) + ("; …" if len(self._problems) > 3 else "")
            raise BadRecord(f"no usable masks ({listed})", Reason.NO_USABLE_MASK)
        return Record(
            self.name,
            self.rgb,
            tuple(found.rle for found in objects),
            tuple(self._problems),
            _unique([found.identity for found in objects]),
            tuple(found.category for found in objects),
            union_rle([found.rle for found in void]) if void else None,
            tuple(Problem(found.what, _CROWD, Reason.CROWD) for found in void if found.is_crowd),
            tuple(Problem(found.what, found.note, Reason.BOX) for found in objects if found.note),
            self.origin,
            classes=tuple(found.class_ for found in objects) if any(found.class_ for found in objects) else (),
            photo=self.photo,
        )


@dataclasses.dataclass(frozen=True)
class _Found:
    what: str
    rle: RLE
    identity: int | str
    category: int | None = None
    is_void: bool = False
    is_crowd: bool = False
    note: str = ""
    class_: str | None = None


_CROWD = "its iscrowd is not 0: many objects in one"


def is_crowd(annotation: dict[str, Any]) -> bool:
    """True if COCO's "iscrowd" is set. Raises ValueError if that cannot be told."""
    found = is_set(annotation.get("iscrowd"))
    if found is None:
        raise Unusable(f"its iscrowd is {annotation['iscrowd']!r}, neither 0 nor 1")
    return found


def _identity_of(annotation: Any) -> int | str | None:
    """An annotation's id, None if it has none that could tell it from others."""
    given = annotation.get("id") if isinstance(annotation, dict) else None
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    found = identity(given)
    return None if found in ("", "nan") else found


def _unique(ids: Sequence[int | str]) -> tuple[int | str, ...]:
    """Ids that come again get a number: 0, "0 (2)", "0 (3)"."""
    times: Counter[int | str] = Counter()
    result: dict[int | str, None] = {}
    for given in ids:
        times[given] += 1
        candidate: int | str = given if times[given] == 1 else f"{given} ({times[given]})"
        while candidate in result:
            times[given] += 1
            candidate = f"{given} ({times[given]})"
        result[candidate] = None
    return tuple(result)


def rle_from_coco(segmentation: Any, size: Size) -> RLE:
    """COCO's three forms: polygons, uncompressed runs, compressed runs (their text is checked by `Findings.record`).

    Raises `Unusable`, a ValueError, with what is wrong.
    """
    if isinstance(segmentation, list):
        return rle_from_polygons(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise Unusable("its segmentation is neither a list of polygons nor an encoding with size and counts")
    counts, stated = segmentation["counts"], segmentation["size"]
    if not isinstance(stated, list) or [whole(side) for side in stated] != list(size):
        raise Unusable(f"its mask has the size {stated} (height, width), the photo {list(size)}", Reason.SIZE)
    if isinstance(counts, list):
        return _rle_from_runs(counts, size)
    if not isinstance(counts, str):
        raise Unusable(f"its counts are {type(counts).__name__}, neither a text nor a list")
    if not counts.isascii():
        raise Unusable("its counts are no run-length encoding")
    return {"size": list(size), "counts": counts}


def rle_from_polygons(polygons: Sequence[Any], size: Size) -> RLE:
    """The union of COCO's polygons [x0, y0, x1, y1, ...], pixels of the ORIGINAL frame; parts outside are cut off.

    Fragments of fewer than three points, which COCO has here and there, do not count.
    Raises `Unusable` if there is no polygon, or one is out of range.
    """
    coco = coco_masks()
    rings = []
    for polygon in polygons:
        try:
            ring = np.asarray(polygon, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise Unusable("its polygons are not lists of numbers") from None
        if ring.ndim != 1 or len(ring) % 2:
            raise Unusable("its polygons are not lists [x0, y0, x1, y1, ...]")
        if len(ring) >= 6:
            check_points(ring.reshape(-1, 2), size, "polygon")
            rings.append(ring.tolist())
    if not rings:
        raise Unusable("it has no polygon of three points or more", Reason.NO_AREA)
    return as_text(coco.merge(coco.frPyObjects(rings, *size)))


def _rle_from_runs(counts: Sequence[Any], size: Size) -> RLE:
    coco = coco_masks()
    try:
        given = np.asarray(counts, np.float64)
    except (TypeError, ValueError, OverflowError):
        given = np.array([np.nan])
    if not np.isfinite(given).all() or (given != np.rint(given)).any():
        raise Unusable("its counts are not whole numbers")
    if given.ndim != 1 or (given < 0).any() or given.sum() != size[0] * size[1]:
        raise Unusable(f"its runs do not add up to {size[0]} x {size[1]} pixels")
    return as_text(coco.frPyObjects({"size": list(size), "counts": given.astype(np.int64).tolist()}, *size))


def rles_from_labels(labels: Integer[np.ndarray, "H W"]) -> Iterator[tuple[int, RLE]]:
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
            yield int(values[number - 1]), encode_placed(labels[window] == number, corner, (height, width))


def check_box(box: Any, size: Size) -> None:
    """Checks [x, y, width, height] in pixels. Raises `Unusable` if it is malformed, inverted or out of range.

    A width of 0 is a single column in some tools.
    """
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"its box is {box!r}, not four numbers", Reason.BOX) from None
    if not (math.isfinite(x + y + width + height) and width >= 0 and height >= 0):
        raise Unusable(f"its box {[x, y, width, height]} is inverted or not finite", Reason.BOX)
    _check_extent(x, y, x + width, y + height, size, "box")


def box_flaw(box: Any, size: Size) -> str:
    """The flaw of an annotation's "bbox"; empty where it has none, or there is no box."""
    if box is None or box == [] or box == "":
        return ""
    try:
        check_box(box, size)
    except Unusable as error:
        return f"{error}; it is not needed, boxes come from masks"
    return ""


def check_finite(points: Float64[np.ndarray, "N 2"], what: str) -> None:
    """Raises `Unusable`, which calls the points `what`, where a coordinate is NaN or infinite."""
    if not np.isfinite(points).all():
        raise Unusable(f"its {what} holds NaN or infinity")


def check_points(points: Float64[np.ndarray, "N 2"], size: Size, what: str) -> None:
    """Checks (x, y), which messages call `what`. Raises `Unusable` if they are not finite or out of range."""
    check_finite(points, what)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    _check_extent(left, top, right, bottom, size, what)


def _check_extent(left: float, top: float, right: float, bottom: float, size: Size, what: str) -> None:
    height, width = size
    x, y = SLACK * width, SLACK * height
    if left < -x or top < -y or right > width + x or bottom > height + y:
        raise Unusable(
            f"its {what} reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), "
            f"out of the photo of {width} x {height} pixels",
            Reason.OUTSIDE,
        )


def mask_flaws(rles: Sequence[RLE], size: Size) -> list[Unusable | None]:
    """The flaw of each compressed encoding, None if it is a mask of this size with foreground.

    pycocotools reads beyond the end of texts that break off, so they are checked first.
    """
    flaws = [None if rle["counts"] else Unusable("its mask has no runs") for rle in rles]
    texts = [rle["counts"] for rle in rles if rle["counts"]]
    if not texts:
        return flaws
    lengths, first, malformed = parse_runs(texts)
    within = np.arange(len(lengths)) - np.repeat(first, np.diff(np.r_[first, len(lengths)]))
    totals, areas = np.add.reduceat(lengths, first), np.add.reduceat(lengths * (within % 2), first)
    found = iter(map(_flaw, malformed, totals, areas, [size] * len(texts)))
    return [flaw or next(found) for flaw in flaws]


def _flaw(malformed: np.bool_, total: np.int64, area: np.int64, size: Size) -> Unusable | None:
    if malformed:
        return Unusable("its counts are no run-length encoding")
    if total != size[0] * size[1]:
        return Unusable(f"its runs cover {total} pixels, the photo has {size[1]} x {size[0]}", Reason.SIZE)
    return None if area else Unusable("its mask is empty", Reason.EMPTY)
