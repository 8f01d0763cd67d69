"""Writes PyTorch's zip checkpoints as `torch.save` does; PyTorch is not needed."""

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from samjax.checkpoint import LazyArray

from .pickle_reader import STORAGES

_ALIGNMENT = 64  # PyTorch aligns every storage, so that it can be mapped into memory
_LOCAL_HEADER_SIZE = 30  # bytes


def write_torch(path: Path, tensors: Mapping[str, LazyArray]) -> None:
    """Writes the file that `torch.save(OrderedDict(tensors), path)` would, one tensor at a time.

    Args:
        path: the file to make.
        tensors: by name, in PyTorch's layout; of the dtypes in `pickle_reader.STORAGES`.

    Raises:
        KeyError: a tensor is of another dtype.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", _pickle(tensors))
        _write_entry(archive, "byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            data = np.ascontiguousarray(tensor.read()).reshape(-1).view(np.uint8)
            _write_entry(archive, f"data/{key}", data.data)
        _write_entry(archive, "version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(f"archive/{name}")  # a fixed date: equal parameters give equal files
    start = archive.start_dir + _LOCAL_HEADER_SIZE + len(entry.filename)
    padding = -(start + 4) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as PyTorch pads
    archive.writestr(entry, data)


def _pickle(tensors: Mapping[str, LazyArray]) -> bytes:
    """Pickles an OrderedDict of tensors in protocol 2, as `torch.save` does."""
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
