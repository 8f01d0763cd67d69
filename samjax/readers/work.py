"""Work of `samjax app`: photos with the objects that a person has segmented, and the clicks that were made."""

import dataclasses
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from samjax.pictures import image_hash
from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.left_out import Problem, Reason, Tally
from samjax.readers.masks import Findings
from samjax.readers.pictures import read_photo
from samjax.readers.record import BadRecord, Click, NoObjects, Record
from samjax.workfile import SNAPSHOT, BadWorkFile, WorkState, read_work


class WorkFiles(IndexedSource):
    """The work files of a folder and its sub-folders, as `samjax.workfile` has them; the program may be running.

    Every photo with an object is a record, whether it was marked done or not; of the photos without objects those that
    were marked done are records without masks, and the others are left out: no one has said that there is nothing.
    Deleted objects are none, hidden ones are some. Categories are the classes, numbered from 1 in the order of
    classes.json, then of the alphabet.

    The photo is looked for where the work file says, relative to itself, and must have the pixels that it had.
    """

    def __init__(self, folder: str) -> None:
        """Raises ValueError if there is no work file, or none with an object or marked done; OSError."""
        self._folder = folder
        names, flawed, left_out, classes = [], [], Tally(), set()
        for name in files.names_in(folder, {".json"}):
            if not name.endswith(SNAPSHOT):
                continue
            try:
                state = self._state(name)
            except BadWorkFile as error:
                flawed.append(Problem(name.removesuffix(SNAPSHOT), str(error), Reason.UNREADABLE))
                continue
            objects = [kept for kept in state.objects if not kept.deleted]
            classes.update(kept.class_ for kept in objects if kept.class_)
            if objects or state.done:
                names.append(name)
            else:
                left_out.photos[Reason.NO_OBJECTS] += 1
        self._names = tuple(names)
        listed = self._listed_classes()
        ordered = [*listed, *sorted(classes.difference(listed))]
        self._categories = {name: number for number, name in enumerate(ordered, 1)}
        self.classes = tuple(self._categories)
        where = f"{folder}, no file *{SNAPSHOT} with an object or marked done"
        super().__init__(where, len(names), flawed, left_out)

    def _name(self, index: int) -> str:
        return self._names[index].removesuffix(SNAPSHOT)

    def _read(self, index: int) -> Record:
        name = self._names[index]
        state = self._state(name)
        if state.photo.path is None:
            raise BadRecord("its work file names no file of its photo", Reason.MISSING)
        photo = _joined(self._folder, name.rpartition("/")[0], state.photo.path)
        found = Findings(self._name(index), read_photo(photo))
        found.photo = photo
        if image_hash(found.rgb) != state.photo.sha256:
            height, width = found.size
            raise BadRecord(
                f"{photo} is not the photo that was worked on, or it was changed: its pixels differ ({width} x "
                f"{height} now, {state.photo.width} x {state.photo.height} then)",
                Reason.SIZE if found.size != (state.photo.height, state.photo.width) else Reason.UNREADABLE,
            )
        clicks: dict[int | str, tuple[Click, ...]] = {}
        for kept in state.objects:
            if not kept.deleted:
                category = self._categories.get(kept.class_) if kept.class_ else None
                found.add(f"object {kept.id}", kept.rle, kept.id, category, class_=kept.class_)
                clicks[kept.id] = clicks_of(kept.steps)
        if not clicks and not state.done:
            raise NoObjects
        record = found.record(empty=state.done)
        return dataclasses.replace(record, clicks=tuple(clicks[id] for id in record.ids))

    def _state(self, name: str) -> WorkState:
        return read_work(files.join(self._folder, name), files.read).state

    def _listed_classes(self) -> list[str]:
        try:
            return [str(entry["name"]) for entry in json.loads(files.read(files.join(self._folder, "classes.json")))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"classes.json cannot be read ({error}): bring it back from a copy, or move it away"
            ) from None


def clicks_of(steps: Sequence[Mapping[str, Any]]) -> tuple[Click, ...]:
    """The clicks that an object was made by, given its steps as JSON, in the order in which they were made.

    Only steps since the last that begins anew (does not refine) have a part in the mask; of these the clicks that held
    in the last one with any count, none that were taken back. Empty where a box or a mask was a prompt too: the clicks
    alone mean something else.
    """
    begins = max((number for number, step in enumerate(steps) if not step.get("refine")), default=0)
    chain = steps[begins:]
    if any(step.get("box") is not None or step.get("mask") is not None for step in chain):
        return ()
    last: Sequence[Any] = next((step["points"] for step in reversed(chain) if step.get("points")), ())
    return tuple(Click(float(x), float(y), int(label)) for x, y, label in last)


def _joined(folder: str, place: str, path: str) -> str:
    """A path relative to a sub-folder, without its "..": no server knows them."""
    if not files.is_remote(folder):
        return files.join(files.join(folder, place), path)
    protocol, rest = folder.split("://", 1)
    return f"{protocol}://{posixpath.normpath(posixpath.join(rest, place, path))}"
