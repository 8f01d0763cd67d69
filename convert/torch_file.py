"""PyTorch's zip checkpoints (`.pth`, `.pt`, `.bin`), read by offset and written by hand; PyTorch is not needed.

The archive holds `NAME/data.pkl` (a pickle of the containers) and `NAME/data/KEY` (the bytes of one storage each,
uncompressed), see torch/csrc/jit/serialization and torch/serialization.py.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

from samjax.checkpoint import CheckpointError, LazyArray

from .pickle_reader import MAX_BYTES, STORAGES, TensorReference, read_pickle

_CHUNK = 8 << 20  # bytes read at once
_MAX_ENTRIES = 100_000
_MAX_DEPTH = 4  # of dictionaries within dictionaries
_ALIGNMENT = 64  # PyTorch aligns every storage, so that it can be mapped into memory
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def dtype_named(name: str) -> np.dtype:
    """numpy's dtype, which does not know bfloat16 by name."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def read_torch(path: Path) -> Any:
    """What `torch.load` would give, with a `LazyArray` for every tensor.

    Raises `CheckpointError` where the archive is damaged, compressed, or holds more than tensors and containers.
    """
    archive = _Archive(path)
    return archive.resolve(read_pickle(archive.read("data.pkl"), str(path)))


class _Archive:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
            raise CheckpointError(f"{path} is truncated or damaged ({error}); fetch it again") from None
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) != len(entries) or len(entries) > _MAX_ENTRIES:
            raise self.damaged("its archive lists a file twice, or absurdly many")
        if any(name.endswith("/constants.pkl") for name in self.entries):
            raise CheckpointError(f"{path} is a TorchScript program; save its state_dict() with torch.save instead")
        roots = [name.removesuffix("data.pkl") for name in self.entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{path} is a zip archive, but not one by torch.save: it holds no data.pkl")
        self.root = roots[0]
        self.size = path.stat().st_size
        self._starts: dict[str, int] = {}
        self._verified: set[str] = set()
        if f"{self.root}byteorder" in self.entries and self.read("byteorder") != b"little":
            raise CheckpointError(f"{path} was saved on a big-endian machine, which is not supported")

    def damaged(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem[:300]}; the file is damaged, fetch it again")

    def start(self, entry: zipfile.ZipInfo) -> int:
        """The offset of an entry's bytes, which must lie in the file as they are."""
        if entry.filename in self._starts:
            return self._starts[entry.filename]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise CheckpointError(
                f"{self.path}: {entry.filename!r} is compressed or encrypted; torch.save does neither"
            )
        with self.path.open("rb") as file:
            file.seek(min(max(entry.header_offset, 0), self.size))
            header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise self.damaged(f"{entry.filename!r} is not where the archive says")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + entry.file_size > self.size:
            raise self.damaged(f"{entry.filename!r} reaches beyond the end of the file")
        self._starts[entry.filename] = start
        return start

    def read(self, name: str) -> bytes:
        """A whole entry, of those that are small."""
        entry = self.entries[self.root + name]
        start = self.start(entry)
        if entry.file_size > MAX_BYTES:
            raise self.damaged(
                f"{entry.filename!r} has {entry.file_size} bytes, a state dict needs less than {MAX_BYTES}"
            )
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(entry.file_size)
        self.check(entry, zlib.crc32(data))
        return data

    def check(self, entry: zipfile.ZipInfo, crc: int) -> None:
        # torch.serialization.set_crc32_options(False) writes 0 everywhere: no checksum was recorded.
        if entry.CRC not in (0, crc):
            raise self.damaged(f"the checksum of {entry.filename!r} differs")

    def verify(self, entry: zipfile.ZipInfo, start: int) -> None:
        """Compares the checksum of an entry once, however many tensors are views of it."""
        if entry.filename in self._verified:
            return
        crc = 0
        with self.path.open("rb") as file:
            file.seek(start)
            for position in range(0, entry.file_size, _CHUNK):
                crc = zlib.crc32(file.read(min(_CHUNK, entry.file_size - position)), crc)
        self.check(entry, crc)
        self._verified.add(entry.filename)

    def tensor(self, reference: TensorReference) -> LazyArray:
        """Compares a view with the storage it claims to lie in; nothing is read yet."""
        storage, shape = reference.storage, reference.shape
        dtype = dtype_named(storage.dtype)
        entry = self.entries.get(f"{self.root}data/{storage.key}")
        if entry is None:
            raise self.damaged(f"the storage {storage.key!r} of a tensor is missing")
        if storage.numel * dtype.itemsize != entry.file_size:
            raise self.damaged(f"{entry.filename!r} has {entry.file_size} bytes for {storage.numel} of {dtype.name}")
        if _last(reference) >= storage.numel:
            raise self.damaged(f"a tensor of shape {shape} reaches beyond its storage {entry.filename!r}")
        if math.prod(shape) * dtype.itemsize > max(self.size, 1 << 20):  # expanded, by strides of 0
            raise self.damaged(f"a tensor of shape {shape} is larger than the whole file")
        start = self.start(entry)
        return LazyArray(shape, dtype, lambda: self.load(reference, dtype, entry, start))

    def load(self, reference: TensorReference, dtype: np.dtype, entry: zipfile.ZipInfo, start: int) -> np.ndarray:
        """Reads the range of the storage that a view covers, then lays the view out in C order."""
        if 0 in reference.shape:
            return np.zeros(reference.shape, dtype)
        raw = np.empty((_last(reference) - reference.offset + 1) * dtype.itemsize, np.uint8)
        with self.path.open("rb") as file:
            file.seek(start + reference.offset * dtype.itemsize)
            if file.readinto(raw) != raw.nbytes:
                raise self.damaged(f"{entry.filename!r} ends too early")
        if raw.nbytes == entry.file_size:
            self.check(entry, zlib.crc32(raw))
        else:
            self.verify(entry, start)
        strides = [stride * dtype.itemsize for stride in reference.strides]
        return np.ascontiguousarray(as_strided(raw.view(dtype), reference.shape, strides)).reshape(reference.shape)

    def resolve(self, value: Any) -> Any:
        """Puts a `LazyArray` in the place of each tensor in nested dictionaries; what lies elsewhere is not needed."""
        resolved: dict[int, Any] = {}  # by identity: dictionaries may share others, or contain themselves

        def visit(inner: Any, depth: int) -> Any:
            if isinstance(inner, TensorReference):
                return self.tensor(inner)
            if not isinstance(inner, dict) or depth == _MAX_DEPTH:
                return inner
            if id(inner) not in resolved:
                resolved[id(inner)] = None
                resolved[id(inner)] = {key: visit(item, depth + 1) for key, item in inner.items()}
            return resolved[id(inner)]

        return visit(value, 0)


def _last(reference: TensorReference) -> int:
    """The last element of its storage that a view touches."""
    if 0 in reference.shape:
        return -1
    spans = (stride * (side - 1) for side, stride in zip(reference.shape, reference.strides, strict=True))
    return reference.offset + sum(spans)


def write_torch(path: Path, tensors: Mapping[str, LazyArray]) -> None:
    """Writes what `torch.save(OrderedDict(tensors), path)` would, one tensor at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", _pickle(tensors))
        _write_entry(archive, "byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            data = np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8)
            _write_entry(archive, f"data/{key}", data.data)
        _write_entry(archive, "version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(f"archive/{name}")  # a fixed date: equal parameters give equal files
    start = archive.start_dir + _LOCAL_HEADER.size + len(entry.filename)
    padding = -(start + 4) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as PyTorch pads
    archive.writestr(entry, data)


def _pickle(tensors: Mapping[str, LazyArray]) -> bytes:
    """An OrderedDict of tensors in protocol 2, as `torch.save` writes it."""
    kinds = {dtype: storage.removeprefix("torch.") for storage, dtype in STORAGES.items()}
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    stream = [b"\x80\x02", ordered_dict, b"("]
    for key, (name, tensor) in enumerate(tensors.items()):
        strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
        stream += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{kinds[tensor.dtype.name]}\n".encode(),
            _text(str(key)),
            _text("cpu"),
            _number(tensor.size),
            b"tQ",  # the storage, by persistent id
            _number(0),
            *[b"(", *map(_number, tensor.shape), b"t"],
            *[b"(", *map(_number, strides), b"t"],
            b"\x89",  # requires_grad
            ordered_dict,  # hooks
            b"tR",
        ]
    return b"".join([*stream, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + data
