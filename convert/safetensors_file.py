"""Reads `.safetensors` through the safetensors library, and writes it one tensor at a time."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from samjax.checkpoint import CheckpointError, LazyArray

from .storages import dtype_named

_DTYPES = {
    **{"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
}


def read_safetensors(path: Path) -> dict[str, LazyArray]:
    """Opens the tensors of a file; none is read yet.

    Raises:
        CheckpointError: the file is damaged: the library compares its header with its length.
    """
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (the handle is no dictionary)
                view = file.get_slice(name)
                # A type that is not supported does no harm beside the model.
                dtype = dtype_named(_DTYPES.get(view.get_dtype(), "V1"))
                tensors[name] = LazyArray(tuple(view.get_shape()), dtype, functools.partial(_read, path, name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); fetch or export it again") from None
    return tensors


def is_safetensors(path: Path) -> bool:
    """Tells whether a file begins as the format does, whatever its ending.

    The format has eight bytes of the header's length, then JSON.
    """
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the texts in a file's header.

    Raises:
        CheckpointError: the file is truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); fetch or export it again") from None


def _read(path: Path, name: str) -> np.ndarray:
    from safetensors import safe_open

    # Opened anew for each tensor: the pages of the library's memory map would otherwise stay resident.
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def write_safetensors(path: Path, tensors: Mapping[str, LazyArray], metadata: Mapping[str, str]) -> None:
    """Writes the file that the library would, but holds one tensor in memory instead of all.

    Raises:
        KeyError: the format has no code for a dtype; nothing is written.
    """
    codes = {name: code for code, name in _DTYPES.items()}
    # The library's order: wide types first, so that every tensor is aligned; then by name.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": codes[tensors[name].dtype.name],
            "shape": tensors[name].shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name].read()).reshape(-1).view(np.uint8).data)
