"""Names of files as text that a terminal can print and any program can read, whatever bytes they consist of.

Python stands for a name's bytes that are no UTF-8 by lone surrogates, which neither terminals nor strict readers of
JSON take.
"""

import contextlib
import io
import sys
import unicodedata
from pathlib import Path

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control characters, reversed writing, surrogates, ends of lines
_JOINERS = "\u200c\u200d"  # of Persian words and of emoji


def printable(text: str | Path, keep: str = "") -> str:
    """Text without characters that steer a terminal: they are written as Python writes them, \\x1b or \\udce9.

    `keep` has those that stay, such as the line ends of a message of several lines.
    """
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def portable(name: str | Path) -> str:
    """A name for files that other programs read: bytes that are no UTF-8 are written as URLs write them, %E9.

    `urllib.parse.unquote(name, errors="surrogateescape")` is the file's name again.
    """
    text = str(name)
    with contextlib.suppress(UnicodeEncodeError):  # UTF-8 after all, where the locale says that names are ASCII
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    # Python writes byte XX as the code point U+DCXX. Other surrogates are no bytes.
    text = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
    return text.encode("utf-8", "replace").decode()


def print_anything() -> None:
    """Makes standard output and error escape what their encoding lacks, instead of raising UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
