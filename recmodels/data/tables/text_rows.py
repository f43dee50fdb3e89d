"""Rows of a text, by Arrow's parser: each has its line, and as many values as there are columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from recmodels.data.tables.arrow_memory import POOL
from recmodels.data.tables.text_file import LONGEST_LINE, TextFile

BLOCK = 2 * LONGEST_LINE  # bytes parsed at once; no row is longer


@dataclass(frozen=True)
class Layout:
    """How rows are to be read.

    Attributes:
        separator: one character of ASCII.
        quotes: whether "..." may hold separators and line breaks; None if so, but a tab and a line break only where
            tabs do not separate.
        width: the number of columns.
    """

    separator: str
    quotes: bool | None
    width: int

    def parser(self, invalid_row_handler: Any) -> Any:
        """Return Arrow's options, which give a line without any character as a row of empty values."""
        return arrow_csv.ParseOptions(
            delimiter=self.separator,
            quote_char=False if self.quotes is False else '"',
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=invalid_row_handler,
        )


def parse_rows(text: TextFile, layout: Layout) -> tuple[list[Any], pd.Index[Any]]:
    """Parse all that is left of a text; rows of empty values are left out.

    Returns:
        For each column the (N,) values as Arrow's text, and the (N,) lines, counted from 1, in which rows begin.

    Raises:
        DataError: a row with another number of columns, or a quotation mark that is not closed.
    """
    begin = text.begin
    table, odd, failure = _parse(text, layout)
    breaks = _line_breaks(table) if text.quoted and layout.quotes is not False else None
    lines = _Lines(begin, len(table), breaks)
    if odd is not None:
        raise text.error(_what_is_odd(odd, layout), line=lines.of(odd.number - 1))
    if failure is not None:
        raise text.error(_what_failed(failure), line=lines.of(len(table)))
    if lines.of(len(table)) != text.lines + 1:  # the line end that every text ends with lies inside quotes
        raise text.error(f"a quotation mark is never closed{AS_CHARACTERS}", line=lines.of(len(table) - 1))
    if layout.quotes is None and layout.separator == "\t" and breaks is not None:
        _refuse_rows_swallowed(table, breaks, text, lines)
    filled = _filled(table)
    index = lines.index()
    if filled is None:
        return table.columns, index
    return table.filter(pa.array(filled)).columns, index[filled]


AS_CHARACTERS = "; where quotation marks are characters like others, say quotes=False"


@dataclass(frozen=True)
class _Lines:
    """In which line each of N rows begins.

    Attributes:
        begin: line of the first row.
        count: N.
        breaks: (N,) line breaks within each row, or None where there are none.
    """

    begin: int
    count: int
    breaks: npt.NDArray[np.int64] | None

    def of(self, row: int) -> int:
        """Return the line of a row, or of what follows the last."""
        return self.begin + row + (0 if self.breaks is None else int(self.breaks[:row].sum()))

    def index(self) -> pd.Index[Any]:
        """Return the lines of all rows."""
        if self.breaks is None:
            return pd.RangeIndex(self.begin, self.begin + self.count, name="line")
        before = np.cumsum(self.breaks) - self.breaks
        return pd.Index(self.begin + np.arange(self.count) + before, name="line")


def _parse(text: TextFile, layout: Layout) -> tuple[Any, Any, Exception | None]:
    """Return the rows, the first row with another number of columns, and what Arrow ended with."""
    odd: list[Any] = []

    def note(row: Any) -> str:
        odd[:] = odd or [row]
        return "skip"

    names = [str(number) for number in range(layout.width)]
    schema = pa.schema([(name, pa.string()) for name in names])
    batches: list[Any] = []
    failure = None
    try:
        reader = arrow_csv.open_csv(
            text,
            # One thread: others do not know the numbers of rows.
            arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
            layout.parser(note),
            # What is text was checked when it was decoded.
            arrow_csv.ConvertOptions(check_utf8=False, strings_can_be_null=False, default_column_type=pa.string()),
            memory_pool=POOL,
        )
        batches.extend(reader)
    except pa.ArrowInvalid as error:
        failure = error
    return pa.Table.from_batches(batches, schema), odd[0] if odd else None, failure


def _line_breaks(table: Any) -> npt.NDArray[np.int64] | None:
    """Return the number of line breaks inside each row's values, or None where there is none at all."""
    breaks = np.zeros(len(table), dtype=np.int64)
    for column in table.columns:
        breaks += pc.count_substring(column, "\n", memory_pool=POOL).to_numpy()
    return breaks if breaks.any() else None


def _filled(table: Any) -> npt.NDArray[np.bool_] | None:
    """Return which rows have a value that is not empty, or None where each does."""
    filled = np.zeros(len(table), dtype=bool)
    for column in table.columns:
        filled |= pc.not_equal(column, "", memory_pool=POOL).to_numpy()
        if filled.all():
            return None
    return filled


def _what_is_odd(row: Any, layout: Layout) -> str:
    problem = f"{row.actual_columns} columns; the table has {layout.width}"
    if row.number == 1 and row.actual_columns == layout.width + 1:
        problem += " names (if row names come first, as from R, give names of all columns, and header=True)"
    breaks = row.text.count("\n")
    return problem + (f" (a value in quotes runs over {breaks} line ends{AS_CHARACTERS})" if breaks else "")


def _what_failed(failure: Exception) -> str:
    if "straddl" in str(failure):
        return f"a row of more than {BLOCK:,} bytes, or a quotation mark that is not closed{AS_CHARACTERS}"
    return str(failure)


def _refuse_rows_swallowed(table: Any, breaks: npt.NDArray[np.int64], text: TextFile, lines: _Lines) -> None:
    """Refuse values that hold tabs and line breaks: between two lone quotation marks, whole rows look like that."""
    broken = np.flatnonzero(breaks)
    rows = table.take(pa.array(broken))
    for column in rows.columns:
        swallowed = pc.match_substring_regex(column, r"(?s)\t.*\n|\n.*\t").to_numpy()
        if swallowed.any():
            raise text.error(
                "a value in quotes holds a tab and a line break, as if it had swallowed a row; if that is right, "
                f"say quotes=True{AS_CHARACTERS}",
                line=lines.of(int(broken[swallowed.argmax()])),
            )
