"""Stores of features: named arrays of a photo under a key, in memory or on disk."""

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from samjax.atomic import replacing

Arrays = dict[str, np.ndarray]

# Nothing else in a folder is counted or deleted: it is the user's, and may hold anything.
_WEIGHTS, _PHOTO = "features-" + "[0-9a-f]" * 16, "[0-9a-f]" * 32
_OURS = f"{_WEIGHTS}/{_PHOTO}.safetensors", f"{_WEIGHTS}/.{_PHOTO}*.partial/{_PHOTO}.safetensors"


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

    Args:
        folder: of features of any weights; what else is in it stays as it is.
        weights: 16 hexadecimal digits that tell what the features depend on; keys are 32 of them.
        budget: bytes that all features in the folder may take, those of other weights too.
        needed: bytes that this run's take, which it gets whatever the budget is.
    """

    def __init__(self, folder: Path, weights: str, budget: int, needed: int = 0) -> None:
        self._folder, self._own = folder, folder / f"features-{weights}"
        self._budget, self._needed = budget, needed
        self._lock, self._complained = threading.Lock(), False
        self._taken = make_room(folder, budget, needed)
        self._unseen = 0  # bytes written since all were counted

    def get(self, key: str) -> Arrays | None:
        """As `FeatureStore.get`."""
        try:
            with safe_open(self._path(key), "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
                sha256 = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        with contextlib.suppress(OSError):
            os.utime(self._path(key))  # it is used: others give way first
        return arrays if sha256 == _sha256(arrays) else None

    def put(self, key: str, arrays: Arrays) -> None:
        """As `FeatureStore.put`."""
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with self._lock:
            try:
                with replacing(self._path(key), overwrite=True) as temporary:
                    save_file(arrays, temporary, metadata={"sha256": _sha256(arrays)})
            except (OSError, SafetensorError) as error:
                if not self._complained:
                    warnings.warn(f"cache.folder: features cannot be written to {self._own}: {error}", stacklevel=2)
                self._complained = True
                return
            self._unseen += sum(array.nbytes for array in arrays.values())
            # Now and then also for what other runs have written.
            if self._taken + self._unseen > max(self._budget, self._needed) or self._unseen > self._budget / 64:
                self._taken, self._unseen = make_room(self._folder, self._budget, self._needed), 0

    def _path(self, key: str) -> Path:
        return self._own / f"{key}.safetensors"


def make_room(folder: Path, budget: int, needed: int = 0) -> int:
    """Deletes features, those that were used least recently first, where all together take more than they may.

    Then a tenth of the budget becomes free, so that not every photo has all of the others counted.

    Args:
        folder: of features of any weights.
        budget: bytes that they may take together.
        needed: bytes that they may take whatever the budget is.

    Returns:
        The bytes that are left.
    """
    files = sorted(_used(folder))
    taken = sum(size for _, size, _ in files)
    if taken <= max(budget, needed):
        return taken
    for _, size, file in files:
        if taken <= max(0.9 * budget, needed):
            break
        taken -= size
        with contextlib.suppress(OSError):  # another user's, or one that another run deletes meanwhile
            file.unlink(missing_ok=True)  # a run that uses it computes it again
            file.parent.rmdir()  # if it was the last
    return taken


def _used(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """When each file was used last, in nanoseconds, its bytes and its path; those that a killed run left, too."""
    for pattern in _OURS:
        with contextlib.suppress(OSError):  # a folder that another run deletes meanwhile
            for file in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    yield status.st_mtime_ns, status.st_size, file


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
