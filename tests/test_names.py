"""Whatever a file is called, its name can be printed and written into JSON."""

import io
import os
import sys
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax.names import portable, print_anything, printable


@given(st.binary(min_size=1).filter(lambda name: b"%" not in name))
def test_a_portable_name_is_utf8_and_names_the_file(name):
    text = portable(os.fsdecode(name))
    text.encode("utf-8")
    assert os.fsencode(urllib.parse.unquote(text, errors="surrogateescape")) == name


@pytest.mark.parametrize("name", ["plain.jpg", "caf\xe9 \u65e5\u672c.png", "a%20b\n.png"])
def test_a_portable_name_is_the_name_where_that_is_text(name):
    assert portable(name) == name
    assert portable(name.encode().decode("ascii", "surrogateescape")) == name  # as names come where LANG is C


def test_surrogates_that_are_no_bytes_are_replaced():
    assert portable("a\ud800\udce9.png") == "a?%E9.png"


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("caf\xe9 \u65e5\u672c\u3000\U0001f469\u200d\U0001f4bb.png",) * 2,
        ("caf\udce9.png", r"caf\udce9.png"),
        ("\x1b[31mred\x07\x9b.png", r"\x1b[31mred\x07\x9b.png"),
        ("two\nlines\r\u2028.png", r"two\nlines\r\u2028.png"),
        ("gpj\u202e.exe", r"gpj\u202e.exe"),
    ],
)
def test_what_steers_a_terminal_is_escaped(name, printed):
    assert printable(name) == printed
    assert printable(printed) == printed


def test_lines_of_a_message_may_stay():
    assert printable("one:\n  two\x1b", keep="\n") == "one:\n  two\\x1b"


def test_anything_is_printed_on_any_terminal(monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    print_anything()
    for stream in streams.values():
        print("caf\xe9 \udce9", end="", file=stream, flush=True)
        assert stream.buffer.getvalue() == rb"caf\xe9 \udce9"
