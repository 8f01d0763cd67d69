"""Sources of photos and masks by the names that a recipe gives them: FORMAT=PATH."""

import bisect
import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samjax.readers import files
from samjax.readers.coco import Coco
from samjax.readers.indexed import IndexedSource
from samjax.readers.labelmap import LabelMaps
from samjax.readers.labelme import Labelme
from samjax.readers.left_out import Problem, Tally
from samjax.readers.pairs import Pairs
from samjax.readers.record import BadRecord, Record
from samjax.readers.sa1b import Sa1b
from samjax.readers.work import WorkFiles

# By format: what opens it, and the paths it takes; those in brackets may be left out.
Formats = Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]]
FORMATS: dict[str, tuple[Callable[..., IndexedSource], tuple[str, ...]]] = {
    "sa1b": (Sa1b, ("FOLDER_OR_TAR",)),
    "coco": (Coco, ("IMAGES", "ANNOTATIONS.json")),
    "labelmap": (LabelMaps, ("IMAGES", "MAPS")),
    "classmap": (functools.partial(LabelMaps, each="region"), ("IMAGES", "MAPS")),
    "labelme": (Labelme, ("FOLDER",)),
    "pairs": (Pairs, ("IMAGES", "[MASKS]")),
    "work": (WorkFiles, ("FOLDER",)),
}
OF_CLICKS = ("work",)  # formats whose records may have recorded clicks
OF_CHANNELS = ("labelmap", "classmap", "pairs")  # formats whose photos may have more than three


def open_sources(specs: Sequence[str], *, channels: int = 3) -> "Joined":
    """All records of sources written FORMAT=PATH or FORMAT=PATH,PATH, behind one index, in the order given.

    Names begin with the format, and with a number where that comes several times: sa1b/sa_1, coco-2/000000000009.jpg.
    Paths are local, gs://, s3:// or https://. Commas separate them; one that is part of a path is written twice:
    coco=a,,b/img,ann.json is the folder "a,b/img" and the file ann.json.

    With more than three `channels` photos are TIFF files of as many bands; the formats of `OF_CHANNELS` have them.

    Raises ValueError for unknown formats, missing paths, sources without records, and OSError where the network fails.
    """
    if isinstance(specs, str):
        specs = (specs,)
    if not specs:
        raise ValueError("no data was given: name at least one source as FORMAT=PATH, " + describe_formats(FORMATS))
    parts = [parse_spec(spec, FORMATS) for spec in specs]
    more: dict[str, Any] = {} if channels == 3 else {"channels": channels}
    for spec, (form, _) in zip(specs, parts, strict=True):
        if more and form not in OF_CHANNELS:
            raise ValueError(
                f"{spec}: {form} is read in red, green and blue, and the model takes {channels} channels; "
                f"{', '.join(OF_CHANNELS)} may have TIFF files of {channels} bands"
            )
    times, numbers = Counter(form for form, _ in parts), Counter()
    sources = []
    for spec, (form, paths) in zip(specs, parts, strict=True):
        numbers[form] += 1
        prefix = f"{form}-{numbers[form]}" if times[form] > 1 else form
        try:
            sources.append((prefix, FORMATS[form][0](*paths, **more)))
        except ValueError as error:
            raise ValueError(f"{spec}: {error}") from error
    return Joined(sources)


class Joined:
    """Several sources as one; names get a prefix each."""

    def __init__(self, sources: Sequence[tuple[str, IndexedSource]]) -> None:
        self._sources = tuple(sources)
        self._ends = list(itertools.accumulate(len(source) for _, source in self._sources))

    @property
    def flawed(self) -> list[Problem]:
        """Records that proved unusable when the sources were opened."""
        return [
            dataclasses.replace(flaw, what=f"{prefix}/{flaw.what}")
            for prefix, source in self._sources
            for flaw in source.flawed
        ]

    @property
    def left_out(self) -> Tally:
        """Numbers of what was known to be left out when the sources were opened."""
        total = Tally()
        for _, source in self._sources:
            total.add(source.left_out)
        return total

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories that sources list, in their orders."""
        return tuple(dict.fromkeys(name for _, source in self._sources for name in source.classes))

    def has_clicks(self) -> bool:
        """Whether an object has recorded clicks that begin on it. Sources of formats that have none are not read, the
        others up to the first such object."""
        return any(_has_clicks(source) for prefix, source in self._sources if prefix.partition("-")[0] in OF_CLICKS)

    def __len__(self) -> int:
        return self._ends[-1]

    def name(self, index: int) -> str:
        prefix, source, inner = self._locate(index)
        return f"{prefix}/{source.name(inner)}"

    def __getitem__(self, index: int) -> Record:
        prefix, source, inner = self._locate(index)
        record = source[inner]
        return dataclasses.replace(record, name=f"{prefix}/{record.name}")

    def _locate(self, index: int) -> tuple[str, IndexedSource, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        return *self._sources[number], index - (self._ends[number - 1] if number else 0)


class Spread:
    """Records of a source at even distances, so that each of several joined sources has its share.

    Args:
        source: where they are from.
        count: how many; no more than there are.
    """

    def __init__(self, source: Joined, count: int) -> None:
        self._source, self._count = source, min(count, len(source))

    @property
    def flawed(self) -> list[Problem]:
        """As the source's."""
        return self._source.flawed

    @property
    def left_out(self) -> Tally:
        """As the source's."""
        return self._source.left_out

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return self._source.name(self._place(index))

    def __getitem__(self, index: int) -> Record:
        return self._source[self._place(index)]

    def _place(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"record {index} of {self._count}")
        return index * len(self._source) // self._count


def _has_clicks(source: IndexedSource) -> bool:
    for index in range(len(source)):
        with contextlib.suppress(BadRecord):
            if any(clicks and clicks[0].label == 1 for clicks in source[index].clicks):
                return True
    return False


def parse_spec(spec: str, formats: Formats) -> tuple[str, list[str]]:
    """The format and the paths of FORMAT=PATH,PATH. Raises ValueError that names all `formats`."""
    form, equals, rest = spec.partition("=")
    if not equals or form not in formats:
        raise ValueError(f"{spec!r} names no source: write FORMAT=PATH, {describe_formats(formats)}")
    wanted = formats[form][1]
    paths = [path.replace("\0", ",").strip() for path in rest.replace(",,", "\0").split(",")]
    least = sum(not name.startswith("[") for name in wanted)
    if not all(paths) or not least <= len(paths) <= len(wanted):
        raise ValueError(
            f"{spec!r} has {len(paths)} paths where {_form(form, formats)} is wanted; commas separate paths, and one "
            f"that is part of a path is written twice: {form}=a,,b for {form}=a,b"
        )
    return form, [path if files.is_remote(path) else str(Path(path).expanduser()) for path in map(_plain, paths)]


def _plain(path: str) -> str:
    return path.removeprefix("file://").rstrip("/") or "/"


def _form(form: str, formats: Formats) -> str:
    return f"{form}={','.join(formats[form][1]).replace(',[', '[,')}"


def describe_formats(formats: Formats) -> str:
    """The forms that a source may be written in, for a message."""
    return "one of " + ", ".join(_form(form, formats) for form in formats)
