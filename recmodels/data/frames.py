"""Turns data frames into Interactions; errors name the line or row and the column."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import pandas as pd

from gploss.arguments import real_number
from recmodels.data.interactions import DataError, FloatArray, Interactions, read_only
from recmodels.data.tables.columns import Column, Vocabulary
from recmodels.data.tables.duplicates import Pairs
from recmodels.data.tables.roles import Name, find_columns
from recmodels.data.tables.times import times_of

OnDuplicates = Literal["error", "last"]

POSITIVE_FROM = 4.0


def interactions_from_frame(
    frame: pd.DataFrame,
    *,
    user: Name | None = None,
    item: Name | None = None,
    label: Name | None = None,
    rating: Name | None = None,
    positive_from: float | None = None,
    time: Name | Literal[False] | None = None,
    weight: Name | Literal[False] | None = None,
    on_duplicates: OnDuplicates = "error",
    missing: Collection[str] = (),
    decimal: str = ".",
    source: str = "the table",
) -> tuple[Interactions, Vocabulary]:
    """Turn a table with named columns into Interactions.

    Columns that are not named are looked for under common names: user_id, uid, userId, user; item_id, iid, movieId,
    itemId, item; label; rating (used where there is no label); timestamp and weight (used where there are such).

    Args:
        frame: a row an interaction.
        user: column of user ids, numbers or text.
        item: column of item ids, numbers or text.
        label: column of 0 and 1, or False and True. Give label or rating, not both.
        rating: column of numbers.
        positive_from: ratings from here on have label 1, lower ones 0; 4 where None. Where it is given, ratings are
            used even if there is a label column.
        time: column of numbers or of dates (ISO 8601), of which only the order matters, see
            `recmodels.data.tables.times.times_of`; False where no column holds times.
        weight: column of numbers of at least 0, how much each row counts in training; False where no column holds
            weights.
        on_duplicates: "error" refuses a (user, item) pair that occurs twice; "last" keeps the row that is the last
            in time, by order of the rows where times are equal or unknown.
        missing: texts that are no id but stand for a missing one, such as "NA".
        decimal: what stands before decimals in numbers that are text.
        source: where the table comes from, for messages.

    Returns:
        The interactions in the order of the rows, and the meaning of their ids, which follow the sorted users and
        items of the table.

    Raises:
        DataError: a column is missing or there twice, an id is empty or cannot be told from another, a rating or
            time is no number, a label is neither 0 nor 1, all labels are alike, a pair occurs twice, or the table
            has no rows.
        ValueError: an argument that cannot be.

    Example:
        >>> table = pd.DataFrame({"user": ["a", "a", "b"], "item": [7, 9, 7], "rating": [5, 2, 4]})
        >>> interactions, ids = interactions_from_frame(table)
        >>> interactions.labels.tolist(), ids.items[interactions.items].tolist()
        ([1.0, 0.0, 1.0], [7, 9, 7])
    """
    columns = find_columns(
        frame,
        user=user,
        item=item,
        label=label,
        rating=rating,
        positive_from=positive_from,
        time=time,
        weight=weight,
        missing=missing,
        decimal=decimal,
        source=source,
    )
    return interactions_from_columns(columns, positive_from=positive_from, on_duplicates=on_duplicates)


def interactions_from_columns(
    columns: dict[str, Column], *, positive_from: float | None = None, on_duplicates: OnDuplicates = "error"
) -> tuple[Interactions, Vocabulary]:
    """Turn columns that `find_columns` found into Interactions, see `interactions_from_frame`.

    Args:
        columns: is empty in the end: each column's memory is free before the next one takes its own.
        positive_from: ratings from here on have label 1, lower ones 0; 4 where None.
        on_duplicates: "error" or "last".
    """
    if on_duplicates not in ("error", "last"):
        raise ValueError(f"on_duplicates is {on_duplicates!r}; it can be 'error' or 'last'")
    positive_from = real_number("positive_from", POSITIVE_FROM if positive_from is None else positive_from)
    threshold = positive_from if "rating" in columns else None
    target = columns.pop("label" if threshold is None else "rating")
    users, own_users = columns.pop("user").ids()
    items, own_items = columns.pop("item").ids()
    times = times_of(columns.pop("time")) if "time" in columns else None
    weights = columns.pop("weight").weights().astype(np.float32) if "weight" in columns else None
    labels = (target.labels() if threshold is None else target.numbers() >= threshold).astype(np.float32)
    ids = Vocabulary(own_users, own_items)
    pairs = Pairs.of(users, items, ids)
    if len(pairs.repeated):
        if on_duplicates == "error":
            raise pairs.error(target.origin)
        last = pairs.last_rows(times)
        users, items, labels = users[last], items[last], labels[last]
        times = None if times is None else times[last]
        weights = None if weights is None else weights[last]
    del pairs
    _refuse_one_class(labels, target, threshold)
    return Interactions(
        read_only(users),
        read_only(items),
        read_only(labels),
        len(own_users),
        len(own_items),
        None if times is None else read_only(times),
        None if weights is None else read_only(weights),
    ), ids


def _refuse_one_class(labels: FloatArray, target: Column, positive_from: float | None) -> None:
    if labels.min() < labels.max():
        return
    place = f"{target.origin.source}, column {target.name!r}"
    if positive_from is None:
        raise DataError(f"{place}: every label is {labels[0]:g}; both 0 and 1 are needed")
    side = "none" if labels[0] == 0 else "all"
    raise DataError(
        f"{place}: {side} of the ratings lie at positive_from={positive_from:g} or above, so there is one class "
        "only; choose another positive_from"
    )
