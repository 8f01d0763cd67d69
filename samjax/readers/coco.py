"""COCO's instance annotations, and LVIS's: one JSON file for a folder of photos."""

import contextlib
import dataclasses
import json
import urllib.parse
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import numpy as np

from samjax.readers import files, numbers
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import CROWD_ADVICE, Problem, Reason, Tally
from samjax.readers.masks import Findings, is_crowd
from samjax.readers.pictures import read_photo
from samjax.readers.record import BadRecord, Record

T = TypeVar("T")

_SAMPLE = 20  # photos that are looked for when the source is opened


class Coco(IndexedSource):
    """Every object of every photo that has any; crowds are no objects.

    Records are named by `file_name`, or for LVIS by the end of `coco_url`. Photos that the file has no objects for are
    not records: COCO has a thousand. Whole numbers may be written as 7, 7.0 or "7", flags as numbers, bools or text.
    An annotation whose polygon is out of range, or whose mask has another size than the photo, is left out, and so are
    repeats: annotations of a photo with the same id and segmentation. `bbox` is not needed.

    The annotations of a photo are kept as compressed JSON, a third of the file's size altogether.
    """

    def __init__(self, images: str, annotations: str, *, whole: bool = False) -> None:
        """If `whole`, for evaluation, photos without objects are records too, and crowds are void.

        Raises ValueError if the file is none of COCO's, has no objects, or none of its photos is in `images`, and
        OSError.
        """
        content = _load(annotations)
        by_image: dict[int | str, list[dict]] = defaultdict(list)
        left_out = Tally()
        crowds_of: Counter[int | str] = Counter()
        for annotation in content["annotations"]:
            if not isinstance(annotation, dict):
                left_out.annotations[Reason.MALFORMED] += 1
            elif not whole and _surely_crowd(annotation):
                left_out.annotations[Reason.CROWD] += 1
                crowds_of[numbers.identity(annotation.get("image_id"))] += 1
            else:
                by_image[numbers.identity(annotation.get("image_id"))].append(annotation)
        if not by_image and (crowds := left_out.annotations[Reason.CROWD]):
            raise ValueError(
                f"all {crowds} annotations of {annotations} have iscrowd 1: regions of many objects, which are left "
                f"out; {CROWD_ADVICE}"
            )
        names, sizes, packed, flawed = [], [], [], []
        left_out_of = []
        known, ids = set(), set()
        for number, image in enumerate(content["images"]):
            name = _name_of(image)
            if name is None:
                what = f"image number {number}"
                flawed.append(Problem(what, "it has neither file_name nor coco_url", Reason.MISSING))
                continue
            own = numbers.identity(image.get("id"))
            if own in ids or name in known:
                twice = f"its id {own!r}" if own in ids else "its file name"
                what = f"{name} (number {number})"
                flawed.append(Problem(what, f"{twice} comes twice among the images", Reason.AMBIGUOUS))
                continue
            ids.add(own)
            known.add(name)
            if own in by_image or whole:
                names.append(name)
                left_out_of.append(crowds_of[own])
                sizes.append([_side(image.get("height")), _side(image.get("width"))])
                packed.append(zlib.compress(json.dumps(by_image.get(own, []), separators=(",", ":")).encode(), 1))
            else:
                left_out.photos[Reason.NO_OBJECTS] += 1
        lost = Counter({own: len(found) for own, found in by_image.items() if own not in ids})
        flawed += [
            Problem(
                *(f"image {own!r}", f"{count} annotations name it, and there is none", Reason.NO_PHOTO),
                stray="annotations",
                count=count,
            )
            for own, count in lost.items()
        ]
        self._images, self._whole, self._classes = images, whole, _classes(content.get("categories"))
        self.classes = tuple(dict.fromkeys(self._classes[number] for number in sorted(self._classes)))
        self._names = np.array([name.encode("utf-8", "surrogateescape") for name in names], "S")
        self._crowds = np.array(left_out_of, np.int32)
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self._ends = np.cumsum([0, *map(len, packed)])
        self._packed = b"".join(packed)
        self._namesakes = _namesakes(known)
        where = f"{annotations}, no image" + " with annotations" * (not whole)
        super().__init__(where, len(names), flawed, left_out)
        self._check_images(annotations)

    def _check_images(self, annotations: str) -> None:
        """A wrong folder should not look like a thousand bad records."""
        missing = f"there is no {files.join(self._images, self._name(0))}"
        for index in range(min(_SAMPLE, self._count)):
            try:
                self._at_photo(self._name(index), files.state)
            except FileNotFoundError:
                continue
            except BadRecord as error:
                missing = str(error)
                continue
            return
        raise ValueError(f"none of the first photos of {annotations} is in {self._images}: {missing}")

    def _at_photo(self, name: str, action: Callable[[str], T]) -> T:
        """Applies `action` to the photo in its sub-folder or, where that is not there, right in the folder of photos.

        Raises FileNotFoundError, or `BadRecord` if a photo there may be another one of that name.
        """
        try:
            return action(files.join(self._images, name))
        except FileNotFoundError:
            if "/" not in name and "%" not in name:
                raise
        last = name.rpartition("/")[2]
        path = files.join(self._images, last)
        try:
            if last not in self._namesakes:
                return action(path)
            files.state(path)
        except FileNotFoundError:
            # With bytes that are no UTF-8, which JSON cannot hold (`samjax.names.portable`).
            with contextlib.suppress(FileNotFoundError):
                return action(files.join(self._images, urllib.parse.unquote(name, errors="surrogateescape")))
            raise FileNotFoundError(f"there is no {files.join(self._images, name)}") from None
        raise BadRecord(
            f"there is no {files.join(self._images, name)}, and {path} may belong to any of "
            f"{', '.join(self._namesakes[last])}: put each photo into its sub-folder",
            Reason.AMBIGUOUS,
        )

    def _name(self, index: int) -> str:
        return self._names[index].decode("utf-8", "surrogateescape")

    def _read(self, index: int) -> Record:
        name = self._name(index)
        rgb, path = self._at_photo(name, lambda path: (read_photo(path), path))
        found = Findings(name, rgb)
        found.photo = path
        height, width = self._sizes[index].tolist()
        if 0 not in (height, width) and (height, width) != found.size:
            raise BadRecord(
                f"the annotations are for {width} x {height} pixels, the photo has {found.size[1]} x {found.size[0]} "
                "(turned upright by its EXIF orientation)",
                Reason.SIZE,
            )
        packed = self._packed[self._ends[index] : self._ends[index + 1]]
        found.add_annotations(json.loads(zlib.decompress(packed)), self._classes)
        crowds = int(self._crowds[index])
        return dataclasses.replace(found.record(empty=self._whole), crowds_left_out=crowds)


def _load(path: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(path))
    except FileNotFoundError:
        raise ValueError(f"there is no annotation file {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(
            f"{path} is no file of COCO instances: it must hold lists of images and annotations"
            + (f", it has {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else "")
        )
    return content


def _classes(categories: Any) -> dict[int, str]:
    """The categories' names by their ids, as far as there are any."""
    named = [entry for entry in categories if isinstance(entry, dict)] if isinstance(categories, list) else []
    ids = [numbers.whole_identity(entry.get("id")) for entry in named]
    names = [entry.get("name") for entry in named]
    return {id: name for id, name in zip(ids, names, strict=True) if id is not None and isinstance(name, str) and name}


def _name_of(image: Any) -> str | None:
    """A photo's name with sub-folders and slashes, relative to the folder of photos."""
    if not isinstance(image, dict):
        return None
    if isinstance(name := image.get("file_name"), str) and name:
        return name.replace("\\", "/").removeprefix("./").lstrip("/")
    if isinstance(url := image.get("coco_url"), str) and url:  # LVIS: …/train2017/000000000009.jpg
        return "/".join(url.split("/")[-2:])
    return None


def _namesakes(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Photos whose names differ by their sub-folder alone, by what they have in common; the first few of each."""
    found: dict[str, list[str]] = defaultdict(list)
    if not any("/" in name for name in names):
        return {}
    for name in names:
        found[name.rpartition("/")[2]].append(name)
    return {last: tuple(sorted(same)[:_SAMPLE]) for last, same in found.items() if len(same) > 1}


def _surely_crowd(annotation: dict[str, Any]) -> bool:
    """False where `iscrowd` is neither 0 nor 1, which is said when the photo is read."""
    try:
        return is_crowd(annotation)
    except ValueError:
        return False


def _side(value: Any) -> int:
    """Pixels, or 0 if the file does not say."""
    side = numbers.whole(value)
    return side if side is not None and 0 < side < 1 << 31 else 0
