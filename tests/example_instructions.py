"""Pickles written instruction by instruction, as no pickler would."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path


def zipped(
    path: Path,
    data: bytes,
    *,
    name: str = "archive/data.pkl",
    others: Sequence[tuple[str, bytes]] = (),
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Writes a zip archive like PyTorch's."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, data)
        for other, content in others:
            archive.writestr(other, content)
    return path


def text(value: str) -> bytes:
    """Pushes a text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Pushes a storage of four numbers.
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"


def tensor(
    shape: bytes = b"K\x04\x85", strides: bytes = b"K\x01\x85", offset: bytes = b"K\x00", storage: bytes = STORAGE
) -> bytes:
    """Pushes a tensor, by default the whole storage."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + b"\x89}tR"
