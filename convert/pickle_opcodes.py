"""Splits a pickle into its instructions, and leaves long texts and bytes in the file."""

import codecs
import dataclasses
import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Buffer = bytes | mmap.mmap

MAX_BYTES = 64 << 20  # of instructions, beside the texts and bytes that stay in the file; ViT-H needs 60 kB
MAX_INSTRUCTIONS = 20_000_000  # about six seconds; numbers in a row count as one
_LONG = 4096  # bytes; no longer text is a name
_LONGEST_LINE = 65_536  # bytes of an argument in the text formats
_ROW = 1024  # numbers read at once


class PickleError(ValueError):
    """Raised for a pickle that is too long, or has an instruction that no checkpoint needs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """A long text (in UTF-8) or long bytes that stay in the file."""

    start: int  # offset in the buffer
    size: int  # bytes
    is_text: bool


CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
NAMES = {code: name for name, code in CODES.items()}

_ARGUMENTLESS = (
    *("MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "MEMOIZE", "BINPERSID", "BUILD", "REDUCE"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_SET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET", "STACK_GLOBAL"),
    *("OBJ", "NEWOBJ", "NEWOBJ_EX"),
)
_BYTES = ("BININT1", "BINGET", "BINPUT", "PROTO")
_NUMBERS = {
    **{"BINFLOAT": ">d", "BININT": "<i", "BININT2": "<H", "LONG_BINGET": "<I", "LONG_BINPUT": "<I", "FRAME": "<Q"},
}
# Text or bytes with their length before them.
_LENGTHS = {
    **{"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"},
    **{"SHORT_BINBYTES": "<B", "BINBYTES": "<I", "BINBYTES8": "<Q", "BYTEARRAY8": "<Q"},
    **{"SHORT_BINSTRING": "<B", "BINSTRING": "<I", "LONG1": "<B", "LONG4": "<I"},
}
_READERS: dict[int, Callable[[bytes], Any]] = {
    CODES["INT"]: lambda line: {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line[:40]),
    CODES["LONG"]: lambda line: int(line[:40].rstrip(b"L")),
    CODES["FLOAT"]: float,
    CODES["STRING"]: lambda line: codecs.escape_decode(line.strip()[1:-1])[0].decode("latin-1"),
    CODES["UNICODE"]: lambda line: line.decode("raw-unicode-escape"),
    CODES["GET"]: lambda line: int(line[:20]),
    CODES["PUT"]: lambda line: int(line[:20]),
}
_TWO_LINES = {CODES["GLOBAL"], CODES["INST"]}
_TEXTS = {CODES[name] for name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")}
_STRINGS = {CODES["SHORT_BINSTRING"], CODES["BINSTRING"]}  # Python 2's, for texts and bytes alike
_LONGS = {CODES["LONG1"], CODES["LONG4"]}

_WITHOUT, _BYTE, _NUMBER, _SIZED, _LINES, _STOP = "without", "byte", "number", "sized", "lines", "stop"
_KIND_OF = {
    **dict.fromkeys(_ARGUMENTLESS, _WITHOUT),
    **dict.fromkeys(_BYTES, _BYTE),
    **dict.fromkeys(_NUMBERS, _NUMBER),
    **dict.fromkeys(_LENGTHS, _SIZED),
    **dict.fromkeys((NAMES[code] for code in (*_READERS, *_TWO_LINES)), _LINES),
    "STOP": _STOP,
}
_KINDS = [_KIND_OF.get(NAMES.get(code, "")) for code in range(256)]
_FORMS = {CODES[name]: struct.Struct(form) for name, form in (_NUMBERS | _LENGTHS).items()}
# Number instructions of which files hold millions in a row.
_ROWS = {
    **{
        CODES[name]: np.dtype([("code", "u1"), ("value", _NUMBERS[name])]) for name in ("BINFLOAT", "BININT", "BININT2")
    },
    CODES["BININT1"]: np.dtype([("code", "u1"), ("value", "u1")]),
    **{CODES[name]: np.dtype([("code", "u1")]) for name in ("NONE", "NEWTRUE", "NEWFALSE")},
}
_STEPS = [_ROWS[code].itemsize if code in _ROWS else 0 for code in range(256)]
_CONSTANTS = {CODES["NONE"]: None, CODES["NEWTRUE"]: True, CODES["NEWFALSE"]: False}
ROW = 256  # stands for the code of several numbers in a row


def instructions(data: Buffer, position: int, end: int) -> Iterator[tuple[int, Any]]:
    """Yields (code, argument) up to STOP, whose argument is the position after it.

    The argument of `ROW` is a list of numbers; long texts and bytes are `Extent`s.

    Args:
        data: the file, or a part of it.
        position: offset in `data` where the pickle begins, bytes.
        end: offset at which it must have ended.

    Raises:
        PickleError: there are more bytes or instructions than a checkpoint has, or an unknown instruction.
        IndexError, struct.error, ValueError: the pickle is damaged, or has no STOP before `end`.
    """
    budget = position + MAX_BYTES
    limit = min(end, budget)
    for _ in range(MAX_INSTRUCTIONS):
        if position >= limit:
            break
        code = data[position]
        position += 1
        step = _STEPS[code]
        if (
            step
            and position + 3 * step <= end
            and data[position + step - 1] == code == data[position + 2 * step - 1] == data[position + 3 * step - 1]
        ):  # four make a row
            values = _row(data, position - 1, end, code)
            yield ROW, values
            position += len(values) * step - 1
            continue
        kind = _KINDS[code]
        if kind is _WITHOUT:
            yield code, None
        elif kind is _BYTE:
            yield code, data[position]
            position += 1
        elif kind is _NUMBER:
            form = _FORMS[code]
            yield code, form.unpack_from(data, position)[0]
            position += form.size
        elif kind is _SIZED:
            (size,) = _FORMS[code].unpack_from(data, position)
            position += _FORMS[code].size
            if size > end - position:
                raise ValueError(f"{NAMES[code]} reaches beyond the end")
            yield code, _sized(code, data, position, size)
            position += size
            if size > _LONG:
                budget += size
                limit = min(end, budget)
        elif kind is _LINES:
            lines = []
            for _ in range(1 + (code in _TWO_LINES)):
                stop = data.find(b"\n", position, min(end, position + _LONGEST_LINE))
                if stop < 0:
                    raise ValueError(f"{NAMES[code]} has no end")
                lines.append(data[position:stop])
                position = stop + 1
            yield code, b".".join(lines).decode() if code in _TWO_LINES else _READERS[code](lines[0])
        elif kind is _STOP:
            yield code, position
            return
        else:
            raise PickleError(f"its pickle uses the instruction {NAMES.get(code, code)}, which no checkpoint needs")
    if position >= end:
        raise ValueError("it ends without STOP")
    raise PickleError(
        f"its pickle has more than {MAX_BYTES >> 20} MB or {MAX_INSTRUCTIONS:,} instructions beside its arrays; a "
        "state dict needs less than a thousandth of that (is there a long history beside it?)"
    )


def _row(data: Buffer, position: int, end: int, code: int) -> list[Any]:
    """Reads the arguments of an instruction that repeats from `position` on."""
    kind = _ROWS[code]
    row = np.frombuffer(data, kind, min(_ROW, (end - position) // kind.itemsize), position)
    others = row["code"] != code
    count = int(others.argmax()) if others.any() else len(row)
    return [_CONSTANTS[code]] * count if code in _CONSTANTS else row["value"][:count].tolist()


def _sized(code: int, data: Buffer, position: int, size: int) -> Any:
    """Reads a number, a text or bytes of `size` bytes; long texts and bytes stay in the file.

    Raises ValueError for a number of more than 64 bytes, and for a text that is not UTF-8.
    """
    if code in _LONGS:
        if size > 64:
            raise ValueError("a number of more than 64 bytes")
        return int.from_bytes(data[position : position + size], "little", signed=True)
    if size > _LONG:
        return Extent(position, size, code in _TEXTS)
    content = bytes(data[position : position + size])
    if code in _TEXTS:
        return content.decode("utf-8", "surrogatepass")
    return content.decode("latin-1") if code in _STRINGS else content
