"""Numbers, ids and flags as annotation tools write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax.readers.numbers import identity, is_set, number, whole, whole_identity


@given(st.integers(-(2**60), 2**60))
def test_a_whole_number_is_one_however_it_is_written(value):
    assert whole(value) == whole(str(value)) == whole(f" {value} ") == value
    assert identity(value) == identity(str(value)) == identity(f"{value}.0") == whole_identity(value) == value
    if abs(value) < 2**53:
        assert whole(float(value)) == whole(f"{value}.0") == identity(float(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 1.5, math.nan, math.inf, [], [1], {}),
        *("", "1.5", "x1", "1_000", "0x10", "\u0661", "nan", "1e999"),
    ],
)
def test_what_is_no_whole_number(value):
    assert whole(value) is None
    assert isinstance(identity(value), str)


def test_ids_of_text_stay_text():
    assert [identity(value) for value in ("a1", "", None, [1], 1.5)] == ["a1", "", "None", "[1]", "1.5"]


@pytest.mark.parametrize(
    "text",
    ["007", "00", "-07", "+7", "1e3", "12e4", "1E3", "7.5", " 7", "7 ", "7\n", "0x7", "\u0667", "7.0.0", "9" * 500],
)
def test_ids_are_numbers_only_in_the_form_in_which_numbers_are_written(text):
    assert identity(text) == text
    assert whole_identity(text) is None


@given(st.lists(st.text("0123456789.e+- ", max_size=4), unique=True, max_size=40))
def test_ids_of_text_become_one_only_where_they_are_one_decimal(texts):
    """What Python reads as a number too, written without ornament."""
    for text in texts:
        found = identity(text)
        assert found == text or (str(found) == text.split(".")[0].replace("-0", "0") and float(text) == found)


def test_floats_that_stand_for_several_numbers_are_no_number():
    assert [identity(value) for value in (7.0, 2.0**53 - 1, 2.0**53, -1e17)] == [
        *(7, 2**53 - 1),
        *("9007199254740992.0", "-1e+17"),
    ]
    assert identity("9007199254740993") != identity("9007199254740992") != identity(2.0**53)


@pytest.mark.parametrize(("value", "expected"), [("12.5", 12.5), (7, 7.0), ("1e3", 1000.0), ("-0.5", -0.5)])
def test_numbers_may_be_text(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("value", [None, True, "", "twelve", math.nan, "inf", [1], 10**400])
def test_what_is_no_number(value):
    assert number(value) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 0.0, False, None, math.nan, "0", "0.0", "false", "False", "no", "", " FALSE ", "None"), False),
        ((1, 1.0, True, 2, "1", "1.0", "true", "TRUE", "yes"), True),
        (("perhaps", [], [0], {}), None),
    ],
)
def test_flags_are_numbers_bools_or_text(values, expected):
    assert [is_set(value) for value in values] == [expected] * len(values)
