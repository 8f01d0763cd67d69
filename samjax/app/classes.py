"""The classes that objects may be of: classes.json, a list of names with colours."""

import json
import re
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from samjax.app import durable
from samjax.app.steps import BadRequest

MOST = 1_000
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
        self._included: list[dict[str, str]] = []  # found in work files, not put there by a person
        try:
            self._given = checked_classes(json.loads(path.read_bytes()))
        except FileNotFoundError:
            self._given = []
        except ValueError as error:
            raise ValueError(
                f"{path} holds no classes ({error}): bring it back from a copy, or move it away"
            ) from error

    @property
    def listed(self) -> list[dict[str, str]]:
        """[{"name", "colour"}]"""
        return [*self._given, *self._included]

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
            durable.write_whole(self._path, (json.dumps(checked, indent=1) + "\n").encode())
            self._given, self._included = checked, []

    def include(self, names: Iterable[str | None]) -> None:
        """Adds those that objects have, with colours of their own; they are written when a person changes classes."""
        with self._lock:
            known = {entry["name"] for entry in self.listed}
            for name in dict.fromkeys(names):
                if name and name not in known:
                    colour = PALETTE[len(self.listed) % len(PALETTE)]
                    self._included.append({"name": name, "colour": colour})


def checked_classes(given: Any) -> list[dict[str, str]]:
    """Raises BadRequest, a ValueError, unless it is a list of {"name", "colour"} with different names."""
    if not isinstance(given, list) or len(given) > MOST:
        raise BadRequest(f"classes are a list of at most {MOST} of {{name, colour}}")
    names = set()
    for number, entry in enumerate(given):
        name, colour = (entry.get("name"), entry.get("colour")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
            raise BadRequest(f"class number {number} has no name of 1 to 200 characters")
        if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
            raise BadRequest(f"the colour of class {name} is #rrggbb, got {colour!r:.40}")
        if name in names:
            raise BadRequest(f"there are two classes called {name}")
        names.add(name)
    return [{"name": entry["name"], "colour": entry["colour"]} for entry in given]
