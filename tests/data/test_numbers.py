"""Numbers, ids and flags as annotation tools write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax.data.numbers import identity, is_set, number, whole


@given(st.integers(-(2**60), 2**60))
def test_a_whole_number_is_one_however_it_is_written(value):
    assert whole(value) == whole(str(value)) == whole(f" {value} ") == identity(str(value)) == value
    if abs(value) <= 2**53:
        assert (
            whole(float(value)) == whole(f"{value}.0") == whole(repr(float(value))) == identity(float(value)) == value
        )


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
