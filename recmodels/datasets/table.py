"""Any table with named columns: a file, a folder, or a data frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from recmodels.data.frames import OnDuplicates, interactions_from_frame
from recmodels.data.interactions import DataError, Split
from recmodels.data.splits import split_by_name
from recmodels.data.tables import read_table
from recmodels.datasets import DATASETS, TABLE, Dataset

Reader = Callable[[Path], pd.DataFrame]

PARTS = ("train", "validation", "test")
SPLIT_INDEX = ["part", "file", "line"]
TABLE_ENDINGS = (".inter", ".csv", ".tsv", ".dat", ".data", ".gz", ".zip")


def load(
    source: str | Path | pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    label: str | None = None,
    rating: str | None = None,
    positive_from: float = 4,
    timestamp: str | None = None,
    on_duplicates: OnDuplicates = "error",
    split: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    header: bool | None = None,
    name: str | None = None,
) -> Split:
    r"""Read a table and split it, or read a folder that holds a split.

    Args:
        source: a data frame, a file (see ``read_table``), a folder with one table, or a folder with three tables
            \*.train.csv, \*.validation.csv and \*.test.csv, as AutoLossGen's data are published.
        user: column of users; found under common names where None, as are the other columns.
        item: column of items.
        label: column of 0 and 1.
        rating: column of ratings, where there are no labels.
        positive_from: ratings from here on are positive.
        timestamp: column of times, or None where there are none.
        on_duplicates: "error" or "last", see ``interactions_from_frame``.
        split: "leave_one_out" (where None), "by_time" or "at_random". For a folder that holds a split, None.
        validation: share of the rows, for by_time and at_random.
        test: share of the rows, for by_time and at_random.
        seed: for at_random.
        columns: names for the columns of a file without a header.
        separator: what separates a file's columns; see ``read_table``.
        header: whether a file has a header; see ``read_table``.
        name: what the data are called; the file's or folder's name where None.

    Raises:
        DataError: the data cannot be used; the message names file, line and column.
        LookupError: there is no split of that name.
    """
    frame, described = _read(source, partial(read_table, columns=columns, separator=separator, header=header))
    holds_split = frame.index.names == SPLIT_INDEX
    if holds_split and (split is not None or on_duplicates != "error"):
        raise DataError(f"{described}: holds a split already, so it takes neither split nor on_duplicates")
    interactions, _ = interactions_from_frame(
        frame,
        user=user,
        item=item,
        label=label,
        rating=rating,
        positive_from=positive_from,
        timestamp=timestamp,
        on_duplicates=on_duplicates,
        source=described,
    )
    name = name or described
    if holds_split:
        part_of_row = frame.index.get_level_values("part")
        parts = {part: interactions.take(np.asarray(part_of_row == part)) for part in PARTS}
        return Split(f"{name}, as published", **parts)
    return split_by_name(
        interactions, split or "leave_one_out", validation=validation, test=test, seed=seed, name=name
    )


def _read(source: str | Path | pd.DataFrame, read: Reader) -> tuple[pd.DataFrame, str]:
    """Return the table and what to call it in messages; what kind of source it is shows in its content."""
    if isinstance(source, pd.DataFrame):
        return source, "the data frame"
    path = Path(source)
    if not path.is_dir():
        return read(path), path.name
    files = _part_files(path)
    if files:
        return _read_parts(files, read), path.resolve().name
    path = _table_in(path)
    return read(path), path.name


def _part_files(folder: Path) -> dict[str, Path] | None:
    """Return the three tables of a folder that holds a split, or None for another folder."""
    files = {part: sorted(folder.glob(f"*.{part}.csv")) for part in PARTS}
    if any(len(found) > 1 for found in files.values()):
        raise DataError(f"{folder}: more than one file ends in .train.csv, .validation.csv or .test.csv")
    present = {part: found[0] for part, found in files.items() if found}
    if present and len(present) < len(PARTS):
        absent = ", ".join(f"*.{part}.csv" for part in PARTS if part not in present)
        raise DataError(f"{folder}: holds a part of a split, but no {absent}")
    return present or None


def _read_parts(files: dict[str, Path], read: Reader) -> pd.DataFrame:
    """Return the three tables under each other; the index holds part, file and line."""
    tables = []
    for part, path in files.items():
        table = read(path)
        lines = table.index
        table.index = pd.MultiIndex.from_arrays(
            [[part] * len(lines), [path.name] * len(lines), lines], names=SPLIT_INDEX
        )
        tables.append(table)
    different = [table for table in tables if list(table.columns) != list(tables[0].columns)]
    if different:
        file = different[0].index.get_level_values("file")[0]
        raise DataError(
            f"{file}: the columns are {', '.join(different[0].columns)}; "
            f"the train part has {', '.join(tables[0].columns)}"
        )
    return pd.concat(tables)


def _table_in(folder: Path) -> Path:
    """Return a folder's table of interactions: a .inter file, u.data, or else its only table."""
    for pattern in ("*.inter", "u.data"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
    found = sorted(path for path in folder.iterdir() if path.suffix in TABLE_ENDINGS)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{folder}: exactly one table is needed ({', '.join(TABLE_ENDINGS)}), found: {names}; "
            "give the file's path"
        )
    return found[0]


DATASETS.register(TABLE, Dataset(TABLE, load, "any table with named columns, by its path", "yours", "yours"))
