"""The work on a photo as a file: its objects, the steps by which they were segmented, their masks.

NAME.samjax.json is a snapshot, NAME.samjax.jsonl a journal of what has changed since: one line of JSON per change, in
the order of their revisions, each with a checksum of itself. A journal's last line that has no end, or another
checksum, was being written when the program or the machine stopped; it was never acknowledged, and is not read.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from samjax.names import printable
from samjax.ops.rle import RLE, parse_runs

FORMAT = 1  # of the file; programs refuse newer ones
SNAPSHOT, JOURNAL = ".samjax.json", ".samjax.jsonl"
SOURCES = ("prompts", "everything", "import")
_LINE = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)


class BadWorkFile(ValueError):
    """A work file that cannot be used; the message names it and says what to do. It is left as it is."""


@dataclasses.dataclass(frozen=True)
class WorkPhoto:
    """The photo of a work file."""

    name: str  # within the folder that was opened
    sha256: str  # of its size and pixels (`samjax.embeddings.image_hash`)
    height: int
    width: int
    path: str | None  # of its file, relative to the work file's folder; None: it is in an archive


@dataclasses.dataclass(frozen=True)
class WorkObject:
    """An object of a photo.

    Args:
        id: unique in the file.
        name: given by a person, or empty.
        class_: a class's name.
        colour: "#rrggbb", or None for its class's.
        hidden: not shown.
        deleted: kept, so that deleting can be undone.
        source: how its mask was made, one of `SOURCES`.
        steps: of `samjax.app.steps`, as JSON; empty for imported objects and those of everything-mode.
        everything: {"config", "index"}: settings of the search for everything, and the number among its masks.
        rle: the mask, of the photo's size.
        score: the predicted IoU, if there is one.
        model: the checksum of the model that made the mask.
    """

    id: str
    rle: RLE
    source: str
    name: str = ""
    class_: str | None = None
    colour: str | None = None
    hidden: bool = False
    deleted: bool = False
    steps: tuple[Mapping[str, Any], ...] = ()
    everything: Mapping[str, Any] | None = None
    score: float | None = None
    model: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The object as JSON, whose names are those of the fields but for "class"."""
        return {"class" if name == "class_" else name: value for name, value in vars(self).items()}


@dataclasses.dataclass(frozen=True)
class WorkState:
    """The work on a photo after `revision` changes."""

    photo: WorkPhoto
    models: tuple[Mapping[str, Any], ...] = ()  # {"name", "checksum", "dtype", "image_size"} of those used
    revision: int = 0
    done: bool = False  # a person has said that nothing is missing
    objects: tuple[WorkObject, ...] = ()

    def with_change(self, change: Mapping[str, Any]) -> "WorkState":
        """The state after a line of the journal: objects to "add", fields of objects to "set", "done", a "model" that
        is new."""
        objects = {kept.id: kept for kept in self.objects}
        for given in change.get("set", ()):
            objects[given["id"]] = object_from_json({**objects[given["id"]].to_json(), **given})
        for given in change.get("add", ()):
            if given["id"] in objects:
                raise ValueError(f"object {given['id']} is added twice")
            objects[given["id"]] = object_from_json(given)
        models = (*self.models, *_models_from_json([change["model"]])) if "model" in change else self.models
        done = change.get("done", self.done)
        return WorkState(self.photo, models, int(change["revision"]), bool(done), tuple(objects.values()))

    def find(self, id: str) -> WorkObject | None:
        """The object with an id, deleted ones too."""
        return next((kept for kept in self.objects if kept.id == id), None)

    def text(self) -> str:
        """The snapshot, with a line for each object."""
        head = {"samjax_work": FORMAT, "photo": vars(self.photo), "models": self.models}
        head |= {"revision": self.revision, "done": self.done}
        lines = ",\n".join(json.dumps(kept.to_json()) for kept in self.objects)
        return json.dumps(head).removesuffix("}") + f', "objects": [\n{lines}\n]}}\n'


class ReadWork(NamedTuple):
    """A work file as it was found."""

    state: WorkState
    length: int  # bytes of the journal that were read; 0 if there is none
    torn: bool  # there is more of it, a line that was not written whole


def object_from_json(given: Mapping[str, Any]) -> WorkObject:
    """An object from its JSON. Raises ValueError, TypeError and KeyError for anything else."""
    fields = {"class_" if name == "class" else name: value for name, value in given.items()}
    made = WorkObject(**{**fields, "steps": tuple(fields.get("steps", ()))})
    if not isinstance(made.id, str) or made.source not in SOURCES:
        raise ValueError("an object has no id or source that is known")
    texts = (made.name, *(text for text in (made.class_, made.colour, made.model) if text is not None))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"a name, class, colour or model of object {made.id} is no text")
    if not isinstance(made.hidden, bool) or not isinstance(made.deleted, bool):
        raise ValueError(f"hidden and deleted of object {made.id} are not true or false")
    if not isinstance(made.rle, dict) or not isinstance(made.rle["counts"], str) or not _is_size(made.rle["size"]):
        raise ValueError(f"the mask of object {made.id} is no run lengths")
    if made.score is not None and not _is_number(made.score):
        raise ValueError(f"the score of object {made.id} is no number")
    if not all(map(_is_step, made.steps)):
        raise ValueError(f"a step of object {made.id} is none")
    if made.everything is not None and not (
        isinstance(made.everything["config"], dict) and isinstance(made.everything["index"], int)
    ):
        raise ValueError(f"object {made.id} does not say what was searched for")
    try:
        json.dumps(made.to_json(), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(f"object {made.id} has what is no text or number ({error})") from error
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value)


def _is_step(step: Any) -> bool:
    """Whether what other programs ask of a step is there; `samjax.app.steps` checks the rest when it is replayed."""
    points = step.get("points", []) if isinstance(step, dict) else None
    return isinstance(points, list | tuple) and all(
        isinstance(point, list | tuple) and len(point) == 3 and all(map(_is_number, point)) for point in points
    )


def _photo_from_json(given: Mapping[str, Any]) -> WorkPhoto:
    photo = WorkPhoto(**given)
    if not _is_size([photo.height, photo.width]) or min(photo.height, photo.width) < 1:
        raise ValueError("the photo has no height and width")
    if not all(isinstance(text, str) for text in (photo.name, photo.sha256, photo.path or "")):
        raise ValueError("the photo's name, sha256 or path is no text")
    return photo


def _models_from_json(given: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    if not all(isinstance(model, dict) and isinstance(model["checksum"], str) for model in given):
        raise ValueError("a model has no checksum")
    return tuple(given)


def read_work(path: Path | str, read: Callable[[str], bytes] | None = None) -> ReadWork:
    """Reads a work file, given by its snapshot, which a program may be writing; `read` reads a file, by default a local
    one. Raises BadWorkFile, and OSError, of which FileNotFoundError means that there is none."""
    read = read or _read_local
    name, journal_name = str(path), _journal_name(str(path))
    # The journal first: a snapshot that is made meanwhile has its lines, which are skipped then.
    try:
        journal = read(journal_name)
    except FileNotFoundError:
        journal = None
    try:
        snapshot = read(name)
    except FileNotFoundError:
        if journal is not None:
            raise BadWorkFile(
                f"{printable(journal_name)} is the journal of a work file whose snapshot {printable(name)} is missing: "
                "bring that back, or move the journal away"
            ) from None
        raise
    return parse_work(name, snapshot, journal or b"")


def _read_local(path: str) -> bytes:
    return Path(path).read_bytes()


def parse_work(name: str, snapshot: bytes, journal: bytes = b"") -> ReadWork:
    """The work of the contents of a snapshot, which messages call `name`, and its journal. Raises BadWorkFile."""
    state = _parsed_snapshot(name, snapshot)
    length = 0
    *lines, _ = journal.split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            change = _parsed_line(line)
            if change is None and number == len(lines):
                break
            if change is None:
                raise ValueError("its checksum does not fit")
            length += len(line) + 1
            if change["revision"] <= state.revision:
                continue  # it is in the snapshot, after which the program was stopped
            if change["revision"] != state.revision + 1:
                raise ValueError(f"revision {change['revision']} follows {state.revision}")
            state = state.with_change(change)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _damaged(_journal_name(name), f"line {number}: {_reason(error)}") from error
    _check_masks(name, state)
    return ReadWork(state, length, length < len(journal))


def _parsed_line(line: bytes) -> dict[str, Any] | None:
    """A change; None where the line is not as it was written."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[2], 16) != zlib.crc32(found[1]):
        return None
    return json.loads(found[1] + b"}")


def journal_line(change: Mapping[str, Any]) -> bytes:
    """A line of a journal. "crc32", which comes last, is that of the bytes before it and its comma."""
    text = json.dumps(change).encode().removesuffix(b"}")
    return text + f', "crc32": "{zlib.crc32(text):08x}"}}\n'.encode()


def journal_of(path: Path) -> Path:
    """The journal beside a snapshot."""
    return path.with_name(_journal_name(path.name))


def _journal_name(snapshot: str) -> str:
    return snapshot.removesuffix(SNAPSHOT) + JOURNAL


def find_work(folder: Path) -> list[Path]:
    """The snapshots in a folder and its sub-folders, sorted; none in hidden folders."""
    found = (path.relative_to(folder) for path in folder.rglob(f"*{SNAPSHOT}"))
    return [folder / path for path in sorted(found) if not any(part.startswith(".") for part in path.parts[:-1])]


def _parsed_snapshot(path: str, content: bytes) -> WorkState:
    try:
        given = json.loads(content)
        version = given["samjax_work"]
        if isinstance(version, int) and version > FORMAT:
            raise BadWorkFile(
                f"{printable(path)} is of format {version}, written by a newer samjax; this one reads up to {FORMAT}: "
                "pip install --upgrade samjax, or choose another folder"
            )
        photo = _photo_from_json(given["photo"])
        if not isinstance(given["objects"], list):
            raise ValueError("the objects are no list")
        objects = tuple(map(object_from_json, given["objects"]))
        if len({kept.id for kept in objects}) != len(objects):
            raise ValueError("two objects have the same id")
        models = _models_from_json(given["models"])
        return WorkState(photo, models, int(given["revision"]), bool(given["done"]), objects)
    except BadWorkFile:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, _reason(error)) from error


def _check_masks(path: str, state: WorkState) -> None:
    size = [state.photo.height, state.photo.width]
    for kept, whole in zip(state.objects, are_whole([kept.rle for kept in state.objects], size), strict=True):
        if not whole:
            raise _damaged(path, f"the mask of object {kept.id} is no encoding of {size[0]} x {size[1]} pixels")


def are_whole(rles: Sequence[RLE], size: Sequence[int]) -> list[bool]:
    """Checks of each encoding that it is sound, and of a frame of `size` (height, width)."""
    texts = [str(rle["counts"]) or "~" for rle in rles]
    if not texts:
        return []
    lengths, first, malformed = parse_runs(texts)
    ends = [*first[1:].tolist(), len(lengths)]
    return [
        list(rle["size"]) == list(size) and not bad and int(lengths[start:end].sum()) == size[0] * size[1]
        for rle, bad, start, end in zip(rles, malformed, first.tolist(), ends, strict=True)
    ]


def _damaged(path: str, why: str) -> BadWorkFile:
    return BadWorkFile(
        f"{printable(path)} is damaged ({why}): bring it back from a copy, or move it away to begin this photo anew"
    )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
