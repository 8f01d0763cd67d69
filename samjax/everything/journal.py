"""What of a job is done: one small file a photo, written after everything else of that photo."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from samjax.atomic import replacing
from samjax.formats import Photo

_SCRATCH = ".{}.????????.partial"  # what `replacing` calls its folders


class Journal:
    """The records of a job in OUT/.samjax: {"settings", "source", "files"} and "masks", the count, of a photo that is
    done, or "error" of one that failed.

    A photo is done if its record says so with the settings of this job and its source's size and time, and its files
    are there.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.settings = json.loads(json.dumps(settings))  # as it will be read back

    def is_done(self, photo: Photo) -> bool:
        record = self._read(photo)
        expected = {"settings": self.settings, "source": _source(photo)}
        if "masks" not in record or any(record.get(key) != value for key, value in expected.items()):
            return False
        return all((self.out / file).exists() for file in _files(record))

    def has_failed(self, photo: Photo) -> bool:
        """With the settings of this job, in this run or an earlier one."""
        record = self._read(photo)
        return record.get("settings") == self.settings and "error" in record

    def changes(self, photo: Photo) -> list[str]:
        """Which settings an earlier result has been made with differently, as text."""
        before = self._read(photo).get("settings")
        if not isinstance(before, dict):
            return []
        names = [name for name in {**before, **self.settings} if before.get(name) != self.settings.get(name)]
        return [f"{name} {_brief(before.get(name))} -> {_brief(self.settings.get(name))}" for name in names]

    def begin(self, photo: Photo) -> set[str]:
        """Takes back that a photo is done; returns the files of its earlier result."""
        files = _files(self._read(photo))
        if files:
            self._write(photo, {"files": files})
        return set(files)

    def finish(self, photo: Photo, files: Iterable[Path], masks: int, earlier: set[str]) -> None:
        """Says that a photo is done, after removing what a killed run left half-written and those of the `earlier`
        files that it does not have any more."""
        names = sorted(path.relative_to(self.out).as_posix() for path in files)
        sweep([*(self.out / name for name in names), self._path(photo)])
        for stale in earlier.difference(names):
            _remove(self.out / stale)
        self._write(photo, {"files": names, "masks": masks})

    def fail(self, photo: Photo, error: str) -> None:
        self._write(photo, {"files": _files(self._read(photo)), "error": error})

    def _write(self, photo: Photo, outcome: dict[str, Any]) -> None:
        with replacing(self._path(photo), overwrite=True) as temporary:
            content = {"settings": self.settings, "source": _source(photo), **outcome}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def _read(self, photo: Photo) -> dict[str, Any]:
        try:
            record = json.loads(self._path(photo).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _path(self, photo: Photo) -> Path:
        return self.out / ".samjax" / f"{photo.name}.json"


def sweep(paths: Iterable[Path]) -> None:
    """Removes what killed runs left half-written of these files."""
    for path in paths:
        for scratch in path.parent.glob(_SCRATCH.format(_literal(path.name))):
            shutil.rmtree(scratch, ignore_errors=True)


def _source(photo: Photo) -> dict[str, Any]:
    try:
        status = photo.path.stat()
    except OSError:
        return {"path": photo.relative}
    return {"path": photo.relative, "bytes": status.st_size, "modified": status.st_mtime_ns}


def _files(record: dict[str, Any]) -> list[str]:
    """Of a record; none that are not below the folder of outputs."""
    paths = [PurePosixPath(str(file)) for file in record.get("files", ())]
    return [str(path) for path in paths if not path.is_absolute() and ".." not in path.parts and path.parts]


def _remove(path: Path) -> None:
    """A file, or a folder of --format png with what that writes."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for file in (*path.glob("[0-9]*.png"), path / "metadata.csv"):
        file.unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _literal(name: str) -> str:
    """A name as a glob pattern that matches nothing else."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
