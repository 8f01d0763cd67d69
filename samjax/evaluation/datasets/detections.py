"""COCO's and LVIS's annotations and a detector's results as files, checked so that pycocotools can judge them."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from samjax.readers import files
from samjax.readers.masks import box_flaw, is_crowd, mask_flaws, rle_from_coco
from samjax.readers.numbers import identity, whole
from samjax.readers.numbers import number as number_of
from samjax.transforms import Size

_log = logging.getLogger(__name__)


def read_annotations(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A COCO or LVIS annotation file, with its segmentations as RLE; where an annotation has no "area" or "bbox", they
    are its mask's. Raises ValueError, saying where, for what is missing or cannot be used."""
    content = _read(path, "annotations")
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise ValueError(f"{path} is no COCO annotation file: a JSON object with a list of {part!r} was expected")
    for kind, part, needed in (("image", "images", ("id", "height", "width")), ("category", "categories", ("id",))):
        for number, entry in enumerate(content[part]):
            if missing := [name for name in needed if not isinstance(entry, dict) or name not in entry]:
                raise ValueError(f"{path}: {kind} number {number} (from 0) has no {', '.join(missing)}")
            for name in needed:
                given, is_id = entry[name], name == "id"
                if not isinstance(given, int | float | str) if is_id else whole(given) is None:
                    expected = "a number or text" if is_id else "a whole number"
                    raise ValueError(
                        f"{path}: {kind} number {number} (from 0) has the {name} {given!r}; {expected} was expected"
                    )
    images = [
        {**image, "id": identity(image["id"]), "height": whole(image["height"]), "width": whole(image["width"])}
        for image in content["images"]
    ]
    named = [{**category, "id": identity(category["id"])} for category in content["categories"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    categories = {category["id"] for category in named}
    annotations: list[dict[str, Any]] = []
    encoded: dict[Size, list[int]] = {}  # those that came as text, by the photo's size: checked together, for speed
    for number, entry in enumerate(content["annotations"]):
        try:
            annotations.append(_checked(entry, sizes, categories))
        except ValueError as error:
            raise ValueError(f"{path}: annotation number {number} (from 0) {error}") from error
        if isinstance(entry["segmentation"], dict):
            encoded.setdefault(sizes[annotations[-1]["image_id"]], []).append(number)
    for size, numbers in encoded.items():
        flaws = mask_flaws([annotations[number]["segmentation"] for number in numbers], size)
        for number, flaw in zip(numbers, flaws, strict=True):
            if flaw:
                raise ValueError(f"{path}: annotation number {number} (from 0) cannot be used: {flaw}")
    boxless = [
        number
        for number, (entry, checked) in enumerate(zip(content["annotations"], annotations, strict=True))
        if entry.get("bbox") and not checked["bbox"]
    ]
    if boxless:
        first = content["annotations"][boxless[0]]["bbox"]
        _log.warning(
            "%s: the bbox of %d annotation(s) cannot be right, that of number %d (from 0) is %r; the boxes of their "
            "masks are used",
            *(path, len(boxless), boxless[0], first),
        )
    completed = [_completed(annotation) for annotation in annotations]
    return {**content, "images": images, "categories": named, "annotations": completed}


def read_detections(path: str | os.PathLike[str], annotations: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A COCO results file with boxes; keeps "image_id", "category_id", "bbox" and "score". Raises ValueError, saying
    where, for what is missing or does not fit the annotations."""
    content = _read(path, "detections")
    if not isinstance(content, list):
        given = isinstance(content, dict) and "annotations" in content
        hint = "; annotations were given, but what a detector found is needed" if given else ""
        raise ValueError(f"{path} is no COCO results file: a JSON list of detections was expected{hint}")
    images = {image["id"] for image in annotations["images"]}
    categories = {category["id"] for category in annotations["categories"]}
    found = []
    for number, entry in enumerate(content):
        problem = _problem(entry, images, categories)
        if problem:
            raise ValueError(f"{path}: detection number {number} (from 0) {problem}")
        found.append(
            {
                "image_id": identity(entry["image_id"]),
                "category_id": identity(entry["category_id"]),
                "bbox": [number_of(side) for side in entry["bbox"]],
                "score": number_of(entry["score"]),
            }
        )
    return found


def _problem(entry: Any, images: set[Any], categories: set[Any]) -> str | None:
    """The flaw of a detection, None if there is none."""
    if not isinstance(entry, dict):
        return f"is {entry!r}; an object with image_id, category_id, bbox and score was expected"
    missing = [name for name in ("image_id", "category_id", "bbox", "score") if name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    if identity(entry["image_id"]) not in images:
        return f"is about image {entry['image_id']!r}, which the annotations do not have; are both of the same split?"
    if identity(entry["category_id"]) not in categories:
        return (
            f"is of category {entry['category_id']!r}, which the annotations do not have; "
            "a detector's own class numbers must be mapped to the annotations' category ids"
        )
    box, score = entry["bbox"], entry["score"]
    sides = [number_of(side) for side in box] if isinstance(box, list) else []
    if len(sides) != 4 or None in sides or min(side or 0 for side in sides[2:]) <= 0:
        return f"has the bbox {box!r}; [x, y, width, height] in pixels with a positive width and height was expected"
    return None if number_of(score) is not None else f"has the score {score!r}; a number was expected"


def _checked(entry: Any, sizes: Mapping[Any, Size], categories: set[Any]) -> dict[str, Any]:
    """An annotation with its segmentation as RLE, whose text is not checked. Raises ValueError with what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {entry!r}; an object with image_id, category_id and segmentation was expected")
    if missing := [name for name in ("image_id", "category_id", "segmentation") if name not in entry]:
        raise ValueError(f"has no {', '.join(missing)}")
    ids = {"image_id": identity(entry["image_id"]), "category_id": identity(entry["category_id"])}
    for name, known in (("image_id", sizes.keys()), ("category_id", categories)):
        if ids[name] not in known:
            raise ValueError(f"has the {name} {entry[name]!r}, which the file does not have")
    size, area = sizes[ids["image_id"]], entry.get("area")
    if isinstance(area, float) and math.isnan(area):  # pandas' way to say that there is none
        area = None
    if area is not None and ((area := number_of(area)) is None or area < 0):
        raise ValueError(f"has the area {entry['area']!r}; a number of pixels was expected, or none for the mask's own")
    try:
        rle = rle_from_coco(entry["segmentation"], size)
        crowd = is_crowd(entry)
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from error
    box = None if box_flaw(entry.get("bbox"), size) else entry.get("bbox")
    return {**entry, **ids, "area": area, "bbox": box, "iscrowd": int(crowd), "segmentation": rle}


def _completed(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """A checked one as pycocotools can use it."""
    from pycocotools import mask as coco_mask

    rle, area = annotation["segmentation"], annotation.get("area")
    return {
        **annotation,
        "bbox": [float(side) for side in annotation.get("bbox") or coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle) if area is None else area),
    }


def _read(path: str | os.PathLike[str], what: str) -> Any:
    try:
        return json.loads(files.read(os.fspath(path)))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path} of {what}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def ids_by_name(truth: Mapping[str, Any]) -> tuple[dict[str, int | str], dict[str, list[str]]]:
    """Image ids by what samples may be called; and by names that several photos have, these photos.

    LVIS has a `coco_url` for a name. The names come in the order of photos: a run that resumes has a checksum of them.
    """
    photos = [
        (image["id"], image.get("file_name") or image.get("coco_url") or str(image["id"])) for image in truth["images"]
    ]
    ids: dict[str, int | str] = {}
    for own, name in photos:
        ids.setdefault(name, own)
    exact, several = frozenset(ids), set()
    for own, name in photos:
        several.update(
            spelling for spelling in spellings(name) if ids.setdefault(spelling, own) != own and spelling not in exact
        )
    rivals: dict[str, list[str]] = {spelling: [] for spelling in several}
    known: dict[str, Any] = {}
    for own, name in photos:
        for spelling in (*spellings(name), str(own)):
            if spelling not in several:
                known.setdefault(spelling, ids.get(spelling, own))
            elif name not in rivals[spelling]:
                rivals[spelling].append(name)
    return known, rivals


def spellings(name: str) -> Iterator[str]:
    """The spellings of a name, the strictest first: "val2017/0001.jpg", "0001.jpg", "0001"."""
    yield name
    yield name.rpartition("/")[2]
    yield Path(name).stem
