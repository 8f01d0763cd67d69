"""Existing annotations as objects that work begins with: records of `samjax.readers.sources`."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from samjax.app.protocols import Library, Photo
from samjax.app.work import NewObject
from samjax.pictures import image_hash
from samjax.readers.record import BadRecord, NoObjects, Record
from samjax.readers.sources import open_sources

_MOST_ALIKE = 20  # records of similar names that are read to find the right one


def objects_of(record: Record) -> list[NewObject]:
    """The masks of a record, with the classes that its format names; a category without a name is its number."""
    classes = record.classes or (None,) * len(record.masks)
    categories = record.categories or (None,) * len(record.masks)
    named = [
        name or (None if category is None else str(category))
        for name, category in zip(classes, categories, strict=True)
    ]
    return [NewObject(rle, "import", class_=name) for rle, name in zip(record.masks, named, strict=True)]


class Annotations:
    """Annotated photos whose records belong to photos elsewhere, found by their names.

    Args:
        specs: FORMAT=PATH, as `samjax.readers.sources.open_sources` takes them.
        say: is told of records that are not taken.

    Raises ValueError like it, and OSError.
    """

    def __init__(self, specs: Sequence[str], say: Callable[[str], None] = warnings.warn) -> None:
        self._source, self._say = open_sources(specs), say
        self._by_name: dict[str, list[int]] = {}
        self._by_part: dict[str, list[int]] = {}
        for index in range(len(self._source)):
            name = self._source.name(index).partition("/")[2]  # without the format
            self._by_name.setdefault(name, []).append(index)
            for key in _keys(name):
                self._by_part.setdefault(key, []).append(index)

    def of(self, photo: Photo) -> list[NewObject]:
        """The objects of a photo; none if there is no record of it.

        A record is of the photo if it has its whole name and size; or its name without the ending or without the
        folders, and the same pixels. Raises ValueError if several are, if the one of its name is of another size, or
        cannot be read.
        """
        if found := self._by_name.get(photo.name):
            record = self._read(self._single(photo, found))
            if record is not None and record.rgb.shape[:2] != photo.size:
                (height, width), size = record.rgb.shape[:2], photo.size
                raise ValueError(
                    f"the annotations of {photo.name} are for {width} x {height} pixels, the photo has {size[1]} x "
                    f"{size[0]}"
                )
            return [] if record is None else objects_of(record)
        candidates = list(dict.fromkeys(index for key in _keys(photo.name) for index in self._by_part.get(key, ())))
        if len(candidates) > _MOST_ALIKE:
            self._single(photo, candidates)
        same = {}
        for index in candidates:
            record = self._read(index)
            if record is not None and image_hash(record.rgb) == photo.hash:
                same[index] = record
        if candidates and not same:
            self._say(
                f"{photo.name} begins without objects: {self._source.name(candidates[0])} has a similar name, and "
                "other pixels"
            )
        return objects_of(same[self._single(photo, list(same))]) if same else []

    def _single(self, photo: Photo, indices: Sequence[int]) -> int:
        if len(indices) > 1:
            several = ", ".join(self._source.name(index) for index in indices[:3])
            raise ValueError(
                f"the annotations of {photo.name} may be {several}: give photos different names, or name one source"
            )
        return indices[0]

    def _read(self, index: int) -> Record | None:
        try:
            return self._source[index]
        except NoObjects:
            return None
        except BadRecord as error:
            raise ValueError(f"the annotations {self._source.name(index)} cannot be used: {error}") from error


def importer(library: Library, annotations: Annotations | None = None) -> Callable[[str], list[NewObject]]:
    """What `samjax.app.work.WorkFolder` begins photos with, given their ids: the record that a photo is, or else what
    annotations there are for it."""

    def imported(photo: str) -> list[NewObject]:
        record = library.record(photo)
        if record is not None:
            return objects_of(record)
        return [] if annotations is None else annotations.of(library.facts(photo))

    return imported


def _keys(name: str) -> list[str]:
    """The whole name; the name without its ending; the last parts of both."""
    path = PurePosixPath(name)
    return list(dict.fromkeys([str(path), str(path.with_suffix("")), path.name, path.stem]))
