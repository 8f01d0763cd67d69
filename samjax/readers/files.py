"""Files, local or on gs://, s3://, https://: whole, in ranges, and what folders hold. fsspec does the work."""

import functools
import io
import logging
import os
import posixpath
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from samjax.pictures import ENDINGS

T = TypeVar("T")

PICTURES = ENDINGS
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_ATTEMPTS = 5  # after which a remote file counts as out of reach
_FIRST_PAUSE = 0.5  # seconds between attempts; doubles
_MARKS = ("ETag", "etag", "LastModified", "Last-Modified", "updated", "mtime", "created")  # as file systems call them
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)

_log = logging.getLogger(__name__)


class Unreachable(OSError):
    """A remote file that could not be read in several attempts, which says nothing about the file."""


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, name: str) -> str:
    """A file's path of its folder and its relative name with slashes."""
    return posixpath.join(folder, name).rstrip("/") if is_remote(folder) else str(Path(folder, name))


def ending(path: str) -> str:
    """The ending of a path, in lower case, from the last dot on: ".jpg"; of a URL without its query."""
    return PurePosixPath(path.partition("?")[0] if is_remote(path) else path).suffix.lower()


def read(path: str) -> bytes:
    """A whole file. Raises OSError, of which `Unreachable` is one."""
    if not is_remote(path):
        return Path(path).read_bytes()
    return _persistently(path, lambda: _file_system(path).cat_file(path))


def read_range(path: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from byte `start` on.

    Raises EOFError if the file ends before, ValueError where a server sends whole files only, and OSError.
    """
    if not is_remote(path):
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start)
            found = _read_fully(file, size)
    else:
        found = _persistently(path, lambda: _file_system(path).cat_file(path, start=start, end=start + size))
    if len(found) > size:
        raise _sends_no_parts(path)
    if len(found) < size:
        raise EOFError(f"{path} ends at byte {start + len(found)}; it should have {size} bytes from byte {start} on")
    return found


def open_seekable(path: str) -> io.IOBase:
    """A file to hop around in: of remote ones only what is read travels, in pieces of 32 KiB.

    Raises ValueError if a server sends whole files only, and OSError.
    """
    if not is_remote(path):
        return Path(path).open("rb")
    file = _persistently(path, lambda: _file_system(path).open(path, "rb", block_size=1 << 15, cache_type="readahead"))
    try:
        file.seek(1)  # a request for the beginning could be answered with the whole file unnoticed
        file.read(1)
        file.seek(0)
    except ValueError as error:
        file.close()
        raise _sends_no_parts(path) from error
    return file


def state(path: str) -> tuple[int, str]:
    """A file's size in bytes and a mark that changes with its content (time or ETag), empty if there is none.

    Raises OSError.
    """
    if not is_remote(path):
        status = Path(path).stat()
        return status.st_size, str(status.st_mtime_ns)
    info = _persistently(path, lambda: _file_system(path).info(path))
    if info.get("size") is None:
        raise ValueError(f"the server of {path} does not say how large the file is: copy it to a local folder")
    return int(info["size"]), next((str(info[mark]) for mark in _MARKS if info.get(mark)), "")


def names_in(folder: str, endings: Collection[str]) -> list[str]:
    """The files with one of these endings in a folder and its sub-folders: relative names with slashes, sorted.

    Hidden files and folders are left out, links to folders followed. Raises ValueError if there is no such folder
    or a server does not list it.
    """
    found = _remote_names(folder) if is_remote(folder) else _local_names(folder)
    chosen = [name for name in found if ending(name) in endings]
    return sorted(name for name in chosen if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")))


def _local_names(folder: str) -> Iterator[str]:
    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder {folder}")
    visited = set()  # links may lead in circles
    for parent, folders, files in os.walk(folder, followlinks=True):
        true = os.path.realpath(parent)
        if true in visited:
            folders.clear()
            continue
        visited.add(true)
        folders.sort()
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        yield from (files if relative == "." else (f"{relative}/{name}" for name in files))


def _remote_names(folder: str) -> Iterator[str]:
    try:
        paths = _persistently(folder, lambda: _file_system(folder).find(folder.rstrip("/") + "/"))
    except FileNotFoundError:
        paths = []
    if not paths:
        raise ValueError(f"there is nothing in {folder}, or its server does not list folders; name a file instead")
    # File systems differ in whether they keep the protocol in front of what they find.
    root = _file_system(folder)._strip_protocol(folder).rstrip("/") + "/"
    for path in paths:
        stripped = _file_system(folder)._strip_protocol(path)
        if stripped.startswith(root) and not stripped.endswith("/"):
            yield stripped.removeprefix(root)


def _sends_no_parts(path: str) -> ValueError:
    return ValueError(f"the server of {path} does not send parts of a file: copy the file to a local folder")


def _read_fully(file: io.RawIOBase, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _file_system(path: str) -> Any:
    protocol = path.partition("://")[0].lower()
    return _file_system_of(protocol, os.getpid())


@functools.cache
def _file_system_of(protocol: str, process: int) -> Any:
    """One each process: connections do not survive a fork."""
    package = _PACKAGES.get(protocol)
    try:
        import fsspec

        return fsspec.filesystem(protocol)
    except ImportError as error:
        wanted = f"`pip install {package}`" if package else f"a package ({error})"
        raise ValueError(f"reading {protocol}:// needs {wanted}, and `pip install samjax[train]`") from error
    except ValueError as error:
        raise ValueError(
            f"{protocol}:// is no known kind of path; use a local path, gs://, s3:// or https://"
        ) from error


def _persistently(path: str, action: Callable[[], T], attempts: int = _ATTEMPTS) -> T:
    """Tries again what a network may have broken."""
    try:
        return action()
    except (*_FINAL, ValueError):
        raise
    except Exception as error:  # every file system has its own kinds
        status = getattr(error, "status", None)
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
            raise PermissionError(f"the server of {path} refuses it ({error})") from error
        if attempts == 1:
            raise Unreachable(f"{path} cannot be read, tried {_ATTEMPTS} times: {error!r}") from error
        _log.warning("%s cannot be read (%r); trying again", path, error)
    time.sleep(_FIRST_PAUSE * 2 ** (_ATTEMPTS - attempts))
    return _persistently(path, action, attempts - 1)
