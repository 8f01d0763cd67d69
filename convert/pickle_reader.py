"""Reads the pickle inside a PyTorch checkpoint, and can build tensors and containers and nothing else.

A subclass of `pickle.Unpickler` still obeys every opcode: a filtered `find_class` leaves BUILD, memo indices in the
billions and hashes of nested tuples to the file's author. This machine knows the opcodes that `torch.save` emits; a
global is a key of a closed table and is never looked up, imported or called.
"""

import dataclasses
import itertools
import pickletools
from collections.abc import Callable
from typing import Any

from samjax.checkpoint import CheckpointError

MAX_BYTES = 64 << 20  # of the pickle; tensors lie outside of it, ViT-H needs 60 kB
MAX_OPCODES = 200_000  # about a third of a second; ViT-H needs 20 thousand, with an optimizer 80 thousand
MAX_RANK = 16  # axes of a tensor

# Storage class → dtype name (numpy's, or ml_dtypes').
STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
_MARK = object()


@dataclasses.dataclass(frozen=True, slots=True)
class StorageReference:
    """Where a tensor's numbers lie: the archive entry `data/KEY`, as `numel` numbers of `dtype`."""

    key: str
    dtype: str
    numel: int


@dataclasses.dataclass(frozen=True, slots=True)
class TensorReference:
    """A view of a storage, all in elements; nothing here has been compared with the file yet."""

    storage: StorageReference
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Ignored:
    """Something harmless beside the state dict that nobody needs (a device, a numpy scalar, parsed arguments)."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Global:
    name: str


def read_pickle(data: bytes, source: str) -> Any:
    """The object in `data`: dicts, lists, tuples, numbers, strings, None, `TensorReference` and `Ignored`.

    Raises `CheckpointError` naming `source` for anything else.
    """
    try:
        return _Machine(source).run(data)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged stream can fail anywhere in the machine; nothing of the file has been run
        problem = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{source}: its pickle is damaged or truncated ({problem}); fetch it again") from None


class _Machine:
    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        stack = self.stack
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise self.refusal(f"its pickle has more than {MAX_OPCODES} instructions")
            name = opcode.name
            match name:
                case "STOP":
                    (result,) = stack
                    return result
                case "PROTO" | "FRAME":
                    pass
                case "MARK":
                    stack.append(_MARK)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "INT" | "LONG" | "BINFLOAT" | "FLOAT":
                    stack.append(argument)
                case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE":
                    stack.append(argument)
                case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8" | "BINSTRING" | "SHORT_BINSTRING":
                    stack.append(argument)
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_TUPLE":
                    stack.append(())
                case "EMPTY_SET":
                    stack.append(Ignored("set"))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    size = int(name[-1])
                    items = tuple(stack[len(stack) - size :])
                    del stack[len(stack) - size :]
                    stack.append(items)
                case "TUPLE":
                    stack.append(tuple(self.pop_to_mark()))
                case "LIST":
                    stack.append(self.pop_to_mark())
                case "FROZENSET":
                    self.pop_to_mark()
                    stack.append(Ignored("frozenset"))
                case "APPEND":
                    self.extend([stack.pop()])
                case "APPENDS":
                    self.extend(self.pop_to_mark())
                case "ADDITEMS":
                    self.pop_to_mark()
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    self.update([key, value])
                case "SETITEMS":
                    self.update(self.pop_to_mark())
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    self.memo[int(argument)] = stack[-1]
                case "MEMOIZE":
                    self.memo[len(self.memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET" | "GET":
                    stack.append(self.memo[int(argument)])
                case "GLOBAL":
                    stack.append(self.known(argument.replace(" ", ".")))
                case "STACK_GLOBAL":
                    attribute, module = stack.pop(), stack.pop()
                    stack.append(self.known(f"{module:s}.{attribute:s}"))
                case "BINPERSID":
                    stack.append(self.storage(stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(self.call(function, arguments))
                case "BUILD":
                    # The state: `_metadata` of an OrderedDict, attributes of an ignored object. Neither is needed.
                    stack.pop()
                    if not isinstance(stack[-1], dict | Ignored):
                        raise self.refusal("its pickle sets attributes of something that has none")
                case _:
                    raise self.refusal(f"its pickle uses the instruction {name}, which no state dict needs")
        raise self.refusal("its pickle ends without STOP")

    def refusal(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: {problem}. Only tensors and plain containers are read; where you trust the file, "
            "re-save it with torch.save(model.state_dict(), ...)"
        )

    def pop_to_mark(self) -> list[Any]:
        start = next(i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Ignored):
            list.extend(self.stack[-1], items)

    def update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not all(isinstance(key, str | int | float | bool | None) for key in keys):
            raise self.refusal("a dictionary in it has a key that is neither text nor a number")
        if not isinstance(self.stack[-1], Ignored):
            dict.update(self.stack[-1], zip(keys, values, strict=True))

    def known(self, name: str) -> _Global:
        if name not in _CALLS and name not in STORAGES and name not in _IGNORED and name not in _DTYPES:
            raise self.refusal(f"it holds an object of the unknown kind {name[:200]!r}")
        return _Global(name)

    def storage(self, identity: Any) -> StorageReference:
        kind, storage, key, _, numel = identity
        if kind != "storage" or not isinstance(storage, _Global) or not isinstance(key, str) or not _is_count(numel):
            raise self.refusal("it refers to something outside of the file that is no tensor storage")
        if storage.name not in STORAGES:
            raise self.refusal(f"its tensors lie in a {storage.name}, which is not supported")
        return StorageReference(key, STORAGES[storage.name], numel)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise self.refusal("its pickle calls something that is no function")
        if function.name in _IGNORED:
            return Ignored(function.name)
        if function.name not in _CALLS:
            raise self.refusal(f"its pickle calls {function.name}, which is no function")
        return _CALLS[function.name](*arguments)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorReference:
    if not isinstance(storage, StorageReference) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor is not described by a storage, a shape and strides")
    if len(shape) != len(strides) or len(shape) > MAX_RANK or not all(map(_is_count, (offset, *shape, *strides))):
        raise TypeError("a tensor has an impossible shape")
    return TensorReference(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> TensorReference:
    if not isinstance(tensor, TensorReference):
        raise TypeError("a parameter holds no tensor")
    return tensor


def _subclass(function: Any, _kind: Any, arguments: Any, _state: Any) -> TensorReference:
    """A tensor that carries Python attributes: (rebuild function, class, its arguments, attributes)."""
    if function != _Global("torch._utils._rebuild_tensor_v2"):
        raise TypeError("a subclass of tensor with a rebuild function of its own")
    return _tensor(*arguments)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},  # its items follow as SETITEMS
    "torch.Size": lambda sizes: tuple(itertools.islice(sizes, MAX_RANK + 1)),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}
_DTYPES = {f"torch.{name}" for name in [*STORAGES.values(), "half", "float", "double", "short", "int", "long"]}
# Ordinary company of a state dict in training checkpoints. Calling one gives `Ignored`: no code stands behind the name.
_IGNORED = {
    "_codecs.encode",
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "datetime.datetime",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "list", "dict", "int", "float")),
}
