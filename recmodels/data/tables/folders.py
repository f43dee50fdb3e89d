"""Folders that hold a table, or the three tables of a split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recmodels.data.interactions import DataError
from recmodels.data.tables.arrow_files import ARROW_ENDINGS

#: The parts of a split, in order, by what their files are called.
PARTS = {"train": "train", "validation": "validation|valid|dev", "test": "test"}
PART_FILE = r"(.*\.)?({})(\.csv|\.tsv|\.inter|\.parquet|\.arrow|\.feather)(\.gz|\.bz2|\.zip)?"

TABLE_ENDINGS = (".inter", ".csv", ".tsv", ".dat", ".data", ".gz", ".bz2", ".zip", *ARROW_ENDINGS)

Read = Callable[[Path], pd.DataFrame]


def read_folder(folder: Path, read: Read) -> tuple[pd.DataFrame, str]:
    r"""Read the three tables of a split (\*.train.csv and so on), a .inter file, u.data, or a folder's only table.

    Args:
        folder: where to look.
        read: reads a file.

    Returns:
        The table and what to call it: the file's name. The tables of a split stand under each other, train first,
        in an index of files and their lines (rows, for files without lines), and are called by the folder's name.

    Raises:
        DataError: there is no table, more than one, or a part of a split.
    """
    files = _part_files(folder)
    if files:
        return _read_parts(files, read), folder.resolve().name
    path = _table_in(folder)
    return read(path), path.name


def _part_files(folder: Path) -> list[Path]:
    files = {
        part: sorted(path for path in folder.iterdir() if re.fullmatch(PART_FILE.format(names), path.name))
        for part, names in PARTS.items()
    }
    if any(len(found) > 1 for found in files.values()):
        raise DataError(
            f"{folder}: more than one file ends in .train.csv, .validation.csv or .test.csv, or the like"
        )
    absent = [part for part, found in files.items() if not found]
    if absent and len(absent) < len(PARTS):
        names = ", ".join(f"*.{part}.csv" for part in absent)
        raise DataError(
            f"{folder}: holds a part of a split, but no {names} (or the like); give the path of one file"
        )
    return [path for found in files.values() for path in found]


def _read_parts(files: Sequence[Path], read: Read) -> pd.DataFrame:
    tables = [read(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        if list(table.columns) != list(tables[0].columns):
            raise DataError(
                f"{path.name}: the columns are {_listed(table)}; the train part has {_listed(tables[0])} "
                "(for files without a header, name them: columns=[...])"
            )
    part = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    lines = np.concatenate([table.index for table in tables])
    levels: Any = [[path.name for path in files], pd.RangeIndex(lines.max() + 1)]
    codes: Any = [part, lines]
    index = pd.MultiIndex(levels, codes, names=["file", tables[0].index.name or "row"])
    return pd.concat(tables, ignore_index=True).set_axis(index)


def _listed(table: pd.DataFrame) -> str:
    names = ", ".join(map(str, table.columns))
    return names if len(names) < 100 else f"{names[:97]}..."


def _table_in(folder: Path) -> Path:
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
