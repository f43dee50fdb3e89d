"""Ids keep their meaning, and what is no id, label or number is named with its row."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.interactions import DataError
from recmodels.data.tables.columns import Column, Origin


def column_of(values: Any, dtype: Any = None, **options: Any) -> Column:
    series = pd.Series(values, dtype=dtype)
    return Column("name", series, Origin("log", series.index), **options)


TEXT_TYPES = [object, "str", "string", "category", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string())]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.sampled_from(TEXT_TYPES))
def test_ids_of_text_are_dense_sorted_and_lead_back(values: list[str], dtype: Any) -> None:
    ids, own = column_of(values, dtype).ids()
    assert [str(name) for name in own[ids]] == values
    assert len(own) == len(set(values)) and sorted(own.tolist()) == own.tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.sampled_from([*TEXT_TYPES, "int64"]))
def test_whole_numbers_are_the_same_ids_whether_they_are_text_or_not(values: list[int], dtype: Any) -> None:
    ids, own = column_of(list(map(str, values)), dtype).ids() if dtype != "int64" else column_of(values).ids()
    assert own.dtype == np.int64 and own[ids].tolist() == values


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([9.0, 9.0, 10.0, 8.0], [8, 9, 10]),
        ([np.int8(3), 2, 3], [2, 3]),
        ([10**30, 3], ["1" + "0" * 30, "3"]),
        (["09", "9", "x"], ["09", "9", "x"]),
        (["+9", "9"], ["+9", "9"]),
        (["-0", "0"], ["-0", "0"]),
        (["0x1F", "31"], ["0x1F", "31"]),
        (["0x100000000000"], ["0x100000000000"]),  # as long as the number that it is
        (["07", "10"], ["07", "10"]),
        (["-9", "-09"], ["-09", "-9"]),
        ([" 9", "9"], [" 9", "9"]),
        (["1_0", "10"], ["10", "1_0"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        (["1" * 30, "1" * 29 + "2"], ["1" * 30, "1" * 29 + "2"]),
        ([1.5, 1.0], ["1.0", "1.5"]),
        ([True, False], ["False", "True"]),
        ([("a", 1), ("a", 2)], ["('a', 1)", "('a', 2)"]),
        ([datetime.date(2024, 1, 2)], ["2024-01-02"]),
        ([Decimal("1.50")], ["1.50"]),
        (["NA", "nan", "None", "null"], ["NA", "None", "nan", "null"]),
        (["\ud800", "b"], ["b", "\ud800"]),
    ],
)
def test_what_ids_are_called(values: list[Any], own: list[Any]) -> None:
    assert column_of(values, object if isinstance(values[0], str) else None).ids()[1].tolist() == own


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None, 2, None], r"^log, row 1, column 'name': the id is empty or NaN \(and in 1 more rows\)$"),
        (["a", ""], r"^log, row 1, column 'name': the id is empty or NaN$"),
        ([None, None], "row 0, .* the id is empty or NaN"),
        ([pd.NaT, pd.Timestamp(0)], "row 0, .* the id is empty or NaN"),
        ([1, 1, "1", "x"], "row 2, column 'name': '1' is text, unlike the ids before it; make all of them text"),
        (["a", 7], "row 1, column 'name': 7 is no text, unlike the ids before it"),
        ([1.0, "1"], "row 1, .*'1' is text"),
        (["7", "8", "7.0"], "row 2, column 'name': '7.0' also occurs without '.0'; write ids alike"),
        ([2.0**53, 2.0**53 + 2], r"row 0, .* 9007199254740992.0 is a float too large to be exact"),
        ([[1], [2]], "row 0, .* is neither a number nor text"),
        ([{"a": 1}], "row 0, .* is neither a number nor text"),
        ([b"a", b"b"], "row 0, .* is neither a number nor text"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        column_of(values).ids()


@pytest.mark.parametrize("dtype", TEXT_TYPES)
def test_texts_that_stand_for_no_id(dtype: Any) -> None:
    column = column_of(["DE", "NA", "FR"], dtype, missing=["NA", "-"])
    with pytest.raises(DataError, match=r"row 1, column 'name': 'NA' stands for no value; .* say missing=\[\]$"):
        column.ids()
    with pytest.raises(DataError, match=r"row 0, column 'name': .*-1.* stands for no value"):
        column_of(["-1", "7"], dtype, missing=["-1"]).ids()
    assert len(column_of(["1", "7"], dtype, missing=["-1"]).ids()[1]) == 2


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True],
        ["True", "False", "True"],
        ["TRUE", "false", "true"],
        [1, 0, 1],
        ["1", "0", "1"],
        ["1.0", "0.0", " 1"],
        [1.0, 0.0, 1.0],
        np.array([1, 0, 1], dtype=np.uint8),
        pd.array([True, False, True], dtype="boolean"),
        pd.Series(["True", "False", "True"], dtype=pd.ArrowDtype(pa.string())),
        pd.Series([True, False, True], dtype=pd.ArrowDtype(pa.bool_())),
        pd.Series(["True", "False", "True"], dtype="category"),
    ],
)
def test_labels(values: Any) -> None:
    assert column_of(values).labels().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 3], "row 2, column 'name': the label is 3; labels are 0 or 1"),
        ([0, -1, 1], "row 1, .* the label is -1"),
        ([0, 1, None], "row 2, .* nan is no label; labels are 0 or 1, or False and True"),
        (["0", "yes", "1"], "row 1, .* 'yes' is no label; labels are 0 or 1, or False and True"),
        (["0", "1", ""], "row 2, .* '' is no label"),
        ([pd.Timestamp(0)], "row 0, .* is no label"),
        ([0.5, 1], "the label is 0.5"),
    ],
)
def test_what_is_no_label(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        column_of(values).labels()


@pytest.mark.parametrize("dtype", TEXT_TYPES)
def test_decimal_commas_where_they_are_said(dtype: Any) -> None:
    texts = ["3,5", "4", "-0,25", "1e2"]
    assert column_of(texts, dtype, decimal=",").numbers().tolist() == [3.5, 4, -0.25, 100]
    with pytest.raises(DataError, match=r"row 0, .* '3,5' is no number \(where .* say decimal=','\)"):
        column_of(texts, dtype).numbers()
    with pytest.raises(DataError, match=r"row 0, .* '3.5' is no number"):
        column_of(["3.5", "4"], dtype, decimal=",").numbers()


@pytest.mark.parametrize(
    "value", ["good", "", " ", "nan", "inf", "-inf", "1e400", "1_000", "0x1A", "1,000,000", "１", "1 2", "5*", None]
)
@pytest.mark.parametrize("dtype", [object, pd.ArrowDtype(pa.string())])
def test_what_is_no_number(value: str | None, dtype: Any) -> None:
    with pytest.raises(DataError, match=r"row 1, column 'name': .* is no number"):
        column_of(["1", value, "2"], dtype).numbers()


def test_dates_are_no_numbers() -> None:
    with pytest.raises(DataError, match=r"row 0, .* is no number"):
        column_of(pd.to_datetime(["2024-01-01"])).numbers()


def test_long_values_are_shown_short() -> None:
    with pytest.raises(DataError, match=r"'good{1,80}\.\.\. is no number$"):
        column_of(["goo" + "d" * 1000]).numbers()
