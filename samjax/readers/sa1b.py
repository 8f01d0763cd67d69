"""SA-1B: tars or folders of sa_<id>.jpg with sa_<id>.json beside; PNG and WebP are read as well."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Problem, Reason
from samjax.readers.masks import Findings
from samjax.readers.pictures import photo_from_bytes
from samjax.readers.record import BadRecord, Record
from samjax.readers.tar_index import tar_indices

_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")  # compressed ones for a clear message
_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
_IN_FOLDER = -1  # for an offset: the file itself
_ENTRY = np.dtype(
    [("place", "i4"), ("photo", "i8"), ("photo_size", "i8"), ("json", "i8"), ("json_size", "i8"), ("ending", "u1")]
)


class Sa1b(IndexedSource):
    """All masks of all photos of a tar, a folder of tars, or a folder of photos and JSON, with sub-folders.

    Records are named by their files' stem, sa_<id>, and by their place too where two have the same. Of two with the
    same stem and as large files one is a duplicate. What is kept is 60 bytes a photo; tars are read where the wanted
    photo lies.
    """

    def __init__(self, path: str) -> None:
        """Raises ValueError if there is nothing to read, OSError where the network is down."""
        if files.ending(path) in _ARCHIVES:
            tars, loose = {path.rpartition("/")[2]: path}, []
        else:
            found = files.names_in(path, {".tar", ".json", *_PHOTOS})
            tars = {name: files.join(path, name) for name in found if files.ending(name) == ".tar"}
            loose = [name for name in found if files.ending(name) != ".tar"]
        self._places = (path, *tars.values())  # the first is the folder of files outside tars
        self._labels = ("", *tars)
        flawed: list[Problem] = []
        parts = [self._matched(0, ((name, _IN_FOLDER, 0) for name in loose), flawed)]
        for place, (label, index) in enumerate(zip(tars, tar_indices(list(tars.values())), strict=True), 1):
            if isinstance(index, Exception):
                flawed.append(Problem(label, str(index), Reason.UNREADABLE))
                continue
            flawed += [Problem(label, flaw, Reason.UNREADABLE) for flaw in index.flaws]
            parts.append(self._matched(place, index.members(), flawed))
        self._entries = np.concatenate([entries for entries, _ in parts])
        self._keys = np.concatenate([keys for _, keys in parts])
        self._has_place = self._drop_duplicates(flawed)
        super().__init__(f"{path}, neither tars nor pairs of .jpg and .json", len(self._entries), _numbered(flawed))

    def _matched(
        self, place: int, members: Iterable[tuple[str, int, int]], flawed: list[Problem]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Entries and keys of the pairs among a place's files (name, offset, size); what has no partner is flawed."""
        photos: dict[str, tuple[int, ...]] = {}
        texts: dict[str, tuple[int, ...]] = {}
        for name, offset, size in members:
            ending = files.ending(name)
            if name.rpartition("/")[2].startswith(".") or (ending != ".json" and ending not in _PHOTOS):
                continue
            key = name[: len(name) - len(ending)]
            known, kind = (texts, "JSON files") if ending == ".json" else (photos, "photos")
            if key in known:
                again = f"{self._qualified(place, key)} (again)"
                flawed.append(Problem(again, f"there are two {kind} of this name", Reason.AMBIGUOUS))
            else:
                known[key] = (offset, size) if ending == ".json" else (offset, size, _PHOTOS.index(ending))
        flawed += [
            Problem(self._qualified(place, key), "a photo without its JSON file", Reason.MISSING)
            for key in photos.keys() - texts.keys()
        ]
        flawed += [
            Problem(self._qualified(place, key), "a JSON file without its photo", Reason.NO_PHOTO, stray="files")
            for key in texts.keys() - photos.keys()
        ]
        paired = [key for key in photos if key in texts]
        entries = [(place, *photos[key][:2], *texts[key], photos[key][2]) for key in paired]
        return np.array(entries, _ENTRY), np.array([key.encode("utf-8", "surrogateescape") for key in paired], "S")

    def _drop_duplicates(self, flawed: list[Problem]) -> np.ndarray:
        """Takes duplicates from the entries to `flawed`; returns which of the rest need their place for a name."""
        stems = np.array([key.rpartition(b"/")[2] for key in self._keys.tolist()], "S")
        order = np.argsort(stems, kind="stable")
        same = stems[order[1:]] == stems[order[:-1]]
        shared = np.unique(np.r_[order[1:][same], order[:-1][same]]).tolist()
        first: dict[tuple, int] = {}
        kept = np.ones(len(stems), bool)
        for number in shared:
            earlier = first.setdefault((stems[number], *self._sizes(number)), number)
            if earlier != number:
                kept[number] = False
                flaw = f"a duplicate of {self._full_name(earlier)}"
                flawed.append(Problem(self._full_name(number), flaw, Reason.DUPLICATE))
        left = Counter(stems[number] for number in shared if kept[number])
        has_place = np.zeros(len(stems), bool)
        has_place[[number for number in shared if left[stems[number]] > 1]] = True
        self._entries, self._keys = self._entries[kept], self._keys[kept]
        return has_place[kept]

    def _sizes(self, number: int) -> tuple[int, int]:
        place, photo, photo_size, _, json_size, ending = self._entries[number].tolist()
        if photo != _IN_FOLDER:
            return photo_size, json_size
        path = files.join(self._places[place], self._key(number))
        return files.state(path + _PHOTOS[ending])[0], files.state(path + ".json")[0]

    def _key(self, number: int) -> str:
        return self._keys[number].decode("utf-8", "surrogateescape")

    def _full_name(self, number: int) -> str:
        return self._qualified(int(self._entries[number]["place"]), self._key(number))

    def _qualified(self, place: int, key: str) -> str:
        return f"{self._labels[place]}/{key}" if place else key

    def _name(self, index: int) -> str:
        return self._full_name(index) if self._has_place[index] else self._key(index).rpartition("/")[2]

    def _read(self, index: int) -> Record:
        place, photo, photo_size, annotations, json_size, ending = self._entries[index].tolist()
        path, key = self._places[place], self._key(index)
        if photo == _IN_FOLDER:
            photo_path = files.join(path, key + _PHOTOS[ending])
            text, data = files.read(files.join(path, f"{key}.json")), files.read(photo_path)
        else:
            photo_path = f"{path}/{key}{_PHOTOS[ending]}"
            text, data = files.read_range(path, annotations, json_size), files.read_range(path, photo, photo_size)
        found = Findings(self._name(index), photo_from_bytes(data, photo_path))
        found.photo = photo_path if photo == _IN_FOLDER else None
        gather(found, text)
        return found.record()


def gather(found: Findings, text: bytes) -> None:
    """Adds the annotations of one of SA-1B's JSON files. Raises `BadRecord` if it is none."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"its JSON cannot be read ({error})") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise BadRecord("its JSON has no list of annotations, which files of SA-1B have")
    found.add_annotations(annotations)
    image = content.get("image")
    origin = image.get("source") if isinstance(image, dict) else None
    found.origin = origin if isinstance(origin, str) else None


def _numbered(flawed: list[Problem]) -> list[Problem]:
    """Sorted, with names made unique: a tar may have several flaws."""
    times: Counter[str] = Counter()
    result = []
    for flaw in sorted(flawed, key=str):
        times[flaw.what] += 1
        again = f"{flaw.what} ({times[flaw.what]})"
        result.append(flaw if times[flaw.what] == 1 else dataclasses.replace(flaw, what=again))
    return result
