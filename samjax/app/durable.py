"""Files that are on the disk when a function returns: after a power cut they are there, whole."""

import contextlib
import os
from pathlib import Path

from samjax.atomic import replacing


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file, which is the old or the new one whenever the machine stops. Raises OSError."""
    make_folder(path.parent)
    with replacing(path, overwrite=True) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def append(path: Path, data: bytes, length: int) -> None:
    """Makes `data` follow the first `length` bytes of a file, which is made if that is 0; what else there was is cut
    off. If it fails, the file has `length` bytes again. Raises OSError."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        os.ftruncate(descriptor, length)
        os.lseek(descriptor, length, os.SEEK_SET)
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
                os.fsync(descriptor)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder with those above it. Raises OSError."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Puts the names of a folder on the disk; Windows does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
