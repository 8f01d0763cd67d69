"""Reads PyTorch's zip checkpoints (`.pth`, `.pt`, `.bin`) by offset; PyTorch is not needed.

The archive holds `NAME/data.pkl` (a pickle of the containers) and `NAME/data/KEY` (the bytes of one storage each,
uncompressed), see torch/csrc/jit/serialization and torch/serialization.py.
"""

import mmap
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from samjax.checkpoint import CheckpointError

from .pickle_reader import read_pickle
from .storages import SavedObject, Storage

_CHUNK = 8 << 20  # bytes read at once
_MAX_ENTRIES = 100_000
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class TorchArchive(SavedObject):
    """A file by `torch.save`."""

    def __init__(self, path: Path) -> None:
        """Reads the pickle.

        Raises:
            CheckpointError: the archive is damaged, compressed, big-endian, a TorchScript program or not by
                `torch.save`, or `read_pickle` refuses the pickle.
        """
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
            raise CheckpointError(f"{path} is truncated or damaged ({error}); fetch it again") from None
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries) or len(entries) > _MAX_ENTRIES:
            raise self.damaged("its archive lists a file twice, or absurdly many")
        if any(name.endswith("/constants.pkl") for name in self._entries):
            raise CheckpointError(f"{path} is a TorchScript program; save its state_dict() with torch.save instead")
        roots = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{path} is a zip archive, but not one by torch.save: it holds no data.pkl")
        self._root = roots[0]
        self.size = path.stat().st_size
        self._starts: dict[str, int] = {}
        self._verified: set[str] = set()
        if f"{self._root}byteorder" in self._entries and self._byte_order() != b"little":
            raise CheckpointError(f"{path} was saved on a big-endian machine, which is not supported")
        pickled = self._locate(f"{self._root}data.pkl")
        self.verify(pickled, None)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self.content = read_pickle(data, str(path), pickled.start, pickled.start + pickled.nbytes).value

    def storage(self, key: str) -> Storage:
        """Returns the bytes of a storage, the archive's entry data/KEY.

        Raises:
            CheckpointError: the entry is missing, damaged or compressed.
        """
        name = f"{self._root}data/{key}"
        if name not in self._entries:
            raise self.damaged(f"the storage {key!r} of a tensor is missing")
        return self._locate(name)

    def verify(self, storage: Storage, data: np.ndarray | None) -> None:
        """Compares the checksum of a storage, which is read once however many tensors are views of it.

        Raises:
            CheckpointError: it differs.
        """
        entry = self._entries[storage.label]
        if data is not None:
            crc = zlib.crc32(data.data)
        elif entry.filename in self._verified:
            return
        else:
            crc = 0
            with self.path.open("rb") as file:
                file.seek(storage.start)
                for position in range(0, storage.nbytes, _CHUNK):
                    crc = zlib.crc32(file.read(min(_CHUNK, storage.nbytes - position)), crc)
        # torch.serialization.set_crc32_options(False) writes 0 everywhere: no checksum was recorded.
        if entry.CRC not in (0, crc):
            raise self.damaged(f"the checksum of {entry.filename!r} differs")
        self._verified.add(entry.filename)

    def _byte_order(self) -> bytes:
        storage = self._locate(f"{self._root}byteorder")
        self.verify(storage, None)
        return self._read(storage.start, min(storage.nbytes, 16))

    def _locate(self, name: str) -> Storage:
        """Finds an entry's bytes, which must be in the file uncompressed.

        Raises `CheckpointError` if they are compressed, or not where the archive says.
        """
        entry = self._entries[name]
        if name in self._starts:
            return Storage(name, self._starts[name], entry.file_size)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise CheckpointError(f"{self.path}: {name!r} is compressed or encrypted; torch.save does neither")
        with self.path.open("rb") as file:
            file.seek(min(max(entry.header_offset, 0), self.size))
            header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self.damaged(f"{name!r} is not where the archive says")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + entry.file_size > self.size:
            raise self.damaged(f"{name!r} reaches beyond the end of the file")
        self._starts[name] = start
        return Storage(name, start, entry.file_size)
