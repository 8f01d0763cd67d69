"""Stores of features: named arrays of a photo under a key, in memory or on disk."""

import hashlib
import shutil
import threading
import warnings
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from samjax.atomic import replacing

Arrays = dict[str, np.ndarray]


@runtime_checkable
class FeatureStore(Protocol):
    """Features by key; used by several threads."""

    def get(self, key: str) -> Arrays | None:
        """What was put there; None if nothing was, or it cannot be read."""
        ...

    def put(self, key: str, arrays: Arrays) -> None:
        """Keeps arrays, which nobody may change afterwards."""
        ...


class MemoryStore:
    """Features in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    def get(self, key: str) -> Arrays | None:
        """As `FeatureStore.get`."""
        return self._kept.get(key)

    def put(self, key: str, arrays: Arrays) -> None:
        """As `FeatureStore.put`."""
        self._kept[key] = arrays


class DiskStore:
    """One safetensors file for each photo; several processes and runs may share the folder.

    A file appears whole or not at all. One that is damaged, by its sha256, counts as missing and is replaced. Where a
    file cannot be written, a warning says so once, and features are computed again when they are needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock, self._complained = threading.Lock(), False

    def get(self, key: str) -> Arrays | None:
        """As `FeatureStore.get`."""
        try:
            with safe_open(self._path(key), "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
                sha256 = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        return arrays if sha256 == _sha256(arrays) else None

    def put(self, key: str, arrays: Arrays) -> None:
        """As `FeatureStore.put`."""
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            with self._lock, replacing(self._path(key), overwrite=True) as temporary:
                save_file(arrays, temporary, metadata={"sha256": _sha256(arrays)})
        except (OSError, SafetensorError) as error:
            if not self._complained:
                warnings.warn(f"cache.folder: features cannot be written to {self.folder}: {error}", stacklevel=2)
            self._complained = True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def make_room(folder: Path, kept: Path, total: float | int) -> None:
    """Deletes features of other weights, those that were written to least recently first, until there is room.

    Args:
        folder: of all features; each of its folders belongs to some weights.
        kept: the one that stays.
        total: bytes that the others may take together.
    """
    others = [part for part in folder.iterdir() if part.is_dir() and part != kept] if folder.is_dir() else []
    sizes = {part: sum(file.stat().st_size for file in part.glob("*.safetensors")) for part in others}
    for part in sorted(others, key=lambda part: part.stat().st_mtime):
        if sum(sizes.values()) <= total:
            break
        shutil.rmtree(part, ignore_errors=True)  # a run that uses them computes them again
        del sizes[part]


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
