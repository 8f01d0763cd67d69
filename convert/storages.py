"""Opens the tensors and NumPy arrays of a saved object in place; the numbers are read from the file later."""

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
    """Returns NumPy's dtype of this name, bfloat16 included, which NumPy does not know.

    Raises:
        TypeError: there is none of this name.
    """
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclasses.dataclass(frozen=True)
class Storage:
    """The bytes of one PyTorch storage in the file."""

    label: str  # for errors
    start: int  # offset in the file, bytes
    nbytes: int


class SavedObject(abc.ABC):
    """An object graph in a file, with the storages that its tensors are views of."""

    path: Path
    size: int  # bytes of the file
    content: Any  # see `pickle_reader.read_pickle`

    @abc.abstractmethod
    def storage(self, key: str) -> Storage:
        """Returns the bytes of a storage.

        Raises:
            CheckpointError: it is missing or damaged.
        """

    @abc.abstractmethod
    def verify(self, storage: Storage, data: np.ndarray | None) -> None:
        """Compares the checksum of a storage with its bytes, all in `data` or, if that is None, in the file.

        Raises:
            CheckpointError: they differ.
        """

    def damaged(self, problem: str) -> CheckpointError:
        """Makes the error for a damaged file."""
        return CheckpointError(f"{self.path}: {problem[:300]}; the file is damaged, fetch it again")

    def open(self, reference: TensorReference | ArrayReference) -> LazyArray:
        """Opens a tensor or array after comparing it with the storage that it claims to lie in; nothing is read yet.

        Raises:
            CheckpointError: it does not fit its storage; when it is read, also if the file is damaged.
        """
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
        """Reads the range of the storage that a view covers, then lays the view out in C order.

        Raises `CheckpointError` if the file ends too early, or the storage's checksum differs.
        """
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
    """Returns the index of the last element of its storage that a view touches, -1 if it is empty."""
    if 0 in reference.shape:
        return -1
    spans = (stride * (side - 1) for side, stride in zip(reference.shape, reference.strides, strict=True))
    return reference.offset + sum(spans)
