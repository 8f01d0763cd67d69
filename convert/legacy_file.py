"""Pickles outside of a zip archive: plain ones, and PyTorch's before 1.6 (`_use_new_zipfile_serialization=False`).

PyTorch's is a sequence of pickles (a magic number, a version, the machine's byte order, the object, the keys of its
storages), then for each key the number of its elements as 64 bits and its bytes, without a checksum.
"""

import mmap
import struct
from pathlib import Path

import numpy as np

from samjax.checkpoint import CheckpointError

from .pickle_reader import STORAGES, StorageReference, read_pickle
from .storages import SavedObject, Storage, dtype_named

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = struct.Struct("<q")
# Bytes per element of types that are skipped.
_OTHERS = {"torch.ComplexFloatStorage": 8, "torch.ComplexDoubleStorage": 16, "torch.storage.UntypedStorage": 1}


class PickleFile(SavedObject):
    """A file by `pickle.dump`, or by `torch.save` in its old format."""

    def __init__(self, path: Path) -> None:
        """Reads the pickles.

        Raises:
            CheckpointError: the file is damaged, big-endian, of an unknown version or with storages of an unsupported
                type, or `read_pickle` refuses a pickle.
        """
        self.path = path
        self.size = path.stat().st_size
        self._storages: dict[str, Storage] = {}
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            first = read_pickle(data, str(path))
            self.content = first.value
            if first.value == _MAGIC:
                self._open_torch(data, first.end)

    def storage(self, key: str) -> Storage:
        """Returns the bytes of a storage.

        Raises:
            CheckpointError: the file has no storage of this key.
        """
        if key not in self._storages:
            raise self.damaged(f"the storage {key!r} of a tensor is missing")
        return self._storages[key]

    def verify(self, storage: Storage, data: np.ndarray | None) -> None:
        """Does nothing: the format has no checksums."""

    def _open_torch(self, data: mmap.mmap, position: int) -> None:
        """Reads what follows the magic number, which ends at `position`.

        Raises `CheckpointError` if it is damaged, big-endian or of an unknown version.
        """
        parts = []
        for _ in range(4):
            parts.append(read_pickle(data, str(self.path), position))
            position = parts[-1].end
        version, system, saved, keys = parts
        if version.value != _VERSION:
            raise CheckpointError(f"{self.path}: its format is {str(version.value)[:40]}, expected {_VERSION}")
        if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
            raise CheckpointError(f"{self.path} was saved on a big-endian machine, which is not supported")
        self.content = saved.value
        for key in keys.value if isinstance(keys.value, list) else [None]:
            position = self._add_storage(data, position, saved.storages.get(key) if isinstance(key, str) else None)

    def _add_storage(self, data: mmap.mmap, position: int, reference: StorageReference | None) -> int:
        """Notes where a storage lies, whose number of elements is at `position`; returns the position after it.

        Raises `CheckpointError` if no tensor refers to it, its type is not supported, or its size is another.
        """
        if reference is None:
            raise self.damaged("its list of storages does not fit its tensors")
        if reference.kind not in STORAGES and reference.kind not in _OTHERS:
            raise CheckpointError(f"{self.path}: its tensors lie in a {reference.kind[:80]}, which is not supported")
        itemsize = _OTHERS.get(reference.kind) or dtype_named(reference.dtype).itemsize
        nbytes, start = reference.numel * itemsize, position + _COUNT.size
        if start + nbytes > self.size or _COUNT.unpack_from(data, position)[0] != reference.numel:
            raise self.damaged(f"the storage {reference.key!r} is truncated or of another size")
        self._storages[reference.key] = Storage(f"storage {reference.key!r}", start, nbytes)
        return start + nbytes


def is_pickle(start: bytes) -> bool:
    """Tells whether a file that begins with `start` may be a pickle of protocol 2 or newer."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
