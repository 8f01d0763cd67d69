"""The classes that objects may be of: classes.json, a list of names with colours."""

import contextlib
import json
import re
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from samjax.app import durable
from samjax.app.steps import BadRequest

MOST = 10_000
LONGEST = 200  # characters of a name
_COLOUR = re.compile("#[0-9a-f]{6}", re.ASCII | re.IGNORECASE)
# Okabe and Ito's, which colour-blind people can tell apart; without black, which is the labels'.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")


class StaleClasses(ValueError):
    """The classes have changed since they were read; nothing was changed."""


class Classes:
    """The classes of a folder of work, in the order that a person gave them. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError if the file is there and holds no classes, and OSError."""
        self._path = path
        self._lock = threading.Lock()
        self._is_written = True
        try:
            self._listed = checked_classes(json.loads(path.read_bytes()))
        except FileNotFoundError:
            self._listed = []
        except ValueError as error:
            raise ValueError(
                f"{path} holds no classes ({error}): bring it back from a copy, or move it away"
            ) from error

    @property
    def listed(self) -> list[dict[str, str]]:
        """[{"name", "colour"}]"""
        return list(self._listed)

    @property
    def revision(self) -> int:
        """A number that differs for other classes, also after a restart."""
        return zlib.crc32(json.dumps(self.listed).encode())

    def replace(self, given: Any, revision: int | None = None) -> None:
        """Writes the classes that were sent. Raises BadRequest, StaleClasses, and OSError."""
        checked = checked_classes(given)
        with self._lock:
            if revision is not None and revision != self.revision:
                raise StaleClasses("the classes have changed meanwhile, in another tab for example; read them again")
            self._write(checked)
            self._listed, self._is_written = checked, True

    def begin(self, names: Iterable[str]) -> None:
        """Adds the classes of a source if there are none yet: those that a person removes later do not come back."""
        if not self._listed:
            self.include(names)

    def include(self, names: Iterable[str | None]) -> None:
        """Adds those that objects have, with colours of their own, so that their numbers and colours stay.

        Where they cannot be written, the next call tries again: no object fails for it.
        """
        with self._lock:
            known = {entry["name"] for entry in self._listed}
            for name in dict.fromkeys(names):
                if name not in known and is_class_name(name) and len(self._listed) < MOST:
                    colour = PALETTE[len(self._listed) % len(PALETTE)]
                    self._listed.append({"name": name, "colour": colour})
                    self._is_written = False
            if not self._is_written:
                with contextlib.suppress(OSError):
                    self._write(self._listed)
                    self._is_written = True

    def _write(self, classes: list[dict[str, str]]) -> None:
        durable.write_whole(self._path, (json.dumps(classes, indent=1) + "\n").encode())


def is_class_name(name: Any) -> TypeGuard[str]:
    """True for text that a class may be called."""
    return isinstance(name, str) and bool(name.strip()) and len(name) <= LONGEST and name.isprintable()


def is_colour(colour: Any) -> TypeGuard[str]:
    """True for #rrggbb."""
    return isinstance(colour, str) and _COLOUR.fullmatch(colour) is not None


def checked_classes(given: Any) -> list[dict[str, str]]:
    """Raises BadRequest, a ValueError, unless it is a list of {"name", "colour"} with different names."""
    if not isinstance(given, list) or len(given) > MOST:
        raise BadRequest(f"classes are a list of at most {MOST} of {{name, colour}}")
    names = set()
    for number, entry in enumerate(given):
        name, colour = (entry.get("name"), entry.get("colour")) if isinstance(entry, dict) else (None, None)
        if not is_class_name(name):
            raise BadRequest(f"class number {number} has no name of 1 to {LONGEST} characters")
        if not is_colour(colour):
            raise BadRequest(f"the colour of class {name} is #rrggbb, got {colour!r:.40}")
        if name in names:
            raise BadRequest(f"there are two classes called {name}")
        names.add(name)
    return [{"name": entry["name"], "colour": entry["colour"]} for entry in given]
