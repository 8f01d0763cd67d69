"""Fingerprints that tell data sets of the same names apart."""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from samjax.readers import files

_LOSSLESS = (".bmp", ".gif", ".png", ".tif", ".tiff")
# May be annotations, of any format that a source may have.
_TABLES = (".csv", ".geojson", ".json", ".jsonl", ".tsv", ".txt", ".xml", ".yaml", ".yml")
_READ = (".mat", ".npy", ".npz", *_TABLES, *_LOSSLESS)
_ARCHIVES = (".tar",)
_KINDS = {*_READ, *_ARCHIVES, *files.PICTURES}


def digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, local or remote. Raises OSError."""
    return hashlib.sha256(files.read(os.fspath(path))).hexdigest()[:16]


def fingerprint(path: str, exclude: Collection[Path] = ()) -> str:
    """A fingerprint of a file, or of all data files in a folder and its sub-folders with their names, wherever they
    lie.

    Annotations count with their content: JSON, MATLAB and NumPy files, tables, texts, and pictures without loss, which
    masks are. Photos of other kinds count with their size; tars, too large to be read twice, with size and time. Of
    remote files annotations and tars count with size and ETag or time, photos with their name alone, and nothing does
    where a server does not list its folders.

    Args:
        path: local, gs://, s3:// or https://.
        exclude: local files, and folders in `path`, that have no part either.

    Raises OSError.
    """
    checksum = hashlib.sha256()
    for name, file in _found(path, exclude):
        checksum.update(f"{name} {_mark(file)}\n".encode("utf-8", "surrogateescape"))
    return checksum.hexdigest()[:16]


def _found(path: str, exclude: Collection[Path]) -> Iterator[tuple[str, str]]:
    """(relative name, path) of each file, sorted; a single one has no name."""
    remote = files.is_remote(path)
    if (remote and files.ending(path) in _KINDS) or Path(path).is_file():
        yield "", path
        return
    try:
        names = files.names_in(path, _KINDS)
    except (ValueError, PermissionError):
        if not remote:
            raise
        return
    root = Path(path).resolve()
    within = {place for place in (place.resolve() for place in exclude) if place.is_relative_to(root)}
    for name in names:
        if remote or within.isdisjoint([root / name, *(root / name).parents]):
            yield name, files.join(path, name)


def _mark(path: str) -> str:
    """A text that changes with the file."""
    ending, remote = files.ending(path), files.is_remote(path)
    if ending in _ARCHIVES or (remote and ending in _READ):
        return " ".join(map(str, files.state(path)))
    if remote:
        return ""
    return str(files.state(path)[0]) if ending in files.PICTURES and ending not in _READ else digest(path)
