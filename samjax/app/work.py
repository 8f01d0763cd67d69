"""The work on photos, kept on disk: a change is there before it is acknowledged, and nothing acknowledged is lost.

`samjax.workfile` has the format. A change is a line appended to the journal; when that has grown it becomes part of the
snapshot. Where a change cannot be saved, the state stays the last one that was.
"""

import collections
import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from samjax import workfile
from samjax.app import durable
from samjax.app.classes import LONGEST, Classes, is_class_name, is_colour
from samjax.app.steps import BadRequest
from samjax.everything.journal import sweep
from samjax.names import portable, printable
from samjax.ops.rle import RLE
from samjax.transforms import Size
from samjax.workfile import BadWorkFile, WorkObject, WorkPhoto, WorkState, read_work

COMPACTED = 1 << 18  # bytes of a journal from which on it becomes part of the snapshot, if that is not larger
_TORN = (
    "ends in a line that was not written whole, of a change that was not finished when the program or the machine "
    "stopped: it is left out"
)
EDITED = ("name", "class", "colour", "hidden", "deleted")  # fields that a person changes as they are
_OBJECT = 1_000  # bytes of an object beside its run lengths
KEPT = "pixels"  # the folder of photos that came from archives, without loss
_LONGEST_PART = 190  # bytes of a part of a path, which endings follow; most file systems take 255
# What Windows refuses, what hides a file, and surrogates that stand for no byte (`samjax.names.portable`).
_UNSAFE = re.compile(r'[%:\\<>"|?*\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]|^[. ]|[. ]$')
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StaleRevision(ValueError):
    """A change was made to an older state than the newest; nothing was changed."""

    def __init__(self, work: "Work", given: int) -> None:
        newest = work.state.revision
        super().__init__(
            f"the work on {work.state.photo.name} has changed meanwhile, in another tab for example: it is at revision "
            f"{newest}, and the change is for {given}; look at it again and repeat the change"
        )
        self.work = work


class NotSaved(OSError):
    """A change could not be written; on disk is the state before it."""


@dataclasses.dataclass(frozen=True)
class NewObject:
    """An object that is to be added: all of `WorkObject` but what its work file gives it."""

    rle: RLE
    source: str
    name: str = ""
    class_: str | None = None
    colour: str | None = None
    steps: tuple[Mapping[str, Any], ...] = ()
    everything: Mapping[str, Any] | None = None
    score: float | None = None
    id: str | None = None  # chosen by who sends it, so that what is sent twice is added once


@dataclasses.dataclass(frozen=True)
class Imported:
    """Objects that a photo begins with, and notes on annotations that are not among them."""

    objects: Sequence[NewObject] = ()
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Original:
    """A photo that the library knows no file of, when it is asked for: the file it was read from, if there is one, and
    the pixels."""

    file: Callable[[], Path | None]
    pixels: Callable[[], UInt8[np.ndarray, "H W 3"]]


@runtime_checkable
class Imports(Protocol):
    """Existing annotations."""

    @property
    def classes(self) -> Sequence[str]:
        """Those that are known without reading a photo's annotations, in their order."""
        ...

    def of(self, photo: str) -> Imported:
        """The annotations of a photo, given its id. Raises ValueError."""
        ...


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


class Work:
    """The work on one photo. Any number of threads may share it: changes come one after the other.

    Attributes:
        state: the newest state; it is on disk, but for objects that were imported and not changed yet.
        notes: what a person should know who opens the photo.
    """

    def __init__(
        self,
        path: Path,
        photo: WorkPhoto,
        model: Mapping[str, Any],
        imported: Callable[[], Imported] = Imported,
        keep: Callable[[], Path] | None = None,
        say: Callable[[str], None] = _warn,
    ) -> None:
        """Reads the work file `path` (its snapshot), or begins one with the objects that are `imported`.

        Before the first change is written, `keep` finds the file of a photo without a path, or puts it into one.

        Raises:
            BadWorkFile: it is damaged, newer than this program, or of another photo.
            OSError: it cannot be read.
        """
        self.path, self._model, self._keep, self._say = path, model, keep, say
        self._lock = threading.Lock()
        self.notes: list[str] = []
        self._added: frozenset[str] = frozenset()  # objects that the newest change has added
        self._rewrite = False
        self._patience = 0  # bytes of a journal that could not be made part of the snapshot, until it is tried again
        sweep([path])
        try:
            self.state, self._length, torn = read_work(path)
        except FileNotFoundError:
            self._length, torn = 0, False
            found = imported()
            objects = tuple(_made(new, f"o{number}", None) for number, new in enumerate(found.objects, 1))
            self.notes += found.notes
            self.state = WorkState(photo, objects=objects)
        else:
            self._check_photo(photo)
        if torn:
            say(f"{workfile.journal_of(path)} {_TORN}")
            self.notes.append(f"The journal of this photo {_TORN}.")
        self._seen = self._on_disk()
        if photo.path is not None and self.state.photo != photo:
            self._move(photo)
        elif photo.path is None and self.state.photo.path and not (path.parent / self.state.photo.path).exists():
            self._move(dataclasses.replace(photo, path=None))

    def add(self, objects: Sequence[NewObject], revision: int | None = None) -> list[WorkObject]:
        """Adds objects; returns them when they are on disk. One with the id of an object that is there is not added
        again: that object is returned as it is.

        Args:
            objects: what to add.
            revision: of the state that they were made for; None for whichever is the newest.

        Raises:
            StaleRevision, BadRequest: nothing has changed.
            NotSaved: likewise, because the disk is full for example.
        """
        with self._lock:
            self.check(revision)
            first = 1 + max((int(kept.id[1:]) for kept in self.state.objects if kept.id[1:].isdecimal()), default=0)
            checksum = self._model["checksum"]
            there = {kept.id: kept for kept in self.state.objects}
            made = [
                _made(new, new.id or f"o{number}", None if new.source == "import" else checksum)
                for number, new in enumerate(objects, first)
                if new.id not in there
            ]
            if len({kept.id for kept in made}) < len(made):
                raise BadRequest("two of the objects have the same id")
            self._check_masks([kept.rle for kept in made])
            if made:
                self._commit({"add": [kept.to_json() for kept in made]}, any(new.model for new in made))
            fresh = iter(made)
            return [there.get(new.id or "") or next(fresh) for new in objects]

    def revision_after_resending(self, objects: Sequence[WorkObject], revision: int) -> int:
        """The revision whose state a sender knows who had `revision` and is now given `objects`, added before.

        It is the newest if nothing else has changed since; otherwise still `revision`, so that the sender's next change
        is refused and the newest state read.
        """
        with self._lock:
            newest = self.state.revision
            if newest == revision + 1 and self._added == {kept.id for kept in objects}:
                return newest
            return min(revision, newest)

    def change(self, changes: Mapping[str, Mapping[str, Any]], revision: int | None = None) -> list[WorkObject]:
        """Sets fields of objects, by their ids: `EDITED` ones, and what a new mask comes with (steps, everything,
        rle, score, source). Returns the changed objects; raises as `add` does."""
        with self._lock:
            self.check(revision)
            given = []
            for id, fields in changes.items():
                if self.state.find(id) is None:
                    raise BadRequest(f"there is no object {id!r} in {self.state.photo.name}")
                more = {"model": self._model["checksum"]} if "rle" in fields else {}
                given.append({"id": id, **fields, **more})
            self._check_masks([fields["rle"] for fields in given if "rle" in fields])
            self._commit({"set": given}, any("rle" in fields for fields in given))
            return [kept for kept in self.state.objects if kept.id in changes]

    def set_done(self, done: bool, revision: int | None = None) -> None:
        """Says whether the photo is finished; raises as `add` does."""
        with self._lock:
            self.check(revision)
            self._commit({"done": done}, False)

    def check(self, revision: int | None) -> None:
        """Raises StaleRevision unless `revision` is the newest or None."""
        if revision is not None and revision != self.state.revision:
            raise StaleRevision(self, revision)

    def close(self) -> None:
        """Makes the journal part of the snapshot; work goes on if that fails."""
        with self._lock:
            if self._length:
                self._compact()

    def photo_file(self) -> Path:
        """The photo's file, which is written if there is none. Raises OSError, and the library's errors."""
        if self.state.photo.path is not None:
            return self.path.parent / self.state.photo.path
        if self._keep is None:
            raise FileNotFoundError(f"no file of the photo {self.state.photo.name} is known")
        return self._keep()

    def _commit(self, change: dict[str, Any], computed: bool) -> None:
        change = {"revision": self.state.revision + 1, **change}
        if computed and all(model["checksum"] != self._model["checksum"] for model in self.state.models):
            change["model"] = dict(self._model)
        line = workfile.journal_line(change)
        state = self.state.with_change(json.loads(line))  # as it will be read
        try:
            if self._unchanged() and not self._rewrite:
                durable.append(workfile.journal_of(self.path), line, self._length)
                self._length += len(line)
            else:
                self._rewrite = True  # if it fails, the new snapshot may be there or not
                state = self._write_snapshot(state)
                self._rewrite = False
        except OSError as error:
            self._seen = self._on_disk()
            raise not_saved(self.path, error) from error
        self.state, self._seen = state, self._on_disk()
        self._added = frozenset(kept["id"] for kept in change.get("add", ()))
        if self._length > max(COMPACTED, self.path.stat().st_size, self._patience):
            self._compact()

    def _unchanged(self) -> bool:
        """True if the journal can be continued, False if everything is to be written, there being no snapshot."""
        now = self._on_disk()
        if now[0] is None:
            return False
        if now != self._seen:
            raise BadWorkFile(
                f"{printable(self.path)} or its journal was changed by another program, and is not overwritten: start "
                "samjax app again to read it"
            )
        return True

    def _compact(self) -> None:
        try:
            if self._unchanged():
                self._write_snapshot(self.state)
        except (OSError, BadWorkFile) as error:  # the journal is as good
            self._patience = 2 * self._length
            self._say(f"the journal of {self.path} stays beside its snapshot: {error}")
        self._seen = self._on_disk()

    def _write_snapshot(self, state: WorkState) -> WorkState:
        if state.photo.path is None and self._keep is not None:
            place = _relative(self.photo_file(), self.path.parent)
            state = dataclasses.replace(state, photo=dataclasses.replace(state.photo, path=place))
        durable.write_whole(self.path, state.text().encode())
        # From here on whatever the journal has is in the snapshot, and lines of revisions up to it are skipped.
        journal = workfile.journal_of(self.path)
        try:
            journal.unlink(missing_ok=True)
            self._length = 0
        except OSError:
            self._length = journal.stat().st_size
        return state

    def _move(self, photo: WorkPhoto) -> None:
        """Writes where the photo is now, for other readers: it or the folder of work was moved."""
        self.state = dataclasses.replace(self.state, photo=photo)
        try:
            self.state = self._write_snapshot(self.state)
        except OSError as error:
            self._rewrite = True  # with the next change
            self._say(f"{self.path} still names the photo's place before it was moved: {error}")
        self._seen = self._on_disk()

    def _on_disk(self) -> tuple[Any, Any]:
        """Marks that tell versions of the two files apart; None for a missing one."""
        return _marks(self.path), _marks(workfile.journal_of(self.path))

    def _check_photo(self, photo: WorkPhoto) -> None:
        of = self.state.photo
        if (of.sha256, of.height, of.width) != (photo.sha256, photo.height, photo.width):
            raise BadWorkFile(
                f"{printable(self.path)} is the work on another photo than {printable(photo.name)} as it is now: its "
                f"pixels differ ({of.width} x {of.height} then, {photo.width} x {photo.height} now). Bring the photo "
                "back, or move the work file away to begin anew"
            )

    def _check_masks(self, rles: Sequence[RLE]) -> None:
        size = self.state.photo.height, self.state.photo.width
        if not all(workfile.are_whole(rles, size)):
            raise BadRequest(f"a mask is no encoding of {size[0]} x {size[1]} pixels (height, width)")


class WorkFolder:
    """The work files of a folder, by photo.

    Args:
        folder: where they are; `samjax.lock.working_in` keeps other programs out of it.
        model: "name", "checksum", "dtype" and "image_size" of the model that masks are made with.
        imported: annotations that photos begin with.
        say: is told what a person should know.
        memory: bytes of work that is kept in memory.
    """

    def __init__(
        self,
        folder: Path,
        model: Mapping[str, Any],
        imported: Imports | None = None,
        say: Callable[[str], None] = _warn,
        memory: int = 256_000_000,
    ) -> None:
        self.folder, self.model, self._say, self._memory = folder, dict(model), say, memory
        self.has_imports, self._imports = imported is not None, imported
        self.classes = Classes(folder / "classes.json")
        if imported is not None:
            self.classes.begin(imported.classes)
        self._works: weakref.WeakValueDictionary[str, Work] = weakref.WeakValueDictionary()
        self._recent: collections.OrderedDict[str, tuple[Work, int]] = collections.OrderedDict()
        self._keeping = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._counts: dict[str, tuple[Any, tuple[int, bool]]] = {}

    def open(
        self,
        photo: str,
        name: str,
        sha256: str,
        size: Size,
        path: Path | None = None,
        original: Original | None = None,
    ) -> Work:
        """The work on a photo, which is read or begun when it is asked for first.

        Args:
            photo: its id.
            name: its path within the folder that was opened.
            sha256: `samjax.embeddings.image_hash`.
            size: (height, width).
            path: its file, if it is one.
            original: of a photo without a `path`; what is no file is kept as one.

        Raises BadWorkFile and OSError.
        """
        file = self.path_of(name)
        with self._opening.setdefault(name.casefold(), threading.Lock()):
            if (work := self._works.get(name)) is None:
                self._check_case(name, file)
                relative = None if path is None else _relative(path, file.parent)
                described = WorkPhoto(name, sha256, *size, relative)
                keep = None if original is None else lambda: original.file() or self._keep(name, original.pixels())
                imported = Imported if (imports := self._imports) is None else lambda: imports.of(photo)
                work = Work(file, described, self.model, imported, keep, self._say)
                self.classes.include(kept.class_ for kept in work.state.objects)
                self._works[name] = work
        self._remember(name, work)
        if work.state.photo.sha256 != sha256:
            raise BadWorkFile(
                f"the photo {printable(name)} has changed since it was opened: start samjax app again, and move its "
                f"work file {printable(file)} away if the photo is to stay as it is now"
            )
        return work

    def _remember(self, name: str, work: Work) -> None:
        """Keeps work in memory that was asked for lately; what no request has any more is read again when needed."""
        with self._keeping:
            self._recent[name] = work, sum(_OBJECT + len(kept.rle["counts"]) for kept in work.state.objects)
            self._recent.move_to_end(name)
            old = []
            while sum(size for _, size in self._recent.values()) > self._memory and len(self._recent) > 1:
                forgotten, (left, _) = self._recent.popitem(last=False)
                old.append((forgotten, left))
        for forgotten, left in old:
            left.close()
            self._counts[forgotten] = self._marks(forgotten), _counted(left.state)

    def _marks(self, name: str) -> Any:
        path = self.path_of(name)
        return [_marks(path), _marks(workfile.journal_of(path))]

    def _check_case(self, name: str, file: Path) -> None:
        """Raises BadWorkFile where the disk has one file for this photo and another that is open."""
        for other in list(self._works):
            if other.casefold() == name.casefold() and _is_same_file(file, self.path_of(other)):
                raise BadWorkFile(
                    f"the names of {printable(name)} and {printable(other)} differ in upper and lower case only, and "
                    f"the disk with {printable(self.folder)} keeps one file for both: give one of the photos another "
                    "name, or choose a folder on another disk"
                )

    def path_of(self, name: str) -> Path:
        """The snapshot of a photo's work; it is within the folder whatever the name is."""
        inner = safe_name(name)
        return self.folder.joinpath(*inner.parts[:-1], inner.name + workfile.SNAPSHOT)

    def counts(self, name: str) -> tuple[int, bool]:
        """The number of a photo's objects that are not deleted, and whether it is done: (0, False) if it has no work
        file yet. The photo itself is not needed. Raises BadWorkFile and OSError."""
        if work := self._works.get(name):
            return _counted(work.state)
        path = self.path_of(name)
        try:
            marks = self._marks(name)
            if name not in self._counts or self._counts[name][0] != marks:
                self._counts[name] = marks, _counted(read_work(path).state)
            return self._counts[name][1]
        except FileNotFoundError:
            return 0, False

    def _keep(self, name: str, rgb: UInt8[np.ndarray, "H W 3"]) -> Path:
        file = self.path_of(name)
        path = self.folder / KEPT / file.relative_to(self.folder)
        path = path.with_name(path.name.removesuffix(workfile.SNAPSHOT) + ".png")
        data = io.BytesIO()
        Image.fromarray(rgb).save(data, "PNG")
        durable.write_whole(path, data.getvalue())
        return path

    def close(self) -> None:
        """Leaves one file per photo."""
        for work in list(self._works.values()):
            work.close()


def safe_name(name: str) -> PurePosixPath:
    """A photo's name as a path that leads out of no folder, that every system takes, and that no other name has.

    What some system refuses is written as URLs write it, and with it %. A part that is too long for a file system is
    cut; a hash tells it apart. Raises BadRequest if nothing is left of the name.
    """
    if not name.strip("/"):
        raise BadRequest(f"{name!r} is no name of a photo")
    return PurePosixPath(*map(_safe_part, name.split("/")))


def _safe_part(part: str) -> str:
    if not part:
        return "%2F"  # of //, or of a / at an end
    plain = portable(_UNSAFE.sub(_escaped, part))
    if len(plain.encode()) <= _LONGEST_PART:
        return plain
    ending = PurePosixPath(plain).suffix
    ending = ending if len(ending.encode()) <= 10 else ""
    # Longer than any part that is not cut, so that it is none of those.
    cut = plain.encode()[:_LONGEST_PART].decode(errors="ignore")
    return f"{cut}~{hashlib.sha256(plain.encode()).hexdigest()[:16]}{ending}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"%{code:02X}" if code < 0x80 else f"%u{code:X}"


def checked_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The `EDITED` fields of a change that was sent. Raises BadRequest."""
    fields = {name: given[name] for name in EDITED if name in given}
    name, class_, colour = fields.get("name", ""), fields.get("class"), fields.get("colour")
    if not isinstance(name, str) or len(name) > LONGEST or not name.isprintable():
        raise BadRequest(f"name is text of at most {LONGEST} characters, got {name!r:.60}")
    if class_ is not None and not is_class_name(class_):
        raise BadRequest(f"class is text of 1 to {LONGEST} characters, or null for none, got {class_!r:.60}")
    if colour is not None and not is_colour(colour):
        raise BadRequest(f"colour is #rrggbb, or null for the class's, got {colour!r:.60}")
    for name in ("hidden", "deleted"):
        if not isinstance(fields.get(name, False), bool):
            raise BadRequest(f"{name} is true or false, got {fields[name]!r:.60}")
    return fields


def _made(new: NewObject, id: str, model: str | None) -> WorkObject:
    given = {field.name: getattr(new, field.name) for field in dataclasses.fields(new) if field.name != "id"}
    return WorkObject(id=id, model=model, **given)


def _marks(path: Path) -> tuple[int, int, int] | None:
    """Numbers that change with a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _counted(state: WorkState) -> tuple[int, bool]:
    return sum(not kept.deleted for kept in state.objects), state.done


def _relative(path: Path, folder: Path) -> str:
    """With slashes; absolute where it is on another drive."""
    with contextlib.suppress(ValueError):
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return path.resolve().as_posix()


def not_saved(path: Path, error: OSError) -> NotSaved:
    """The error of work that could not be written, as a person is told of it."""
    why = "the disk is full" if error.errno in FULL else error.strerror or str(error)
    return NotSaved(
        f"the change is not saved, {why} ({printable(path)}): what was saved before is kept; make room or mend it, and "
        "repeat the change"
    )
