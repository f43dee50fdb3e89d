"""Any table with named columns: a file, a folder, or a data frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recmodels.data.frames import OnDuplicates, interactions_from_columns
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.splits import split_by_name
from recmodels.data.tables import read_table
from recmodels.data.tables.columns import Origin
from recmodels.data.tables.folders import PARTS, read_folder
from recmodels.data.tables.roles import Name, find_columns
from recmodels.data.unknown_ids import refuse_ids_of_another_kind, refuse_unknown_users
from recmodels.datasets import DATASETS, TABLE, Dataset

#: Texts that stand for a missing id in files of text, where the user says nothing.
MISSING = ("nan", "NaN", "NA", "<NA>", "null", "NULL", "None")

OnUnknown = Literal["error", "keep"]


def load(
    source: str | Path | pd.DataFrame,
    *,
    user: Name | None = None,
    item: Name | None = None,
    label: Name | None = None,
    rating: Name | None = None,
    positive_from: float | None = None,
    time: Name | Literal[False] | None = None,
    weight: Name | Literal[False] | None = None,
    on_duplicates: OnDuplicates = "error",
    on_unknown: OnUnknown = "error",
    split: str | None = None,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    header: bool | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    quotes: bool | None = None,
    missing: Collection[str] | None = None,
    decimal: str = ".",
    name: str | None = None,
) -> Split:
    r"""Read a table and split it, or read a folder that holds a split.

    Args:
        source: a data frame, a file (see `read_table`), a folder with one table, or a folder with three tables
            \*.train.csv, \*.validation.csv and \*.test.csv, as AutoLossGen's data are published; they may be tables
            of other kinds, too, and be called train.csv and so on.
        user: column of users; found under common names where None, as are the other columns.
        item: column of items.
        label: column of 0 and 1, or False and True.
        rating: column of ratings, where there are no labels.
        positive_from: ratings from here on are positive; 4 where None. Where it is given, ratings are used even if
            there are labels.
        time: column of times; False where no column holds times.
        weight: column of how much each row counts in training; False where no column holds weights.
        on_duplicates: "error" or "last", see `interactions_from_frame`.
        on_unknown: "error" refuses a validation or test part none of whose users, or none of whose items, occur in
            train, and published parts in which ids are text and in others numbers; "keep" takes them.
        split: "leave_one_out" (where None), "by_time" or "at_random". For a folder that holds a split, None.
        validation: share of the rows, for by_time and at_random; 0.1 where None.
        test: share of the rows, for by_time and at_random; 0.1 where None.
        seed: for at_random.
        columns: names for the columns of a file of text, see `read_table`.
        header: whether the first line holds names.
        separator: what stands between values.
        encoding: "utf-8" where None.
        quotes: whether quotation marks may hold separators and line breaks.
        missing: texts that stand for a missing id; where None, NA, NaN, null and the like in files of text, and
            nothing in data frames, Arrow and Parquet, which mark what is missing.
        decimal: what stands before decimals in numbers that are text.
        name: what the data are called; the file's or folder's name where None.

    Returns:
        The parts, with the table's own ids.

    Raises:
        DataError: the data cannot be used; the message names file, line and column.
        LookupError: there is no split of that name.
        ValueError: an argument that cannot be.
    """
    if on_unknown not in ("error", "keep"):
        raise ValueError(f"on_unknown is {on_unknown!r}; it can be 'error' or 'keep'")
    reading: dict[str, Any]
    reading = {"columns": columns, "header": header, "separator": separator, "encoding": encoding, "quotes": quotes}
    frame, described = _read(source, reading)
    index = frame.index
    parts = index.codes[0] if isinstance(index, pd.MultiIndex) and not isinstance(source, pd.DataFrame) else None
    if parts is not None and ((split, validation, test) != (None, None, None) or on_duplicates != "error"):
        raise DataError(
            f"{described}: holds a split already, so it takes neither split nor on_duplicates, validation and test"
        )
    found = find_columns(
        frame,
        user=user,
        item=item,
        label=label,
        rating=rating,
        positive_from=positive_from,
        time=time,
        weight=weight,
        missing=_texts_for_missing(frame) if missing is None else missing,
        decimal=decimal,
        source=described,
    )
    del frame  # of which some columns may not be needed, and the others only for a while
    interactions, ids = interactions_from_columns(found, positive_from=positive_from, on_duplicates=on_duplicates)
    if parts is None:
        way = split or "leave_one_out"
        made = split_by_name(interactions, way, validation=validation, test=test, seed=seed, name=name or described)
    else:
        if on_unknown == "error":
            origin = Origin(described, index)
            refuse_ids_of_another_kind("user", interactions.users, ids.users, parts, origin)
            refuse_ids_of_another_kind("item", interactions.items, ids.items, parts, origin)
        made = _published(f"{name or described}, as published", interactions, parts)
    if on_unknown == "error":
        refuse_unknown_users(made)
    return replace(made, user_ids=ids.users, item_ids=ids.items)


def _published(name: str, interactions: Interactions, parts: npt.NDArray[np.integer[Any]]) -> Split:
    train, validation, test = (interactions.take(parts == number) for number in range(len(PARTS)))
    return Split(name, train, validation, test)


def _read(source: str | Path | pd.DataFrame, reading: dict[str, Any]) -> tuple[pd.DataFrame, str]:
    """Return the table and what to call it in messages; what kind of source it is shows in its index."""
    if isinstance(source, pd.DataFrame):
        given = [option for option, value in reading.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: for files of text; a data frame has its own names and values")
        return source, "the data frame"
    path = Path(source)
    if path.is_dir():
        return read_folder(path, partial(read_table, **reading))
    return read_table(path, **reading), path.name


def _texts_for_missing(frame: pd.DataFrame) -> tuple[str, ...]:
    return MISSING if frame.index.names[-1] == "line" else ()


DATASETS.register(TABLE, Dataset(TABLE, load, "any table with named columns, by its path", "yours", "yours"))
