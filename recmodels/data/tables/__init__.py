"""Reads tables from files; errors name the file and the line (the header is a line too)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.arrays import ArrowExtensionArray

from recmodels.data.interactions import DataError
from recmodels.data.tables.arrow_files import ARROW_ENDINGS, read_arrow
from recmodels.data.tables.text_file import TextFile, open_text
from recmodels.data.tables.text_rows import Layout, parse_rows

SEPARATORS = {"\t": "tab", "::": "'::'", ";": "';'", ",": "','"}
RECBOLE_TYPES = ("token", "float", "token_seq", "float_seq")

#: MovieLens' files without a header, which are known by their names.
MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
MOVIELENS_FILES = re.compile(r"u\.data|ratings\.dat|u[1-5ab]\.(base|test)")

UNIT_SEPARATOR = "\x1f"  # stands for separators that Arrow does not take


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    header: bool | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    quotes: bool | None = None,
) -> pd.DataFrame:
    r"""Read a table: text, packed or not (.gz, .bz2, .zip), or a file of Arrow or Parquet.

    What is not said is guessed. The separator is the first of tab, '::', ';' and ',' that stands in the first line
    outside of quotes. The first line is a header unless ``columns`` are given; where all of it is numbers it has to
    be said, but for MovieLens' u.data and ratings.dat. Types in RecBole's headers ("user_id:token") are dropped. In
    a .zip file u.data or ratings.dat is read, or else its only file. Rows without any value are left out.

    Args:
        path: the file.
        columns: names of all columns. There is no header then; with ``header=True`` they replace it.
        header: whether the first line holds names. Where False and no ``columns`` are given, names are "1", "2" and
            so on.
        separator: what stands between values, of one character or more; with more, quotes mean nothing.
        encoding: "utf-8" where None.
        quotes: whether "..." may hold separators and line breaks, with "" for a quotation mark; False for files in
            which a quotation mark is a character like others. Where None, it may, but in a file separated by tabs
            not both of a tab and a line break: between two lone quotation marks, whole rows look like that.

    Returns:
        All values of a text file as text; the index, named "line", holds line numbers that count from 1. Columns of
        Arrow and Parquet files have their types, and rows are numbered from 0.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: no table, damaged, or a row with another number of columns; the message names the line.
        ValueError: an argument that cannot be; the message names it.
    """
    path = Path(path)
    if path.suffix.lower() in ARROW_ENDINGS:
        if (columns, header, separator, encoding, quotes) != (None,) * 5:
            raise DataError(f"{path.name}: has its own names and types; columns, separator and so on are for text")
        return read_arrow(path)
    _check_options(columns, header, separator, quotes)
    with open_text(path, encoding or "utf-8") as text:
        if not text.head:
            raise DataError(f"{path.name}: the file is empty")
        separator = separator or _guess_separator(text)
        if len(separator.encode()) > 1:
            text.replace(separator, UNIT_SEPARATOR)
            separator, quotes = UNIT_SEPARATOR, False
        first, lines_of_first = _first_row(text, separator, quotes)
        names, has_header = _names(text, first, columns, header)
        if has_header:
            text.skip_lines(lines_of_first)
        if not text.head:
            raise DataError(f"{path.name}: there are no rows below the header")
        values, lines = parse_rows(text, Layout(separator, quotes, len(names)))
    if not len(lines):
        raise DataError(f"{path.name}: no row holds a value")
    frame = pd.DataFrame({number: ArrowExtensionArray(column) for number, column in enumerate(values)}, lines)
    frame.columns = pd.Index(names)
    return frame


def _check_options(
    columns: Sequence[str] | None, header: bool | None, separator: str | None, quotes: bool | None
) -> None:
    unordered = isinstance(columns, str | set)
    if columns is not None and (unordered or not all(isinstance(name, str) for name in columns)):
        raise ValueError(f"columns is {columns!r}; it must be a list of names, such as ['user', 'item', 'rating']")
    for name, value in (("header", header), ("quotes", quotes)):
        if value not in (None, False, True):
            raise ValueError(f"{name} is {value!r}; it can be True or False")
    if separator is not None and (not isinstance(separator, str) or not separator or set(separator) & set('\r\n"')):
        raise ValueError(f"separator is {separator!r}; it must be one character or more, such as ';' or '::'")


def _guess_separator(text: TextFile) -> str:
    line = re.sub(r'"(?:[^"]|"")*"', "", text.head).split("\n", 1)[0]
    for separator in SEPARATORS:
        if separator in line:
            return separator
    raise text.error(
        f"no separator is known in {line[:60]!r}; columns can be separated by {', '.join(SEPARATORS.values())}; "
        "name another one, such as separator=' '",
        line=text.begin,
    )


def _first_row(text: TextFile, separator: str, quotes: bool | None) -> tuple[list[str], int]:
    """Return the values of the first row, and how many lines it takes."""
    # What csv does with quotation marks is what Arrow does: they count where a value begins.
    mark = None if quotes is False else '"'
    rows = csv.reader(io.StringIO(text.head), delimiter=separator, quotechar=mark)
    try:
        return next(rows), rows.line_num
    except csv.Error as error:
        raise text.error(f"this is no row of a table ({error})", line=text.begin) from error


def _names(
    text: TextFile, first: list[str], columns: Sequence[str] | None, header: bool | None
) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the first row is a header."""
    if columns is not None:
        if header is not True and len(columns) != len(first):
            raise text.error(f"{len(columns)} names are given for {len(first)} columns", line=text.begin)
        # A first row in which each value is the name of its column is no data.
        return _distinct(text, list(columns)), first == list(columns) if header is None else header
    if header is None and _all_numbers(first):
        if MOVIELENS_FILES.fullmatch(text.name) and len(first) == len(MOVIELENS_COLUMNS):
            return list(MOVIELENS_COLUMNS), False
        raise text.error(
            f"{len(first)} numbers: if they are data, name the columns (columns=['user', 'item', ...]) or say "
            "header=False; if they are names, say header=True",
            line=text.begin,
        )
    if header is False:
        return [str(number) for number in range(1, len(first) + 1)], False
    return _distinct(text, _untyped([name.strip() for name in first])), True


def _all_numbers(values: Sequence[str]) -> bool:
    try:
        return all(np.isfinite(float(value or 0)) for value in values)
    except ValueError:
        return False


def _distinct(text: TextFile, names: list[str]) -> list[str]:
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise text.error(
            f"two columns have the same name: {', '.join(names)[:200]} (if these are no names, say header=False)",
            line=text.begin,
        )
    return names


def _untyped(names: list[str]) -> list[str]:
    pairs = [name.rpartition(":") for name in names]
    return [pair[0] for pair in pairs] if all(pair[2] in RECBOLE_TYPES for pair in pairs) else names
