"""Numbers as annotation tools write them: pandas makes ids of 1 into 1.0, spreadsheets and XML into "1"."""

import math
import re
from typing import Any

_DECIMAL = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{0,400})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# Ids as one tool writes them in text that another writes as a number; "007", "1e3" and " 7" are ids of their own.
_CANONICAL = re.compile(r"(-?(?:0|[1-9][0-9]{0,399}))(?:\.0{0,400})?", re.ASCII)
_EXACT = 2**53  # from here on floats stand for several whole numbers
_NO = frozenset({"", "0", "false", "f", "no", "n", "none", "null", "nan"})
_YES = frozenset({"1", "true", "t", "yes", "y"})


def whole(value: Any) -> int | None:
    """The whole number that a value is, however it is written: 7, 7.0, "7", "7.0"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        text = value.strip()
        if not _DECIMAL.fullmatch(text):
            return None
        if text.lstrip("+-").isdigit():  # exact, which floats above 2^53 are not
            return int(text)
        value = float(text)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return None


def number(value: Any) -> float | None:
    """The finite number that a value is, as a number or as text; None for anything else."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def identity(value: Any) -> int | str:
    """An id that is the same for 1, 1.0, "1" and "1.0"; other text is itself, and anything else its representation.

    Text is a number only in the form in which numbers are written: "007", "+7", "1e3" and " 7" stay text, so that no
    two ids of a file become one. Floats from 2^53 on, which stand for several whole numbers, are none of them.
    """
    if isinstance(value, str):
        found = _CANONICAL.fullmatch(value)
        return int(found[1]) if found else value
    if isinstance(value, float) and abs(value) >= _EXACT:
        return repr(value)
    found = whole(value)
    return repr(value) if found is None else found


def whole_identity(value: Any) -> int | None:
    """An `identity` that is a number; None for any other."""
    found = identity(value)
    return found if isinstance(found, int) else None


def is_set(value: Any) -> bool | None:
    """Reads a flag, written as a number, a bool or text; missing and NaN are False; None if it is neither."""
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isnan(value):
        return False
    found = number(value)
    if found is not None:
        return found != 0
    if isinstance(value, str):
        text = value.strip().lower()
        return False if text in _NO else True if text in _YES else None
    return None
