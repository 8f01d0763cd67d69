"""Tensors and NumPy arrays of a saved object, opened where they lie in the file; the numbers are read later."""

import abc
import dataclasses
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

from samjax.checkpoint import CheckpointError, LazyArray

from .pickle_arrays import ArrayReference, open_array
from .pickle_reader import TensorReference


def dtype_named(name: str) -> np.dtype:
    """numpy's dtype, which does not know bfloat16 by name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclasses.dataclass(frozen=True)
class Storage:
    """The bytes of one PyTorch storage in the file."""

    label: str  # for errors
    start: int
    nbytes: int


class SavedObject(abc.ABC):
    """An object graph that a file holds, with the storages that its tensors are views of."""

    path: Path
    size: int  # bytes of the file
    content: Any  # see `pickle_reader.read_pickle`

    @abc.abstractmethod
    def storage(self, key: str) -> Storage:
        """Raises `CheckpointError` where the file has no such storage, or it is damaged."""

    @abc.abstractmethod
    def verify(self, storage: Storage, data: np.ndarray | None) -> None:
        """Compares the checksum of a storage, given all its bytes or None; raises `CheckpointError`."""

    def damaged(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem[:300]}; the file is damaged, fetch it again")

    def open(self, reference: TensorReference | ArrayReference) -> LazyArray:
        """Compares a tensor with the storage that it claims to lie in; nothing is read yet."""
        if isinstance(reference, ArrayReference):
            return open_array(reference, str(self.path), self._read)
        shape, dtype = reference.shape, dtype_named(reference.storage.dtype)
        storage = self.storage(reference.storage.key)
        if reference.storage.numel * dtype.itemsize != storage.nbytes:
            raise self.damaged(
                f"{storage.label} has {storage.nbytes} bytes for {reference.storage.numel} of {dtype.name}"
            )
        if _last(reference) >= reference.storage.numel:
            raise self.damaged(f"a tensor of shape {shape} reaches beyond its storage {storage.label}")
        if math.prod(shape) * dtype.itemsize > max(self.size, 1 << 20):  # expanded, by strides of 0
            raise self.damaged(f"a tensor of shape {shape} is larger than the whole file")
        return LazyArray(shape, dtype, lambda: self._load(reference, dtype, storage))

    def _load(self, reference: TensorReference, dtype: np.dtype, storage: Storage) -> np.ndarray:
        """Reads the range of the storage that a view covers, then lays the view out in C order."""
        if 0 in reference.shape:
            return np.zeros(reference.shape, dtype)
        raw = np.empty((_last(reference) - reference.offset + 1) * dtype.itemsize, np.uint8)
        with self.path.open("rb") as file:
            file.seek(storage.start + reference.offset * dtype.itemsize)
            if file.readinto(raw.data) != raw.nbytes:
                raise self.damaged(f"{storage.label} ends too early")
        self.verify(storage, raw if raw.nbytes == storage.nbytes else None)
        strides = [stride * dtype.itemsize for stride in reference.strides]
        return np.ascontiguousarray(as_strided(raw.view(dtype), reference.shape, strides)).reshape(reference.shape)

    def _read(self, start: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)


def _last(reference: TensorReference) -> int:
    """The last element of its storage that a view touches."""
    if 0 in reference.shape:
        return -1
    spans = (stride * (side - 1) for side, stride in zip(reference.shape, reference.strides, strict=True))
    return reference.offset + sum(spans)
