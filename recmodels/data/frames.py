"""Turns data frames into Interactions; errors name the line or row and the column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recmodels.data.interactions import DataError, IntegerArray, Interactions

MISSING = ("", "nan", "NaN", "NA", "<NA>", "null", "NULL", "None")

USER_NAMES = ("user_id", "uid", "userId", "user")
ITEM_NAMES = ("item_id", "iid", "movieId", "itemId", "item")
LABEL_NAMES = ("label",)
RATING_NAMES = ("rating",)
TIMESTAMP_NAMES = ("timestamp",)

OnDuplicates = Literal["error", "last"]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What the ids of Interactions stand for in the table they came from.

    Attributes:
        users: (n_users,) the table's own user at each id: int64, or text where some are no whole numbers. Sorted.
        items: (n_items,) the table's own item at each id, likewise.
    """

    users: npt.NDArray[Any]
    items: npt.NDArray[Any]


@dataclass(frozen=True)
class _Origin:
    """Where rows came from, for messages."""

    source: str
    index: pd.Index[Any]

    def row(self, position: int) -> str:
        label = self.index[position]
        if self.index.names == ["part", "file", "line"]:
            return f"{label[1]} line {label[2]}"
        return f"{'line' if self.index.name == 'line' else 'row'} {label}"

    def error(self, wrong: npt.NDArray[np.bool_], column: str, problem: str) -> DataError:
        """Return the error for the rows marked, of which there is at least one."""
        positions = np.flatnonzero(wrong)
        more = f" (and in {len(positions) - 1} more rows)" if len(positions) > 1 else ""
        return DataError(f"{self.source}, {self.row(int(positions[0]))}, column {column!r}: {problem}{more}")


def interactions_from_frame(
    frame: pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    label: str | None = None,
    rating: str | None = None,
    positive_from: float = 4,
    timestamp: str | None = None,
    on_duplicates: OnDuplicates = "error",
    source: str = "the table",
) -> tuple[Interactions, Vocabulary]:
    """Turn a table with named columns into Interactions.

    Columns that are not named are looked for under common names: user_id, uid, userId, user; item_id, iid, movieId,
    itemId, item; label; rating (used where there is no label); timestamp (used where there is one).

    Args:
        frame: a row an interaction.
        user: column of user ids, numbers or text.
        item: column of item ids, numbers or text.
        label: column of 0 and 1. Give label or rating, not both.
        rating: column of numbers.
        positive_from: ratings from here on have label 1, lower ones 0.
        timestamp: column of numbers or of dates (ISO 8601). Whole numbers stay as they are, fractions count in
            millionths, dates in nanoseconds: only the order matters.
        on_duplicates: "error" refuses a (user, item) pair that occurs twice; "last" keeps the row that is the last
            in time, by order of the rows where times are equal or unknown.
        source: where the table comes from, for messages.

    Returns:
        The interactions in the order of the rows, and the meaning of their ids, which follow the sorted users and
        items of the table.

    Raises:
        DataError: a column is missing, an id is empty, a rating or time is no number, a label is neither 0 nor 1,
            all labels are alike, a pair occurs twice, or the table has no rows.

    Example:
        >>> table = pd.DataFrame({"user": ["a", "a", "b"], "item": [7, 9, 7], "rating": [5, 2, 4]})
        >>> interactions, ids = interactions_from_frame(table)
        >>> interactions.labels.tolist(), ids.items[interactions.items].tolist()
        ([1.0, 0.0, 1.0], [7, 9, 7])
    """
    if on_duplicates not in ("error", "last"):
        raise ValueError(f"on_duplicates is {on_duplicates!r}; it can be 'error' or 'last'")
    origin = _Origin(source, frame.index)
    if label is not None and rating is not None:
        raise DataError(f"{source}: give a label column or a rating column, not both")
    user = _find(frame, source, "user", user, USER_NAMES)
    item = _find(frame, source, "item", item, ITEM_NAMES)
    if label is None and rating is None:
        rating = _find_optional(frame, RATING_NAMES)
        label = _find_optional(frame, LABEL_NAMES)
        if label is None and rating is None:
            raise _not_found(frame, source, "label or rating", LABEL_NAMES + RATING_NAMES)
    if timestamp is None:
        timestamp = _find_optional(frame, TIMESTAMP_NAMES)
    if len(frame) == 0:
        raise DataError(f"{source}: the table has no rows")

    users, user_vocabulary = _encode(frame, origin, user)
    items, item_vocabulary = _encode(frame, origin, item)
    if label is not None:
        labels = _labels(frame, origin, _present(frame, source, label))
    else:
        labels = _positives(frame, origin, _present(frame, source, str(rating)), positive_from)
    times = None if timestamp is None else _times(frame, origin, _present(frame, source, timestamp))
    interactions = Interactions(
        users, items, labels.astype(np.float32), len(user_vocabulary), len(item_vocabulary), times
    )
    vocabulary = Vocabulary(user_vocabulary, item_vocabulary)
    if on_duplicates == "last":
        interactions = interactions.take(_last_of_each_pair(interactions))
    else:
        _refuse_duplicates(interactions, vocabulary, origin)
    _refuse_one_class(interactions, origin, label or str(rating), None if label else positive_from)
    return interactions, vocabulary


def _columns_of(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns))


def _present(frame: pd.DataFrame, source: str, column: str) -> str:
    if column not in frame.columns:
        raise DataError(f"{source}: there is no column {column!r}; there are: {_columns_of(frame)}")
    return column


def _find_optional(frame: pd.DataFrame, candidates: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in frame.columns), None)


def _find(frame: pd.DataFrame, source: str, role: str, column: str | None, candidates: Sequence[str]) -> str:
    found = _find_optional(frame, candidates) if column is None else _present(frame, source, column)
    if found is None:
        raise _not_found(frame, source, role, candidates)
    return found


def _not_found(frame: pd.DataFrame, source: str, role: str, candidates: Sequence[str]) -> DataError:
    return DataError(
        f"{source}: no {role} column found among: {_columns_of(frame)}; "
        f"common names are {', '.join(candidates)}, others have to be named"
    )


def _encode(frame: pd.DataFrame, origin: _Origin, column: str) -> tuple[IntegerArray, npt.NDArray[Any]]:
    """Return ids from 0 in the order of the sorted values, and the values."""
    series = frame[column]
    missing = (series.isna() | series.isin(MISSING)).to_numpy(dtype=bool)
    if missing.any():
        raise origin.error(missing, column, "the id is empty or NaN")
    codes, values = pd.factorize(series)
    numbers = _as_whole_numbers(list(values))
    names = np.array([str(value) for value in values], dtype=object) if numbers is None else numbers
    # Values that print alike, such as 1 and "1", are one id.
    vocabulary, rank = np.unique(names, return_inverse=True)
    return rank.astype(np.int64)[codes], vocabulary


def _as_whole_numbers(values: list[Any]) -> IntegerArray | None:
    """Return the values as int64 if each of them is a whole number, written without leading zeros."""
    try:
        numbers = [int(value) for value in values]
        whole = all(str(n) == v if isinstance(v, str) else n == v for n, v in zip(numbers, values, strict=True))
        return np.array(numbers, dtype=np.int64) if whole else None
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _numbers(frame: pd.DataFrame, origin: _Origin, column: str, what: str) -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        value = frame[column].iloc[int(np.flatnonzero(wrong)[0])]
        raise origin.error(wrong, column, f"{_shown(value)} is no {what}")
    return numbers


def _labels(frame: pd.DataFrame, origin: _Origin, column: str) -> npt.NDArray[np.float64]:
    labels = _numbers(frame, origin, column, "label")
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        value = labels[np.flatnonzero(wrong)[0]]
        raise origin.error(wrong, column, f"the label is {value:g}; labels are 0 or 1 (is this a rating column?)")
    return labels


def _positives(frame: pd.DataFrame, origin: _Origin, column: str, positive_from: float) -> npt.NDArray[np.float64]:
    return (_numbers(frame, origin, column, "number") >= positive_from).astype(np.float64)


def _times(frame: pd.DataFrame, origin: _Origin, column: str) -> IntegerArray:
    series = frame[column]
    if not pd.api.types.is_datetime64_any_dtype(series):
        numeric = pd.to_numeric(series, errors="coerce")
        if pd.api.types.is_integer_dtype(numeric) and not numeric.isna().any():
            return numeric.to_numpy(dtype=np.int64)
        if numeric.notna().any():
            numbers = _numbers(frame, origin, column, "time")
            whole = bool((numbers == np.floor(numbers)).all())
            return (numbers if whole else np.floor(numbers * 1e6)).astype(np.int64)
    dates = pd.to_datetime(series, format="ISO8601", errors="coerce", utc=True)
    wrong = dates.isna().to_numpy(dtype=bool)
    if wrong.any():
        value = series.iloc[int(np.flatnonzero(wrong)[0])]
        raise origin.error(wrong, column, f"{_shown(value)} is neither a number nor a date (year-month-day)")
    return dates.to_numpy(dtype="datetime64[ns]").astype(np.int64)


def _pairs(interactions: Interactions) -> IntegerArray:
    return interactions.users * interactions.n_items + interactions.items


def _last_of_each_pair(interactions: Interactions) -> IntegerArray:
    """Return the positions, in order, of each pair's last row in time."""
    order = np.arange(len(interactions), dtype=np.int64)
    if interactions.timestamps is not None:
        order = np.argsort(interactions.timestamps, kind="stable")
    _, last_from_end = np.unique(_pairs(interactions)[order[::-1]], return_index=True)
    return np.sort(order[::-1][last_from_end])


def _refuse_duplicates(interactions: Interactions, vocabulary: Vocabulary, origin: _Origin) -> None:
    pairs = _pairs(interactions)
    _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    repeated = np.sort(first[counts > 1])
    if not len(repeated):
        return
    examples = "; ".join(
        f"user {vocabulary.users[interactions.users[row]]}, item {vocabulary.items[interactions.items[row]]} at "
        + " and ".join(origin.row(int(twin)) for twin in np.flatnonzero(pairs == pairs[row])[:3])
        for row in repeated[:3]
    )
    number = "1 (user, item) pair occurs" if len(repeated) == 1 else f"{len(repeated)} (user, item) pairs occur"
    raise DataError(
        f"{origin.source}: {number} more than once: {examples}{'; ...' if len(repeated) > 3 else ''}. "
        "Give on_duplicates='last' to keep the last row of each"
    )


def _refuse_one_class(
    interactions: Interactions, origin: _Origin, column: str, positive_from: float | None
) -> None:
    if 0 < interactions.positive_share < 1:
        return
    if positive_from is None:
        raise DataError(
            f"{origin.source}, column {column!r}: every label is {interactions.labels[0]:g}; "
            "both 0 and 1 are needed"
        )
    side = "none" if interactions.positive_share == 0 else "all"
    raise DataError(
        f"{origin.source}, column {column!r}: {side} of the ratings lie at positive_from={positive_from:g} or "
        "above, so there is one class only; choose another positive_from"
    )
