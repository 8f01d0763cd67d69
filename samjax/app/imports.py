"""Existing annotations as objects that work begins with: records of `samjax.readers.sources`."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from samjax.app.classes import LONGEST
from samjax.app.protocols import Library, Photo
from samjax.app.work import Imported, NewObject
from samjax.names import printable
from samjax.pictures import image_hash
from samjax.readers.record import BadRecord, NoObjects, Record
from samjax.readers.sources import open_sources

_MOST_ALIKE = 20  # records of similar names that are read to find the right one
_LISTED = 3  # annotations that are left out, of those named in a note


def objects_of(record: Record) -> list[NewObject]:
    """The masks of a record, with the classes that its format names; a category without a name is its number."""
    classes = record.classes or (None,) * len(record.masks)
    categories = record.categories or (None,) * len(record.masks)
    named = [
        _class_name(name or ("" if category is None else str(category)))
        for name, category in zip(classes, categories, strict=True)
    ]
    return [NewObject(rle, "import", class_=name) for rle, name in zip(record.masks, named, strict=True)]


def notes_of(record: Record) -> list[str]:
    """Notes on annotations of a record that no object is made of."""
    left_out = [str(problem) for problem in (*record.problems, *record.crowds)]
    if count := record.crowds_left_out:
        left_out.append(f"{count} with iscrowd 1: regions of many objects")
    notes = []
    if left_out:
        total = len(left_out) + max(record.crowds_left_out - 1, 0)
        listed = "; ".join(left_out[:_LISTED]) + (f"; and {len(left_out) - _LISTED} more" * (len(left_out) > _LISTED))
        annotations = "1 annotation" if total == 1 else f"{total} annotations"
        notes.append(f"{annotations} of this photo {'is' if total == 1 else 'are'} not imported ({listed}).")
    if record.void is not None and not record.crowds:
        notes.append("Void pixels, of which the annotations say nothing, are not imported.")
    return [printable(note) for note in notes]


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

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories that sources list, in the order of their numbers."""
        return self._source.classes

    def of(self, photo: Photo) -> Imported:
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
            return _imported(record)
        candidates = list(dict.fromkeys(index for key in _keys(photo.name) for index in self._by_part.get(key, ())))
        if len(candidates) > _MOST_ALIKE:
            self._single(photo, candidates)
        same = {}
        for index in candidates:
            record = self._read(index)
            if record is not None and image_hash(record.rgb) == photo.hash:
                same[index] = record
        if candidates and not same:
            told = (
                f"{photo.name} begins without objects: {self._source.name(candidates[0])} has a similar name, and "
                "other pixels"
            )
            self._say(told)
            return Imported(notes=(printable(f"{told}."),))
        return _imported(same[self._single(photo, list(same))] if same else None)

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


class Importer:
    """The annotations that work begins with: of a photo that is a record those of the record, or else what there are
    for it."""

    def __init__(self, library: Library, annotations: Annotations | None = None, classes: Sequence[str] = ()) -> None:
        """`classes` are those that the library's source lists."""
        self._library, self._annotations = library, annotations
        listed = [*classes, *(annotations.classes if annotations is not None else ())]
        self.classes = [name for name in map(_class_name, listed) if name is not None]

    def of(self, photo: str) -> Imported:
        """The annotations of a photo, given its id. Raises ValueError."""
        record = self._library.record(photo)
        if record is None and self._annotations is not None:
            return self._annotations.of(self._library.facts(photo))
        return _imported(record)


def _imported(record: Record | None) -> Imported:
    return Imported() if record is None else Imported(objects_of(record), notes_of(record))


def _class_name(name: str) -> str | None:
    """A category's name as classes may be called, which none of a blank can be."""
    return printable(name)[:LONGEST] if name.strip() else None


def _keys(name: str) -> list[str]:
    """The whole name; the name without its ending; the last parts of both."""
    path = PurePosixPath(name)
    return list(dict.fromkeys([str(path), str(path.with_suffix("")), path.name, path.stem]))
