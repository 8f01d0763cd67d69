"""Pickles as PyTorch writes them, of tensors and of objects whose classes are not here."""

import copy
import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from samjax.convert.pickle_reader import STORAGES


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function of a module that is not installed."""

    full: str

    def __call__(self) -> None:
        raise AssertionError("it is never called")


class Built:
    """Pickles to a call of `cls(*arguments)`, then its state, items of a list and items of a dictionary."""

    def __init__(
        self, cls: str | Name, *arguments: Any, state: Any = None, elements: Any = (), items: Any = ()
    ) -> None:
        name = cls if isinstance(cls, Name) else Name(cls)
        self.reduced = (name, arguments, state, iter(elements), iter(items))

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.reduced


@dataclasses.dataclass(frozen=True)
class Storage:
    """Pickles as the storage of a tensor."""

    array: np.ndarray


class Tensor:
    """Pickles as a tensor with the numbers of an array, which is a storage of its own."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array).reshape(array.shape)

    def storage(self) -> "Storage":
        """The storage alone, for functions that make tensors of it."""
        return Storage(self.array)


def module(cls: str, parameters: Any = (), buffers: Any = (), modules: Any = (), transient: Any = ()) -> Built:
    """A `torch.nn.Module` that was pickled whole."""
    state = {
        "training": False,
        "_parameters": dict(parameters),
        "_buffers": dict(buffers),
        "_non_persistent_buffers_set": set(transient),
        "_modules": dict(modules),
    }
    return Built("copyreg._reconstructor", Name(cls), Name("builtins.object"), None, state=state)


class _Pickler(pickle._Pickler):
    dispatch = copy.copy(pickle._Pickler.dispatch)

    def __init__(self, stream: io.BytesIO, protocol: int, *, is_old: bool = False) -> None:
        super().__init__(stream, protocol)
        self.is_old = is_old
        self.storages: list[np.ndarray] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return None
        kinds = {dtype: kind for kind, dtype in STORAGES.items()}
        self.storages.append(value.array)
        key = str(len(self.storages) - 1)
        old = (None,) if self.is_old else ()  # views of storages, which nobody has
        return "storage", Name(kinds[value.array.dtype.name]), key, "cpu", value.array.size, *old

    def save_name(self, name: Name) -> None:
        module, _, attribute = name.full.rpartition(".")
        self.write(pickle.GLOBAL + f"{module}\n{attribute}\n".encode())
        self.memoize(name)

    def save_tensor(self, tensor: Tensor) -> None:
        array = tensor.array
        strides = tuple(stride // array.itemsize for stride in array.strides)
        arguments = (tensor.storage(), 0, array.shape, strides, False, Built("collections.OrderedDict"))
        self.save_reduce(Name("torch._utils._rebuild_tensor_v2"), arguments, obj=tensor)

    dispatch[Name] = save_name
    dispatch[Tensor] = save_tensor


def save_as_before_1_6(path: Path, content: Any) -> Path:
    """Writes what `torch.save(content, path, _use_new_zipfile_serialization=False)` would."""
    stream = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(header, stream, 2)
    pickler = _Pickler(stream, 2, is_old=True)
    pickler.dump(content)
    keys = sorted(str(key) for key in range(len(pickler.storages)))
    pickle.dump(keys, stream, 2)
    for key in keys:
        storage = pickler.storages[int(key)]
        stream.write(storage.size.to_bytes(8, "little") + storage.tobytes())
    path.write_bytes(stream.getvalue())
    return path


def save(path: Path, content: Any, protocol: int = 2) -> Path:
    """Writes what `torch.save(content, path)` would."""
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for key, array in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path
