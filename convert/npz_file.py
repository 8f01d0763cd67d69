"""Reads NumPy's `.npz`, as `numpy.savez(FILE, **state_dict)` writes it: names to arrays that stay in their file."""

import functools
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from samjax.checkpoint import CheckpointError, LazyArray

_MAX_ENTRIES = 100_000
_FLAWS = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError, SyntaxError)


def is_npz(path: Path) -> bool:
    """Tells whether a file is a zip archive of NumPy arrays and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (*_FLAWS, OverflowError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path: Path) -> dict[str, LazyArray]:
    """Opens the arrays of a file; none is read yet, and objects in it are not built.

    Raises:
        CheckpointError: the file is damaged, compressed, or holds an array of objects; when an array is read, also if
            that is damaged.
    """
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
                raise CheckpointError(f"{path} lists an array twice, or absurdly many; it is damaged, fetch it again")
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"{path} is compressed; save it with numpy.savez, not savez_compressed")
                with archive.open(entry) as stream:
                    shape, _, dtype = _header(stream)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
                    raise CheckpointError(f"{path}: {entry.filename[:80]!r} is damaged, or an array of objects")
                name = entry.filename.removesuffix(".npy")
                tensors[name] = LazyArray(
                    shape, dtype.newbyteorder("="), functools.partial(_read, path, entry.filename)
                )
    except _FLAWS as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is truncated or damaged ({str(error)[:200]}); fetch it again") from None
    return tensors


def _read(path: Path, name: str) -> np.ndarray:
    """Reads an array into C order and native byte order. Raises `CheckpointError` if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
            array = npy.read_array(stream, allow_pickle=False)
    except _FLAWS as error:
        raise CheckpointError(f"{path}: {name[:80]!r} is damaged ({str(error)[:200]}); fetch it again") from None
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def _header(stream: IO[bytes] | zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    return read.get(npy.read_magic(stream), npy.read_array_header_1_0)(stream)
