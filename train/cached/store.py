"""Stores of features: named arrays of a photo under a key, in memory or on disk."""

import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from samjax.atomic import replacing

Arrays = dict[str, np.ndarray]


@runtime_checkable
class FeatureStore(Protocol):
    """Features by key; used by several threads."""

    def get(self, key: str) -> Arrays | None:
        """What was put there; None if nothing was, or it cannot be read."""
        ...

    def put(self, key: str, arrays: Arrays) -> None: ...


class MemoryStore:
    """Features in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    def get(self, key: str) -> Arrays | None:
        """As `FeatureStore.get`."""
        return self._kept.get(key)

    def put(self, key: str, arrays: Arrays) -> None:
        """Keeps arrays, which nobody may change afterwards."""
        self._kept[key] = arrays


class DiskStore:
    """One safetensors file for each photo; several processes and runs may share the folder.

    A file appears whole or not at all. One that is damaged counts as missing, and is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def get(self, key: str) -> Arrays | None:
        """As `FeatureStore.get`."""
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            return None

    def put(self, key: str, arrays: Arrays) -> None:
        """Writes a file. Raises OSError where that fails."""
        with self._lock, replacing(self._path(key), overwrite=True) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
