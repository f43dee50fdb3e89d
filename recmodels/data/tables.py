"""Reads text tables; errors name the file and the line (the header is a line too)."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recmodels.data.interactions import DataError

SEPARATORS = {"\t": "tab", "::": "'::'", ";": "';'", ",": "','"}
MOVIELENS_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_UNIT = "\x1f"  # ASCII's own separator
RECBOLE_TYPES = ("token", "float", "token_seq", "float_seq")


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    separator: str | None = None,
    header: bool | None = None,
) -> pd.DataFrame:
    """Read a text table whose separator is a tab, '::', a semicolon or a comma, found in the first line.

    The first line is the header unless all of it is numbers. Without a header, four columns are taken as
    MovieLens' user_id, item_id, rating, timestamp; for other tables give the names, or say that there is no header.
    Types in RecBole's headers ("user_id:token") are dropped. Lines without any character are skipped. Files ending
    in .gz are unpacked; in a .zip file, u.data is read, or else its only file.

    Args:
        path: the file, in UTF-8.
        columns: names for the columns of a table without a header.
        separator: what separates the columns, where it is none of these, or not the first of them that occurs.
        header: whether the first line is one, where its look deceives. Columns of a table that is said to have none
            are named "1", "2", "3" and so on, unless names are given.

    Returns:
        All values as text; the index, named "line", holds line numbers that count from 1, header included.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: not a text table, an unknown separator, or a line with another number of columns.
    """
    path = Path(path)
    source = path.name
    lines = _read_text(path).replace("\r\n", "\n").split("\n")
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line]
    if not filled:
        raise DataError(f"{source}: the file is empty")
    separator = separator or _detect_separator(source, *filled[0])
    first = [name.strip().strip('"') for name in filled[0][1].split(separator)]
    if header is False and columns is None:
        names = [str(number) for number in range(1, len(first) + 1)]
    elif header is False or (header is None and _all_numbers(first)):
        names = _names_without_header(source, len(first), columns)
    elif columns is not None:
        raise DataError(f"{source}: columns are given, but the file has a header: {', '.join(first)}")
    else:
        names = _untyped(first)
        filled = filled[1:]
    if not filled:
        raise DataError(f"{source}: there are no rows below the header")
    if len(set(names)) < len(names):
        raise DataError(f"{source}: two columns have the same name: {', '.join(names)}")
    return _parse(source, filled, separator, names)


def _read_text(path: Path) -> str:
    try:
        if path.suffix == ".zip":
            content = _read_from_zip(path)
        elif path.suffix == ".gz":
            content = gzip.decompress(path.read_bytes())
        else:
            content = path.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}: this is no text in UTF-8; convert the file") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path.name}: the archive is damaged ({error}); get it again") from error


def _read_from_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        chosen = [name for name in names if name.split("/")[-1] == "u.data"] or names
        if len(chosen) != 1:
            raise DataError(f"{path.name}: holds {len(names)} files, u.data not among them; unpack the one to read")
        return archive.read(chosen[0])


def _detect_separator(source: str, number: int, line: str) -> str:
    for separator in SEPARATORS:
        if separator in line:
            return separator
    raise DataError(
        f"{source}, line {number}: no separator is known in {line[:60]!r}; "
        f"columns can be separated by {', '.join(SEPARATORS.values())}"
    )


def _all_numbers(values: Sequence[str]) -> bool:
    try:
        return all(np.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def _names_without_header(source: str, width: int, columns: Sequence[str] | None) -> list[str]:
    names = list(MOVIELENS_COLUMNS if columns is None and width == len(MOVIELENS_COLUMNS) else columns or ())
    if not names:
        raise DataError(
            f"{source}: there is no header, only {width} columns of numbers; give the names as columns=[...]"
        )
    if len(names) != width:
        raise DataError(f"{source}: {len(names)} names are given for {width} columns")
    return names


def _untyped(names: list[str]) -> list[str]:
    pairs = [name.rpartition(":") for name in names]
    return [pair[0] for pair in pairs] if all(pair[2] in RECBOLE_TYPES for pair in pairs) else names


def _parse(source: str, lines: list[tuple[int, str]], separator: str, names: list[str]) -> pd.DataFrame:
    """Parse (line number, line) pairs; every value is text."""
    quoted = any('"' in line for _, line in lines)
    if not quoted:  # inside quotes a separator may be part of a value: then the parser has to count
        for number, line in lines:
            width = line.count(separator) + 1
            if width != len(names):
                raise DataError(f"{source}, line {number}: {width} columns; the table has {len(names)}")
    text = "\n".join(line for _, line in lines)
    if len(separator) > 1:  # the parser knows single characters; this one is in no text
        text, separator = text.replace(separator, _UNIT), _UNIT
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=list(range(len(names))) if quoted else names,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            on_bad_lines="error",
        )
    except pd.errors.ParserError as error:
        raise DataError(f"{source}: {error}") from error
    if len(frame) != len(lines):
        raise DataError(f"{source}: a value in quotes spans several lines; remove the line breaks")
    frame.columns = pd.Index(names)
    frame.index = pd.Index([number for number, _ in lines], name="line")
    return frame
