"""Reads the pickle inside a PyTorch checkpoint; it can build tensors and containers and nothing else.

A subclass of `pickle.Unpickler` still obeys every opcode of a hostile file: a filtered `find_class` leaves BUILD, memo
indices in the billions and hashes of nested tuples to the file's author. This machine knows the opcodes that
`torch.save` emits and a fixed table of functions; a global is a name that is never looked up, imported or called. An
object of any other class becomes an `Opaque`: the name of its class and the plain data that the file has for it.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from samjax.checkpoint import CheckpointError

from .pickle_opcodes import CODES, ROW, Buffer, PickleError, instructions

MAX_MEMORY = 1 << 30  # bytes, estimated, of everything that is built
MAX_RANK = 16  # axes of a tensor
_MAX_STACK = 1 << 24  # values; only a long tuple needs more than a thousand

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


@dataclasses.dataclass(frozen=True, slots=True)
class StorageReference:
    """The storage `key` of the file: `numel` numbers of the type that `kind` names."""

    key: str
    kind: str  # a key of `STORAGES`, or the class of an unsupported type
    numel: int

    @property
    def dtype(self) -> str:
        """The name of NumPy's (or ml_dtypes') dtype.

        Raises:
            KeyError: the type is not supported.
        """
        return STORAGES[self.kind]


@dataclasses.dataclass(frozen=True, slots=True)
class TensorReference:
    """A view of a storage, measured in elements; nothing here has been compared with the file yet."""

    storage: StorageReference
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(eq=False, slots=True)
class Opaque:
    """Stands for an object that is not built or the result of a call that is not made, with the file's data for it."""

    name: str  # of its class or function
    arguments: tuple[Any, ...] = ()
    items: dict[Any, Any] | None = None  # if it is a dictionary
    elements: list[Any] | None = None  # if it is a list or a set
    states: list[Any] = dataclasses.field(default_factory=list)  # arguments of BUILD: attributes or `__setstate__`'s


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The full name of a class or function, which is never looked up."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pickle:
    """A pickle that was read."""

    value: Any  # dicts, lists, tuples, numbers, strings, None, `Extent`, `TensorReference`, `Global` and `Opaque`
    end: int  # position after it
    storages: dict[str, StorageReference]  # by key


def read_pickle(data: Buffer, source: str, start: int = 0, end: int | None = None) -> Pickle:
    """Reads one pickle.

    Args:
        data: the bytes of a file or of a part of it.
        source: named in errors.
        start: offset in `data` where the pickle begins, bytes.
        end: offset at which it must have ended; the end of `data` by default.

    Raises:
        CheckpointError: the pickle is damaged, too long, has an instruction that no checkpoint needs, refers to
            something outside of the file that is no storage, or builds more than `MAX_MEMORY`.
    """
    try:
        return _Machine(source).run(data, start, len(data) if end is None else end)
    except CheckpointError:
        raise
    except PickleError as error:
        raise _refusal(source, str(error)) from None
    except Exception as error:  # a damaged stream can fail anywhere in the machine; nothing of the file has been run
        problem = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{source}: its pickle is damaged or truncated ({problem}); fetch it again") from None


def _refusal(source: str, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: {problem}. Only tensors and plain containers are read; if you trust the file, "
        "save it again with torch.save(model.state_dict(), ...)"
    )


class _Machine:
    """The stack, marks and memo of a pickle, with a method for each instruction.

    A damaged stream may make any of them raise; `read_pickle` turns that into `CheckpointError`.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: list[Any] = []
        self.storages: dict[str, StorageReference] = {}
        self.memory = 0
        self.end = 0

    def run(self, data: Buffer, start: int, end: int) -> Pickle:
        """Obeys the instructions up to STOP. Raises ValueError unless one value and no mark is left."""
        handlers = {CODES[name]: handler for name, handler in self.handlers().items()} | {ROW: self.row}
        for code, argument in instructions(data, start, end):
            handlers[code](argument)
        (result,) = self.stack
        if self.marks:
            raise ValueError("a mark is left over")
        return Pickle(result, self.end, self.storages)

    def stop(self, position: int) -> None:
        self.end = position

    def handlers(self) -> dict[str, Callable[[Any], object]]:
        push = self.stack.append
        literals = (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING"),
        )
        return {
            **dict.fromkeys(literals, self.literal),
            "STOP": self.stop,
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), self.put),
            **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda index: push(self.memo[index])),
            **dict.fromkeys(("REDUCE", "NEWOBJ"), self.reduce),
            "MEMOIZE": lambda _: self.memo.append(self.stack[-1]),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "POP": self.pop,
            "POP_MARK": lambda _: self.pop_to_mark(),
            "DUP": lambda _: push(self.stack[-1]),
            "EMPTY_LIST": lambda _: self.push_built([], 72),
            "EMPTY_DICT": lambda _: self.push_built({}, 80),
            "EMPTY_TUPLE": lambda _: push(()),
            "EMPTY_SET": lambda _: self.push_built(Opaque("set", elements=[]), 200),
            "TUPLE1": lambda _: self.tuple(1),
            "TUPLE2": lambda _: self.tuple(2),
            "TUPLE3": lambda _: self.tuple(3),
            "TUPLE": lambda _: self.push_built(tuple(self.pop_to_mark()), 64),
            "LIST": lambda _: self.push_built(self.pop_to_mark(), 72),
            "DICT": self.dict,
            "FROZENSET": lambda _: self.push_built(Opaque("frozenset", elements=self.pop_to_mark()), 200),
            "APPEND": lambda _: self.extend([self.stack.pop()]),
            "APPENDS": lambda _: self.extend(self.pop_to_mark()),
            "ADDITEMS": lambda _: self.extend(self.pop_to_mark()),
            "SETITEM": lambda _: self.update([self.stack.pop(), self.stack.pop()][::-1]),
            "SETITEMS": lambda _: self.update(self.pop_to_mark()),
            "GLOBAL": lambda name: self.push_built(Global(name), 100),
            "STACK_GLOBAL": self.stack_global,
            "INST": lambda name: self.push_built(self.call(Global(name), tuple(self.pop_to_mark())), 200),
            "OBJ": self.object,
            "NEWOBJ_EX": self.new_with_keywords,
            "BINPERSID": lambda _: self.push_built(self.persistent(self.stack.pop()), 150),
            "BUILD": self.build,
        }

    def push_built(self, value: Any, size: int) -> None:
        """Pushes a value of about `size` bytes. Raises `CheckpointError` beyond `MAX_MEMORY` or `_MAX_STACK`."""
        self.memory += size
        if self.memory > MAX_MEMORY or len(self.stack) > _MAX_STACK:
            raise _refusal(self.source, f"what its pickle builds takes more than {MAX_MEMORY >> 30} GB of memory")
        self.stack.append(value)

    def literal(self, value: Any) -> None:
        self.memory += 36 if type(value) in (int, float) else 60 + len(value) if isinstance(value, str | bytes) else 100
        self.stack.append(value)

    def row(self, values: list[Any]) -> None:
        self.push_built(None, 40 * len(values))
        self.stack[-1:] = values

    def put(self, index: int) -> None:
        """Keeps the top of the stack in the memo. Raises ValueError if the index skips more than one."""
        if index < len(self.memo):
            self.memo[index] = self.stack[-1]
        elif index <= len(self.memo) + 1:  # picklers count from 0, Python 2's from 1
            self.memo += [self.stack[-1]] * (index + 1 - len(self.memo))
        else:
            raise ValueError(f"the memo's index {index} follows {len(self.memo) - 1}")

    def pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def tuple(self, size: int) -> None:
        """Replaces the last `size` values by a tuple of them. Raises ValueError if there are fewer."""
        items = tuple(self.stack[-size:])
        if len(items) < size:
            raise ValueError("a tuple of an empty stack")
        del self.stack[-size:]
        self.push_built(items, 64 + 8 * size)

    def dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.push_built({}, 80)
        self.update(items)

    def extend(self, items: list[Any]) -> None:
        """Appends items to the list or `Opaque` on top of the stack. Raises TypeError if it is neither."""
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.elements = target = [] if target.elements is None else target.elements
        if not isinstance(target, list):
            raise TypeError("items for something that is no list")
        target += items

    def update(self, items: list[Any]) -> None:
        """Adds items, keys and values in turn, to the dictionary or `Opaque` on top of the stack.

        Raises TypeError if it is neither, and ValueError for a key without a value.
        """
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.items = target = {} if target.items is None else target.items
        if not isinstance(target, dict):
            raise TypeError("items for something that is no dictionary")
        self.memory += 40 * len(items)
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def stack_global(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.push_built(Global(f"{module:s}.{attribute:s}"), 200)

    def object(self, _: Any) -> None:
        function, *arguments = self.pop_to_mark()
        self.push_built(self.call(function, tuple(arguments)), 200)

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.push_built(self.call(function, arguments), 200)

    def new_with_keywords(self, _: Any) -> None:
        """Pushes the `Opaque` of an object made with keywords. Raises TypeError unless a class gets a tuple."""
        keywords, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("an object of something that is no class")
        self.push_built(Opaque(function.name, (*arguments, keywords)), 200)

    def build(self, _: Any) -> None:
        """Notes an object's attributes. Raises TypeError for a value that is no `Opaque` and no dictionary."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Opaque):
            target.states += state if isinstance(state, tuple) and _is_pair_of_dicts(state) else [state]
            self.memory += 16
        elif not isinstance(target, dict):  # an OrderedDict's attributes (`_metadata`) are not needed
            raise TypeError("attributes of something that has none")

    def persistent(self, identity: Any) -> Any:
        """Resolves a reference outside of the pickle: a storage, or in the old format the source code of a class.

        Raises `CheckpointError` for anything else, and TypeError for a storage of an impossible size.
        """
        kind, cls, *others = identity
        if kind == "module" and isinstance(cls, Global):
            return cls
        key, _, numel, *view = others
        if kind != "storage" or not isinstance(cls, Global) or not isinstance(key, str) or view not in ([], [None]):
            raise _refusal(self.source, "it refers to something outside of the file that is no tensor storage")
        if not _is_count(numel):
            raise TypeError("a storage has an impossible size")
        return self.storages.setdefault(key, StorageReference(key, cls.name, numel))

    def call(self, function: Any, arguments: Any) -> Any:
        """Returns the result of one of `_CALLS`, an `Opaque` for any other function.

        Raises TypeError if the function is none or the arguments are no tuple, and what one of `_CALLS` raises.
        """
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are no tuple")
        if isinstance(function, Opaque):  # the result of a call that was not made
            return Opaque(function.name, (function, *arguments))
        if not isinstance(function, Global):
            raise TypeError("a call of something that is no function")
        if function.name in _CALLS:
            return _CALLS[function.name](*arguments)
        return Opaque(_object_name(function.name, arguments), arguments)


def _key(key: Any) -> Any:
    """Keeps a text, which Python hashes with a secret; replaces anything else by an object, hashed by identity.

    A file's author could otherwise choose numbers, or tuples, that all have the same hash.
    """
    return key if isinstance(key, str | Opaque) else Opaque(str(key) if isinstance(key, int) else type(key).__name__)


def _is_pair_of_dicts(state: tuple[Any, ...]) -> bool:
    """Tells whether this is the state of a class with `__slots__`."""
    return len(state) == 2 and all(isinstance(part, dict | None) for part in state)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> TensorReference | Opaque:
    """Rebuilds a tensor from (storage, offset, shape, strides, requires_grad, hooks, metadata).

    Raises TypeError if these are of the wrong types, or the shape is impossible.
    """
    if not isinstance(storage, StorageReference) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor is not described by a storage, a shape and strides")
    if len(shape) != len(strides) or len(shape) > MAX_RANK or not all(map(_is_count, (offset, *shape, *strides))):
        raise TypeError("a tensor has an impossible shape")
    if storage.kind not in STORAGES:
        return Opaque(f"tensor in a {storage.kind}")
    if others[2:] and others[2]:  # a lazy negation or conjugation of what the storage holds
        return Opaque("tensor that is to be negated")
    return TensorReference(storage, offset, shape, strides)


def _tensor_of_new_type(*arguments: Any) -> Opaque:
    """Stands for a tensor of a type without a storage class (unsigned integers, 8-bit floats)."""
    dtype = next((argument for argument in arguments[6:7] if isinstance(argument, Global)), Global("torch.Tensor"))
    return Opaque(f"tensor of {dtype.name}")


def _parameter(tensor: Any, *_: Any) -> TensorReference | Opaque:
    """Returns the tensor of a `torch.nn.Parameter`. Raises TypeError if there is none."""
    if not isinstance(tensor, TensorReference | Opaque):
        raise TypeError("a parameter holds no tensor")
    return tensor


def _subclass(function: Any, kind: Any, arguments: Any, *_: Any) -> TensorReference | Opaque:
    """Rebuilds a tensor with Python attributes from (rebuild function, class, its arguments, attributes)."""
    rebuild = _TENSORS.get(function.name) if isinstance(function, Global) else None
    if rebuild is None or not isinstance(arguments, tuple):
        return Opaque(kind.name if isinstance(kind, Global) else "torch.Tensor")
    return rebuild(*arguments)


_TENSORS: dict[str, Callable[..., TensorReference | Opaque]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_new_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    # Its items follow as SETITEMS, except that Python 2 gives pairs.
    "collections.OrderedDict": lambda pairs=(): {_key(key): value for key, value in pairs},
    "torch.Size": lambda sizes: tuple(itertools.islice(sizes, MAX_RANK + 1)),
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._tensor._rebuild_from_type": _subclass,
}
# Functions whose first argument is the class of the object that they would make.
_MAKERS = {
    *(f"{module}.{name}" for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")),
    *(f"{module}.__newobj_ex__" for module in ("copyreg", "copy_reg")),
    *("builtins.getattr", "__builtin__.getattr"),
}


def _object_name(function: str, arguments: tuple[Any, ...]) -> str:
    if function in _MAKERS and arguments and isinstance(arguments[0], Global):
        return arguments[0].name
    return function
