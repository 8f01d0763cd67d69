"""COCO's instance annotations, and LVIS's: one JSON file for a folder of photos."""

import contextlib
import json
import urllib.parse
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from samjax.data import files
from samjax.data.indexed import IndexedSource
from samjax.data.masks import Findings
from samjax.data.pictures import read_photo
from samjax.data.record import BadRecord, Record

T = TypeVar("T")

_SAMPLE = 20  # photos that are looked for when the source is opened


class Coco(IndexedSource):
    """Every object of every photo that has any; crowds are no objects.

    Records are named by `file_name`, or for LVIS by the end of `coco_url`. Photos that the file has no objects for are
    not records: COCO has a thousand. Ids may have gaps. An annotation whose id comes twice
    within a photo, whose box or polygon is out of range, or whose mask has another size than the photo is left out.

    The annotations of a photo are kept as compressed JSON, a third of the file's size altogether.
    """

    def __init__(self, images: str, annotations: str, *, whole: bool = False) -> None:
        """With `whole`, for evaluation, photos without objects are records too, and crowds are void.

        Raises ValueError where the file is none of COCO's or none of its photos is in `images`, and OSError.
        """
        content = _load(annotations)
        by_image: dict[Any, list[dict]] = defaultdict(list)
        for annotation in content["annotations"]:
            if isinstance(annotation, dict) and (whole or not annotation.get("iscrowd")):
                by_image[_key(annotation.get("image_id"))].append(annotation)
        names, sizes, packed, flawed = [], [], [], []
        known, ids = set(), set()
        for number, image in enumerate(content["images"]):
            name = _name_of(image)
            if name is None:
                flawed.append((f"image number {number}", "it has neither file_name nor coco_url"))
                continue
            identity = _key(image.get("id"))
            if identity in ids or name in known:
                twice = f"its id {identity!r}" if identity in ids else "its file name"
                flawed.append((f"{name} (number {number})", f"{twice} comes twice among the images"))
                continue
            ids.add(identity)
            known.add(name)
            if identity in by_image or whole:
                names.append(name)
                sizes.append([_side(image.get("height")), _side(image.get("width"))])
                packed.append(zlib.compress(json.dumps(by_image.get(identity, []), separators=(",", ":")).encode(), 1))
        lost = Counter({identity: len(found) for identity, found in by_image.items() if identity not in ids})
        flawed += [(f"image {id!r}", f"{count} annotations name it, and there is none") for id, count in lost.items()]
        self._images, self._whole = images, whole
        self._names = np.array([name.encode("utf-8", "surrogateescape") for name in names], "S")
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)
        self._ends = np.cumsum([0, *map(len, packed)])
        self._packed = b"".join(packed)
        super().__init__(f"{annotations}, no image" + " with annotations" * (not whole), len(names), flawed)
        self._check_images(annotations)

    def _check_images(self, annotations: str) -> None:
        """A wrong folder should not look like a thousand bad records."""
        for index in range(min(_SAMPLE, self._count)):
            try:
                self._at_photo(self._name(index), files.state)
            except FileNotFoundError:
                continue
            return
        raise ValueError(
            f"none of the first photos of {annotations} is in {self._images}: there is no "
            f"{files.join(self._images, self._name(0))}"
        )

    def _at_photo(self, name: str, action: Callable[[str], T]) -> T:
        """Of the photo in its sub-folder or, where that is not there, right in the folder of photos."""
        try:
            return action(files.join(self._images, name))
        except FileNotFoundError:
            if "/" not in name and "%" not in name:
                raise
        # Right in the folder, or with bytes that are no UTF-8 (`samjax.names.portable`).
        for other in (name.rpartition("/")[2], urllib.parse.unquote(name, errors="surrogateescape")):
            with contextlib.suppress(FileNotFoundError):
                return action(files.join(self._images, other))
        raise FileNotFoundError(f"there is no {files.join(self._images, name)}")

    def _name(self, index: int) -> str:
        return self._names[index].decode("utf-8", "surrogateescape")

    def _read(self, index: int) -> Record:
        name = self._name(index)
        found = Findings(name, self._at_photo(name, read_photo))
        height, width = self._sizes[index].tolist()
        if 0 not in (height, width) and (height, width) != found.size:
            raise BadRecord(
                f"the annotations are for {width} x {height} pixels, the photo has {found.size[1]} x {found.size[0]} "
                "(turned upright by its EXIF orientation)"
            )
        packed = self._packed[self._ends[index] : self._ends[index + 1]]
        found.add_annotations(json.loads(zlib.decompress(packed)))
        return found.record(empty=self._whole)


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


def _name_of(image: Any) -> str | None:
    """With sub-folders and slashes, relative to the folder of photos."""
    if not isinstance(image, dict):
        return None
    if isinstance(name := image.get("file_name"), str) and name:
        return name.replace("\\", "/").removeprefix("./").lstrip("/")
    if isinstance(url := image.get("coco_url"), str) and url:  # LVIS: …/train2017/000000000009.jpg
        return "/".join(url.split("/")[-2:])
    return None


def _key(identity: Any) -> Any:
    return identity if isinstance(identity, int | str) else repr(identity)


def _side(value: Any) -> int:
    """Pixels, or 0 where the file does not say."""
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0
