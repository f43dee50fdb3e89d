from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gploss.arguments import instance, real_number, shown, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_become_ints(value: Any) -> None:
    number = whole_number("epochs", value, least=1)
    assert type(number) is int and number == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float64(3), "3", None, Decimal(3), [3]])
def test_what_is_no_whole_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"epochs must be a whole number, got .*"):
        whole_number("epochs", value, least=1)


def test_a_whole_number_below_the_least_is_named() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        whole_number("epochs", np.int8(0), least=1)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), Fraction(1), np.float64(1)])
def test_numbers_become_floats(value: Any) -> None:
    number = real_number("decay", value, least=0.0, most=1.0)
    assert type(number) is float and number == 1.0


@pytest.mark.parametrize("value", [True, np.False_, "0.5", None, 1j, Decimal(1), np.ones(1)])
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="decay must be a number, got"):
        real_number("decay", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "must be finite, got nan"),
        (np.float32("inf"), "must be finite, got"),
        (10**400, "must be finite, got 1000"),
        (-0.1, "must lie between 0 and 1, got -0.1"),
        (1.1, "must lie between 0 and 1, got 1.1"),
    ],
)
def test_a_number_out_of_range_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"decay {message}"):
        real_number("decay", value, least=0.0, most=1.0)


def test_a_range_without_end_is_said_so() -> None:
    with pytest.raises(ValueError, match="parsimony must be at least 0, got -1"):
        real_number("parsimony", -1, least=0.0)


def test_a_number_may_have_to_be_above_another() -> None:
    assert real_number("rate", 1e-300, above=0.0) == 1e-300
    with pytest.raises(ValueError, match="rate must be above 0, got 0"):
        real_number("rate", 0, above=0.0)


def test_what_is_of_another_kind_is_shown_in_a_line() -> None:
    assert instance("name", "mf", str, "text") == "mf"
    with pytest.raises(TypeError, match=r"^name must be text, got array\(\[\[0\., .*…$") as caught:
        instance("name", np.zeros((50, 50)), str, "text")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 120


@pytest.mark.parametrize("length", [78, 79, 200])
def test_a_long_value_is_cut(length: int) -> None:
    text = shown("x" * length)
    assert len(text) == min(length + 2, 80)
    assert text.endswith("'") == (length == 78)
