"""labelme: a JSON file for each photo, with shapes that were drawn by hand."""

import base64
import binascii
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from samjax.ops.rle import encode_rle
from samjax.readers import files, numbers
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Reason, Unusable
from samjax.readers.masks import Findings, check_finite, check_points
from samjax.readers.pictures import mask_from_bytes, photo_from_bytes, read_photo
from samjax.readers.record import BadRecord, Record
from samjax.transforms import Size

# In pixels; Pillow takes half a minute for an ellipse that is larger than this by far.
_LARGEST_RADIUS = 1e5
_WITHOUT_AREA = ("line", "linestrip", "point", "points")
# Names of labelme, of its AI tools and of X-AnyLabeling, which has rectangles of four corners too.
_POLYGONS = ("polygon", "rectangle", "oriented_rectangle", "rotation", "quadrilateral", "ai_polygon")
_MASKS = ("mask", "ai_mask")
_KNOWN = (*_POLYGONS, "circle", *_MASKS, *_WITHOUT_AREA)


class Labelme(IndexedSource):
    """All .json files of a folder and its sub-folders, as labelme and X-AnyLabeling write them.

    Polygons, rectangles, circles and masks are drawn as labelme's own export draws them, with their outlines. A circle
    may reach out of the photo as far as it likes, and its part outside is cut off; others may by a tenth of the side.
    Shapes with the same label and group_id are parts of one object. Points and lines have no area and are left out,
    with a note. A file without shapes is a photo without objects.

    The photo is `imageData` where the file holds it, else the file `imagePath` names, turned upright by its EXIF
    orientation as labelme shows it; the photo in `imageData` was turned when labelme wrote it.
    """

    def __init__(self, folder: str) -> None:
        """Raises ValueError if there is no .json file."""
        self._folder = folder
        self._names = tuple(files.names_in(folder, {".json"}))
        self._photos_of: dict[str, dict[str, set[str]]] = {}
        super().__init__(f"{folder}, no .json file", len(self._names))

    def _name(self, index: int) -> str:
        return self._names[index].removesuffix(".json")

    def _read(self, index: int) -> Record:
        name = self._names[index]
        try:
            content = json.loads(files.read(files.join(self._folder, name)))
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"its JSON cannot be read ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise BadRecord("it is no file of labelme's: it has no list of shapes")
        rgb, path = self._photo(content, name)
        found = Findings(self._name(index), rgb)
        found.photo = path
        height, width = (numbers.whole(content.get(name)) for name in ("imageHeight", "imageWidth"))
        stated = height or found.size[0], width or found.size[1]
        if stated != found.size:
            raise BadRecord(
                f"its shapes are for {stated[1]} x {stated[0]} pixels, the photo has {found.size[1]} x {found.size[0]} "
                "(turned upright by its EXIF orientation)",
                Reason.SIZE,
            )
        objects: dict[Any, tuple[int, str | None, np.ndarray]] = {}
        for number, shape in enumerate(content["shapes"]):
            try:
                mask = mask_from_shape(shape, found.size)
            except ValueError as error:
                found.leave_out(f"shape number {number}", error)
                continue
            group, label = shape.get("group_id"), shape.get("label")
            key = (number,) if group in (None, "") else (repr(label), numbers.identity(group))
            if key in objects:
                mask |= objects[key][-1]
                number = objects[key][0]
            objects[key] = number, label if isinstance(label, str) and label else None, mask
        for number, label, mask in objects.values():
            found.add(f"shape number {number}", encode_rle(mask), number, class_=label)
        return found.record()

    def _photo(self, content: dict[str, Any], name: str) -> tuple[UInt8[np.ndarray, "H W 3"], str | None]:
        """The photo and its file."""
        if content.get("imageData"):
            return photo_from_bytes(_decoded(content["imageData"]), "its imageData"), None
        path = content.get("imagePath")
        if not isinstance(path, str) or not path:
            raise BadRecord("it names no photo: neither imageData nor imagePath is there", Reason.MISSING)
        path = path.replace("\\", "/")  # files from Windows
        place = name.rpartition("/")[0]
        folder = files.join(self._folder, place)
        try:
            found = files.join(folder, path)
            return read_photo(found), found
        except FileNotFoundError:
            last = path.rpartition("/")[2]
            found = files.join(folder, last)
            rgb = read_photo(found)  # the folder was moved, and the path was absolute
        if len(namesakes := self._photos_named_in(place).get(last, ())) > 1:
            raise BadRecord(
                f"there is no {files.join(folder, path)}, and {last} beside the JSON files may be any of "
                f"{', '.join(sorted(namesakes))}, which they name: put the photos where imagePath says",
                Reason.AMBIGUOUS,
            )
        return rgb, found

    def _photos_named_in(self, place: str) -> dict[str, set[str]]:
        """The photos that the JSON files in one sub-folder name, by what their paths end with."""
        if place not in self._photos_of:
            found: dict[str, set[str]] = defaultdict(set)
            for name in self._names:
                if name.rpartition("/")[0] == place and (path := self._photo_named_in(name)):
                    found[path.rpartition("/")[2]].add(path)
            self._photos_of[place] = dict(found)
        return self._photos_of[place]

    def _photo_named_in(self, name: str) -> str:
        """A JSON file's imagePath, empty if there is none or it is not needed."""
        try:
            content = json.loads(files.read(files.join(self._folder, name)))
        except (OSError, ValueError, RecursionError):
            return ""
        path = content.get("imagePath") if isinstance(content, dict) and not content.get("imageData") else None
        return path.replace("\\", "/").removeprefix("./") if isinstance(path, str) else ""


def mask_from_shape(shape: Any, size: Size) -> Bool[np.ndarray, "H W"]:
    """The pixels of one of labelme's shapes, as its `shape_to_mask` has them, on a photo of `size`.

    Raises `Unusable`, a ValueError, if the shape has no area, is malformed, of another kind, or out of range.
    """
    if not isinstance(shape, dict):
        raise Unusable("it is no object")
    given = shape.get("shape_type") or "polygon"
    kind = given.strip().lower() if isinstance(given, str) else ""
    if kind not in _KNOWN:
        raise Unusable(f"its shape_type {given!r} is unknown; known are {', '.join(_KNOWN)}", Reason.UNKNOWN_KIND)
    if kind in _WITHOUT_AREA:
        raise Unusable(f"a {kind} has no area", Reason.NO_AREA)
    try:
        points = np.asarray(shape.get("points"), np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.shape[1:] != (2,) or not len(points):
        raise Unusable("its points are no list of [x, y]")
    if kind == "circle":
        return _circle(points, size)
    check_points(points, size, kind)
    if kind in _MASKS:
        return _placed(shape.get("mask"), points, size)
    return _rasterised(kind, points, size)


def _circle(points: np.ndarray, size: Size) -> Bool[np.ndarray, "H W"]:
    """The part within the photo of a circle, given by its centre and a point on its rim, which may lie anywhere."""
    from PIL import Image, ImageDraw

    if len(points) != 2:
        raise Unusable(f"a circle has 2 points, this one {len(points)}")
    check_finite(points, "circle")
    (cx, cy), (px, py) = points.tolist()
    radius = math.hypot(cx - px, cy - py)
    height, width = size
    if radius > _LARGEST_RADIUS:
        raise Unusable(f"its circle has a radius of {radius:g} pixels, more than {_LARGEST_RADIUS:g}", Reason.OUTSIDE)
    picture = Image.new("L", (width, height))
    if -radius - 1 <= cx <= width + radius and -radius - 1 <= cy <= height + radius:
        corners = [(cx - radius, cy - radius), (cx + radius, cy + radius)]
        ImageDraw.Draw(picture).ellipse(corners, outline=1, fill=1)
    mask = np.asarray(picture).astype(bool)
    if not mask.any():
        raise Unusable(
            f"its circle around ({cx:g}, {cy:g}) with the radius {radius:g} has no part in the photo of {width} x "
            f"{height} pixels",
            Reason.OUTSIDE,
        )
    return mask


def _rasterised(kind: str, points: np.ndarray, size: Size) -> Bool[np.ndarray, "H W"]:
    from PIL import Image, ImageDraw

    picture = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    xy: Sequence[tuple[float, float]] = [tuple(point) for point in points.tolist()]
    if kind == "rectangle" and len(xy) == 2:
        draw.rectangle([tuple(points.min(0).tolist()), tuple(points.max(0).tolist())], outline=1, fill=1)
    elif len(xy) >= 3:
        draw.polygon(xy, outline=1, fill=1)
    else:
        least = "2 points, opposite corners, or all 4" if kind == "rectangle" else "3 points or more"
        raise Unusable(f"a {kind} has {least}, this one {len(xy)}", Reason.NO_AREA)
    return np.asarray(picture).astype(bool)


def _placed(encoded: Any, points: np.ndarray, size: Size) -> Bool[np.ndarray, "H W"]:
    """A picture of a mask between two corners, both of which it includes."""
    if len(points) != 2:
        raise Unusable(f"a mask has 2 points, this one {len(points)}")
    part = mask_from_bytes(_decoded(encoded), "its mask")
    (x0, y0), (x1, y1) = points.astype(int).tolist()
    if part.shape != (y1 - y0 + 1, x1 - x0 + 1):
        raise Unusable(
            f"its mask has {part.shape[1]} x {part.shape[0]} pixels, its corners span {x1 - x0 + 1} x {y1 - y0 + 1}",
            Reason.SIZE,
        )
    whole = np.zeros(size, bool)
    top, left = max(-y0, 0), max(-x0, 0)
    window = whole[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)]
    window[:] = part[top : top + window.shape[0], left : left + window.shape[1]]
    return whole


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"a picture within the JSON is not base64 ({error})") from error
