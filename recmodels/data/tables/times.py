"""A column of times as whole numbers, in the order of the table's, exactly."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recmodels.data.interactions import IntegerArray
from recmodels.data.tables.arrow_memory import POOL
from recmodels.data.tables.columns import SPARSE_FLOATS, Column
from recmodels.data.tables.distinct import Floats, arrow_texts, as_floats, as_whole_numbers, spread, whole_numbers


def times_of(column: Column) -> IntegerArray:
    """Return (N,) times.

    Returns:
        Whole numbers as they are; dates in nanoseconds since 1970, or in the unit they have in the table where some
        lie too far from there; ranks instead of fractions and of numbers beyond int64.

    Raises:
        DataError: a value is neither a number nor a date.
    """
    if pd.api.types.is_datetime64_any_dtype(column.values.dtype):
        return _dates(column)
    texts = arrow_texts(column.values) if column.decimal == "." else None
    times = None if texts is None else _times_of_text(texts)
    if times is not None:
        return times
    codes, values = column.distinct_numbers()
    numbers = as_floats(values)
    if np.isnan(numbers).all() or values.dtype.kind == "b":
        return _dates(column)
    wrong = ~np.isfinite(spread(numbers, codes, np.nan))
    if wrong.any():
        raise column.error(wrong, "{value} is no time; time=False leaves times out")
    times = as_whole_numbers(values)
    if times is None:
        times = _as_fine(numbers, len(values))
    if times is None:
        times = _exact_ranks(values)
    return times[codes]


def _times_of_text(texts: Any) -> IntegerArray | None:
    """Return (N,) times if all texts are numbers and floats keep them apart; without an object for each of them."""
    if texts.null_count:
        return None  # a gap would become a number
    whole = whole_numbers(texts)
    if whole is not None:
        return whole
    if pc.any(pc.match_substring(texts, "x", ignore_case=True, memory_pool=POOL)).as_py():
        return None  # Arrow takes 0x1F for a number
    try:
        return np.asarray(pc.cast(texts, pa.int64(), memory_pool=POOL), dtype=np.int64)
    except pa.ArrowInvalid:
        pass
    try:
        numbers = pc.cast(texts, pa.float64(), memory_pool=POOL)
    except pa.ArrowInvalid:
        return None
    return _as_fine(np.asarray(numbers), pc.count_distinct(texts, memory_pool=POOL).as_py())


def _as_fine(numbers: Floats, distinct: int) -> IntegerArray | None:
    """Return floats, or their ranks where they are no whole numbers, if as many values differ as are given."""
    ranked, ranks = np.unique(numbers, return_inverse=True)
    if len(ranked) != distinct or not np.isfinite(ranked).all():
        return None
    whole = (ranked == np.floor(ranked)).all() and (np.abs(ranked) < SPARSE_FLOATS).all()
    return (numbers if whole else ranks).astype(np.int64)


def _exact_ranks(values: npt.NDArray[Any]) -> IntegerArray:
    exact = [Decimal(str(value).strip()) for value in values]
    ranks = {value: rank for rank, value in enumerate(sorted(set(exact)))}
    return np.array([ranks[value] for value in exact], dtype=np.int64)


def _dates(column: Column) -> IntegerArray:
    dates = pd.to_datetime(column.values, format="ISO8601", errors="coerce", utc=True)
    wrong = dates.isna().to_numpy(dtype=bool)
    if wrong.any():
        problem = "{value} is neither a number nor a date (year-month-day)"
        raise column.error(wrong, f"{problem}; time=False leaves times out")
    # Before 1677 and after 2262 there are no nanoseconds; all dates of a column share a unit, so their order stays.
    with suppress(pd.errors.OutOfBoundsDatetime):
        dates = dates.dt.as_unit("ns")
    return dates.dt.tz_localize(None).to_numpy().astype(np.int64)
