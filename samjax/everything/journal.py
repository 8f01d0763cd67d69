"""The record of finished photos of a job: one small file a photo, written after everything else of that photo."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from samjax.atomic import replacing, scratch_prefix
from samjax.everything.photos import RECORDS
from samjax.writers import Photo

_SCRATCH = "{}????????.partial"  # what `replacing` calls its folders


class OutputJournal:
    """The records of a job in OUT/.samjax, one a photo: "settings" that decide about the masks, "source", and by format
    what was written: {"options", "files", "whole"}. Beside them "files" that are out of date and not removed yet,
    "masks", the count, or the "error" of the formats that were "tried" last.

    A photo is done if its record has the settings of this job, its source's size and time, and every format of this job
    with its options, and their files are there. What other formats wrote is kept while settings and source are equal.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], formats: Mapping[str, Mapping[str, Any]]) -> None:
        """`formats` has the options of each."""
        self.out = out
        self.settings, self.formats = json.loads(json.dumps([settings, formats]))  # as they will be read back

    def is_done(self, photo: Photo) -> bool:
        """True if all formats of this job are there, made from the photo as it is with these settings."""
        record = self._read(photo)
        return record.get("source") == _source(photo) and all(self._has(record, name) for name in self.formats)

    def done(self, format: str, photos: Iterable[Photo]) -> list[str]:
        """The names of all photos whose files of a format of this job are there, sorted: those of other runs too.

        Not those that `photos` has under other names now.
        """
        folder = self.out / RECORDS
        names = {photo.relative: photo.name for photo in photos}
        found = []
        for path in folder.rglob("*.json"):
            inner = path.relative_to(folder)
            if any(part[0] == "." and part.endswith(".partial") for part in inner.parts):
                continue
            name = inner.as_posix().removesuffix(".json")
            record = _load(path)
            source = record.get("source")
            relative = str(source.get("path")) if isinstance(source, dict) else ""
            if self._has(record, format) and names.get(relative, name) == name:
                found.append(name)
        return sorted(found)

    def has_failed(self, photo: Photo) -> bool:
        """True if the photo failed with the settings and formats of this job, in this run or an earlier one."""
        record = self._read(photo)
        return "error" in record and (record.get("settings"), record.get("tried")) == (self.settings, self.formats)

    def changes(self, photo: Photo) -> list[str]:
        """The settings and options that differ from those of an earlier result, as text."""
        record = self._read(photo)
        compared = [(record.get("settings"), self.settings)]
        compared += [(entry.get("options"), self.formats.get(name)) for name, entry in _formats(record).items()]
        return [
            f"{name} {_brief(before.get(name))} -> {_brief(now.get(name))}"
            for before, now in compared
            if isinstance(before, dict) and now is not None
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]

    def begin(self, photo: Photo) -> None:
        """Records that a photo is no longer done in this job's formats, which are about to be written."""
        formats, stale = self._earlier(photo)
        formats |= {name: {**formats[name], "whole": False} for name in self.formats if name in formats}
        if formats or stale:
            self._write(photo, {"formats": formats, "files": sorted(stale)})

    def finish(self, photo: Photo, files: Mapping[str, Iterable[Path]], masks: int) -> None:
        """Records that a photo is done in the formats of `files`.

        Before that it removes what a killed run left half-written, and files that these formats (all of them if
        settings have changed) wrote before and not now.
        """
        before, stale = self._earlier(photo)
        formats = dict(before)
        for name, paths in files.items():
            names = sorted(path.relative_to(self.out).as_posix() for path in paths)
            formats[name] = {"options": self.formats[name], "files": names, "whole": True}
            stale.update(_files(before.get(name, {})), names)
        sweep([*(self.out / file for name in files for file in _files(formats[name])), self._path(photo)])
        for file in stale.difference(*map(_files, formats.values())):
            _remove(self.out / file)
        self._write(photo, {"formats": formats, "masks": masks})

    def fail(self, photo: Photo, error: str) -> None:
        """Records that a photo failed in this job's formats, and why."""
        formats, stale = self._earlier(photo)
        self._write(photo, {"formats": formats, "files": sorted(stale), "error": error, "tried": self.formats})

    def _has(self, record: dict[str, Any], format: str) -> bool:
        entry = _formats(record).get(format, {})
        expected = (self.settings, self.formats[format], True)
        return (record.get("settings"), entry.get("options"), entry.get("whole")) == expected and all(
            (self.out / file).exists() for file in _files(entry)
        )

    def _earlier(self, photo: Photo) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """The formats of a record, as far as it holds for these settings and the photo as it is, and the files that are
        out of date."""
        record = self._read(photo)
        formats, stale = _formats(record), set(_files(record))
        if (record.get("settings"), record.get("source")) == (self.settings, _source(photo)):
            return formats, stale
        return {}, stale.union(*map(_files, formats.values()))

    def _write(self, photo: Photo, outcome: dict[str, Any]) -> None:
        with replacing(self._path(photo), overwrite=True) as temporary:
            content = {"settings": self.settings, "source": _source(photo), **outcome}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def _read(self, photo: Photo) -> dict[str, Any]:
        return _load(self._path(photo))

    def _path(self, photo: Photo) -> Path:
        return self.out / RECORDS / f"{photo.name}.json"


def sweep(paths: Iterable[Path]) -> None:
    """Removes what killed runs left half-written of these files."""
    for path in paths:
        for scratch in path.parent.glob(_SCRATCH.format(_literal(scratch_prefix(path.name)))):
            shutil.rmtree(scratch, ignore_errors=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _source(photo: Photo) -> dict[str, Any]:
    try:
        status = photo.path.stat()
    except OSError:
        return {"path": photo.relative}
    return {"path": photo.relative, "bytes": status.st_size, "modified": status.st_mtime_ns}


def _formats(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    formats = record.get("formats")
    entries = formats.items() if isinstance(formats, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}


def _files(record: dict[str, Any]) -> list[str]:
    """The files of a record or of one format in it; none that are not below the folder of outputs."""
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
