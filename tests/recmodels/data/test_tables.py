from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.data.interactions import DataError
from recmodels.data.tables import read_table


def write(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("separator", ["\t", "::", ";", ","])
def test_separators_are_found_and_values_stay_text(tmp_path: Path, separator: str) -> None:
    rows = [["user", "item", "rating"], ["007", "NA", "4"], ["a b", "nan", "3.50"]]
    frame = read_table(write(tmp_path, "\n".join(separator.join(row) for row in rows) + "\n"))
    assert list(frame.columns) == rows[0]
    assert frame.to_numpy().tolist() == rows[1:]
    assert frame.index.tolist() == [2, 3] and frame.index.name == "line"


VALUES = st.text(st.characters(codec="utf-8", exclude_characters='\t\n\r"'), max_size=6)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6)


@settings(max_examples=60)
@given(rows=ROWS, windows=st.booleans())
def test_any_text_without_separator_quote_or_line_break_survives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], windows: bool
) -> None:
    end = "\r\n" if windows else "\n"
    text = end.join(["user\titem", *("\t".join(row) for row in rows)]) + end
    frame = read_table(write(tmp_path_factory.mktemp("tables"), text))
    assert frame.to_numpy().tolist() == [list(row) for row in rows]


def test_types_in_recbole_headers_are_dropped(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "user_id:token\titem_id:token\trating:float\n1\t2\t3\n", "x.inter"))
    assert list(frame.columns) == ["user_id", "item_id", "rating"]
    other = read_table(write(tmp_path, "user:id\titem\n1\t2\n"))
    assert list(other.columns) == ["user:id", "item"]


def test_movielens_files_have_no_header(tmp_path: Path) -> None:
    for separator in ("\t", "::"):
        line = separator.join(("196", "242", "3", "881250949"))
        frame = read_table(write(tmp_path, f"{line}\n{line}\n", "u.data"))
        assert list(frame.columns) == ["user_id", "item_id", "rating", "timestamp"]
        assert frame.index.tolist() == [1, 2]


def test_names_for_a_table_without_header(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2,5\n1,3,4\n")
    assert list(read_table(path, columns=["u", "i", "r"]).columns) == ["u", "i", "r"]
    with pytest.raises(DataError, match=r"log.csv: there is no header, only 3 columns of numbers; give the names"):
        read_table(path)
    with pytest.raises(DataError, match=r"2 names are given for 3 columns"):
        read_table(path, columns=["u", "i"])
    with pytest.raises(DataError, match="columns are given, but the file has a header: user, item"):
        read_table(write(tmp_path, "user,item\n1,2\n"), columns=["u", "i"])


def test_archives(tmp_path: Path) -> None:
    text = "user,item\n1,2\n"
    packed = write(tmp_path, gzip.compress(text.encode()), "log.csv.gz")
    assert len(read_table(packed)) == 1
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml-100k/README", "words")
        archive.writestr("ml-100k/u.data", "1\t2\t3\t4\n")
    assert read_table(tmp_path / "ml.zip").to_numpy().tolist() == [["1", "2", "3", "4"]]
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", text)
        archive.writestr("b.csv", text)
    with pytest.raises(DataError, match=r"two.zip: holds 2 files, u.data not among them"):
        read_table(tmp_path / "two.zip")


@pytest.mark.parametrize("name", ["cut.csv.gz", "cut.zip"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    whole = gzip.compress(b"user,item\n1,2\n" * 50)
    with pytest.raises(DataError, match=f"{name}: the archive is damaged"):
        read_table(write(tmp_path, whole[:-12], name))
    with pytest.raises(DataError, match=f"{name}: the archive is damaged"):
        read_table(write(tmp_path, "no archive at all", name))


def test_quotes_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    text = '\ufeff"user","item"\n\n"Smith, J","a ""b"""\n\nx,y\n\n'
    frame = read_table(write(tmp_path, text))
    assert list(frame.columns) == ["user", "item"]
    assert frame.to_numpy().tolist() == [["Smith, J", 'a "b"'], ["x", "y"]]
    assert frame.index.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log.csv: the file is empty"),
        ("\n\n", "log.csv: the file is empty"),
        ("user,item\n", "log.csv: there are no rows below the header"),
        ("user|item\n1|2\n", r"log.csv, line 1: no separator is known in 'user\|item'; .* tab, '::', ';', ','"),
        ("user,item\n1,2\n1,2,3\n", "log.csv, line 3: 3 columns; the table has 2"),
        ("user,item\n1,2\n\n7\n", "log.csv, line 4: 1 columns; the table has 2"),
        ("user,user\n1,2\n", "log.csv: two columns have the same name: user, user"),
        (b"user,item\n1,\xff\n", "log.csv, line 2: this is no text in UTF-8"),
        ('user,item\n"1",2\n1,2,3\n', r"log.csv: .*[Ee]xpected 2 fields"),
        ('user,item\n"1\n1",2\n', r"log.csv: "),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "nowhere.csv")


def test_what_is_said_outranks_the_look_of_the_first_line(tmp_path: Path) -> None:
    bars = write(tmp_path, "user|item, made\n1|2, 3\n")
    frame = read_table(bars, separator="|")
    assert list(frame.columns) == ["user", "item, made"] and frame.to_numpy().tolist() == [["1", "2, 3"]]
    several = write(tmp_path, "user -> item\tmade\na\t1 -> b\n")
    assert read_table(several, separator=" -> ").to_numpy().tolist() == [["a\t1", "b"]]
    words = write(tmp_path, "ann,film,5\nbob,book,1\n")
    assert list(read_table(words, header=False).columns) == ["1", "2", "3"]
    assert len(read_table(words, columns=["u", "i", "r"], header=False)) == 2
    years = write(tmp_path, "1994,1995\n1,2\n")
    assert read_table(years, header=True).to_dict("list") == {"1994": ["1"], "1995": ["2"]}
