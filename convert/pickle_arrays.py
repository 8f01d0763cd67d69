"""Recognises NumPy arrays among the objects of a pickle that are not built, and reads them when needed."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import ml_dtypes
import numpy as np

from samjax.checkpoint import CheckpointError, LazyArray

from .pickle_opcodes import Extent
from .pickle_reader import MAX_RANK, Global, Opaque

_CODES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}
_FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayReference:
    """A NumPy array whose bytes are in memory or still in the pickle."""

    shape: tuple[int, ...]
    dtype: np.dtype  # with its byte order
    order: Literal["C", "F"]
    content: bytes | str | Extent  # each character of a text is one byte


def as_array(value: Any) -> ArrayReference | None:
    """Returns the array that an `Opaque` stands for; None if it is none, or one of objects or records."""
    if not isinstance(value, Opaque):
        return None
    if value.name in _FROM_BUFFER and len(value.arguments) == 4:
        content, dtype, shape, order = value.arguments
    elif value.name in _RECONSTRUCT and value.states and _is_plain(value.arguments):
        if not isinstance(value.states[0], tuple) or len(value.states[0]) != 5:
            return None
        _, shape, dtype, in_fortran_order, content = value.states[0]
        order = "F" if in_fortran_order else "C"
    else:
        return None
    found, content = _dtype(dtype), _bytes(content)
    if found is None or content is None or order not in ("C", "F") or not isinstance(shape, tuple):
        return None
    if len(shape) > MAX_RANK or not all(type(side) is int and 0 <= side < 1 << 62 for side in shape):
        return None
    return ArrayReference(shape, found, order, content)


def open_array(reference: ArrayReference, source: str, read: Callable[[int, int], bytes]) -> LazyArray:
    """Opens an array, which is read later; the result is in C order and native byte order.

    Args:
        reference: the result of `as_array`.
        source: the file, named in errors.
        read: (start, size) to the bytes of the file that the pickle's buffer has there.

    Raises:
        CheckpointError: here or when it is read; the number of bytes does not fit the shape.
    """
    size = math.prod(reference.shape) * reference.dtype.itemsize
    content = reference.content

    def problem(found: int) -> CheckpointError:
        return CheckpointError(
            f"{source}: an array of shape {reference.shape} has {found} bytes for {size}; the file is damaged, "
            "fetch it again"
        )

    # Text is UTF-8 in the file, in which a byte above 127 takes two.
    least, most = (content.size // 2, content.size) if isinstance(content, Extent) else (len(content), len(content))
    if isinstance(content, Extent) and not content.is_text:
        least = most
    if not least <= size <= most:
        raise problem(most)

    def load() -> np.ndarray:
        data = content
        if isinstance(data, Extent):
            raw = read(data.start, data.size)
            data = raw.decode("utf-8", "replace") if data.is_text else raw
        if isinstance(data, str):
            data = data.encode("latin-1", "replace")
        if len(data) != size:
            raise problem(len(data))
        array = np.frombuffer(data, reference.dtype).reshape(reference.shape, order=reference.order)
        return np.array(array, reference.dtype.newbyteorder("="), order="C")

    return LazyArray(reference.shape, reference.dtype.newbyteorder("="), load)


def _is_plain(arguments: tuple[Any, ...]) -> bool:
    """Tells whether `_reconstruct` makes an array of no subclass."""
    return bool(arguments) and arguments[0] == Global("numpy.ndarray")


def _dtype(value: Any) -> np.dtype | None:
    if not isinstance(value, Opaque) or value.name != "numpy.dtype" or not value.arguments:
        return None
    code, *_ = value.arguments
    if code == Global("ml_dtypes.bfloat16"):
        return np.dtype(ml_dtypes.bfloat16)
    order = value.states[0][1] if value.states and isinstance(value.states[0], tuple) and value.states[0][1:] else "="
    if not isinstance(code, str) or code not in _CODES or order not in ("<", ">", "=", "|"):
        return None
    return np.dtype(code).newbyteorder("=" if order == "|" else order)


def _bytes(value: Any) -> bytes | str | Extent | None:
    """Returns the value that holds an array's bytes; before protocol 3 it is a text to be encoded."""
    if isinstance(value, Opaque) and value.name == "_codecs.encode" and len(value.arguments) == 2:
        value, encoding = value.arguments
        return value if encoding == "latin1" and (isinstance(value, str) or _is_text(value)) else None
    if isinstance(value, str):  # Python 2's bytes
        return value
    return value if isinstance(value, bytes) or (isinstance(value, Extent) and not value.is_text) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, Extent) and value.is_text
