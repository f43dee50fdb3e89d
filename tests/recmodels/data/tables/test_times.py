"""Times keep their order, exactly, whatever they are; or they are refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.interactions import DataError
from recmodels.data.tables.columns import Column, Origin
from recmodels.data.tables.times import times_of

ARROW_TEXT = pd.ArrowDtype(pa.string())


def times(values: Any, dtype: Any = None, **options: Any) -> npt.NDArray[np.int64]:
    series = pd.Series(values, dtype=dtype)
    return times_of(Column("when", series, Origin("log", series.index), **options))


def ranks(values: list[Any]) -> list[int]:
    order = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [order[value] for value in values]


@pytest.mark.parametrize(
    ("given_times", "expected"),
    [
        ([4, 3, 2, 1], [4, 3, 2, 1]),
        (["4", "3", "2", "1"], [4, 3, 2, 1]),
        ([4.0, 3.0, 2.0, 1.0], [4, 3, 2, 1]),
        (["4.0", "3.0", "2.0", "1.0"], [4, 3, 2, 1]),
        (["1970-01-01", "1970-01-02", "1970-01-01 00:00:01", "1970-01-01T00:00:02"], [0, 86_400e9, 1e9, 2e9]),
        (pd.to_datetime([0, 5, 3, 1], unit="s"), [0, 5e9, 3e9, 1e9]),
        (pd.to_datetime([0, 5, 3, 1], unit="s", utc=True).tz_convert("Asia/Tokyo"), [0, 5e9, 3e9, 1e9]),
        ([datetime.date(1970, 1, 2), datetime.date(1970, 1, 1)], [86_400e9, 0]),
        (["1970-01-01T00:00:00.000000001", "1970-01-01"], [1, 0]),
        (["1970-01-01T05:30+05:30", "1970-01-01T00:00:01Z"], [0, 1e9]),
        (["20240102", "20240101"], [20240102, 20240101]),
    ],
)
@pytest.mark.parametrize("dtype", [None, ARROW_TEXT])
def test_times(given_times: Any, expected: list[float], dtype: Any) -> None:
    if dtype is not None and not isinstance(given_times[0], str):
        dtype = None
    assert times(given_times, dtype).tolist() == expected


NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25).map(Decimal),
    st.decimals(-(10**10), 10**10, places=9),
    st.sampled_from([Decimal(2**63), Decimal(2**63 - 1), Decimal(2**53 + 1), Decimal(2**53), Decimal("0.1")]),
)


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.sampled_from([object, ARROW_TEXT, "str", "category"]))
def test_numbers_of_any_size_and_precision_keep_their_order(numbers: list[Decimal], dtype: Any) -> None:
    assert ranks(times([f"{number:f}" for number in numbers], dtype).tolist()) == ranks(numbers)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12))
def test_floats_keep_their_order(numbers: list[float]) -> None:
    assert ranks(times(numbers).tolist()) == ranks(numbers)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12))
def test_unsigned_numbers_keep_their_order(numbers: list[int]) -> None:
    assert ranks(times(np.array(numbers, dtype=np.uint64)).tolist()) == ranks(numbers)


@given(st.lists(st.datetimes(), min_size=1, max_size=12), st.sampled_from(["text", "objects", "seconds", "arrow"]))
def test_dates_from_year_1_to_9999_keep_their_order(dates: list[datetime.datetime], kind: str) -> None:
    if kind == "text":
        result = times([date.isoformat() for date in dates])
    elif kind == "objects":
        result = times(pd.Series(dates, dtype=object))
    elif kind == "seconds":
        dates = [date.replace(microsecond=0) for date in dates]
        result = times(np.array(dates, dtype="datetime64[s]"))
    else:
        result = times(dates, pd.ArrowDtype(pa.timestamp("us")))
    assert ranks(result.tolist()) == ranks(dates)


def test_nanoseconds_as_text_and_as_numbers_are_the_same() -> None:
    nanoseconds = [1_600_000_000_000_000_001, 1_600_000_000_000_000_000]
    for dtype in (object, ARROW_TEXT):
        assert times(list(map(str, nanoseconds)), dtype).tolist() == nanoseconds
    assert times(nanoseconds).tolist() == nanoseconds


@pytest.mark.parametrize("dtype", [object, "str", "string", ARROW_TEXT])
@pytest.mark.parametrize("texts", [["1", None, "3"], ["1.5", None, "3"]])
def test_a_gap_among_texts_is_no_time(texts: list[str | None], dtype: Any) -> None:
    with pytest.raises(DataError, match=r"row 1, column 'when': .* is no time"):
        times(texts, dtype)


@pytest.mark.parametrize("dtype", [object, ARROW_TEXT])
def test_decimal_commas_where_they_are_said(dtype: Any) -> None:
    assert times(["1,5", "1,25", "1"], dtype, decimal=",").tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, None], "row 2, column 'when': nan is no time"),
        (["1", "2", ""], "row 2, column 'when': '' is no time"),
        (["1", "2020-01-01"], "row 1, .* '2020-01-01' is no time"),
        (["1", "1e400"], "row 1, .* '1e400' is no time"),
        ([1.0, np.inf], "row 1, .* inf is no time"),
        (["monday", "tuesday"], "row 0, .* 'monday' is neither a number nor a date"),
        (["2024-01-01", "01/02/2024"], "row 1, .* '01/02/2024' is neither a number nor a date"),
        (["2024-01-01", "12024-01-01"], "row 1, .* '12024-01-01' is neither a number nor a date"),
        (["0x1F", "0x2F"], "row 0, .* '0x1F' is neither"),
        ([True, False], "row 0, .* True is neither a number nor a date"),
        ([pd.Timestamp(0), pd.NaT], "row 1, .* NaT is neither"),
        ([1 + 2j], "row 0, .* is neither"),
        ([[1]], "row 0, .* is neither"),
    ],
)
def test_what_is_no_time(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        times(values)
    if all(isinstance(value, str) for value in values):
        with pytest.raises(DataError, match=message):
            times(values, ARROW_TEXT)
