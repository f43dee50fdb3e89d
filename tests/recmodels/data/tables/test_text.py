"""Tables of text: the same rules whether a file has quotation marks or not, and lines named exactly."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
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
ROWS = st.lists(st.tuples(VALUES, VALUES).filter(any), min_size=1, max_size=6)


@settings(max_examples=60)
@given(rows=ROWS, windows=st.booleans())
def test_any_text_without_separator_quote_or_line_break_survives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], windows: bool
) -> None:
    end = "\r\n" if windows else "\n"
    text = end.join(["user\titem", *("\t".join(row) for row in rows)]) + end
    frame = read_table(write(tmp_path_factory.mktemp("tables"), text))
    assert frame.to_numpy().tolist() == [list(row) for row in rows]


ANY_VALUES = st.text(st.sampled_from('a0 ,;"\n'), max_size=5)


@settings(max_examples=150)
@given(
    rows=st.lists(st.lists(ANY_VALUES, min_size=3, max_size=3), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    separator=st.sampled_from(",;"),
    blank=st.integers(0, 2),
    last_end=st.booleans(),
)
def test_what_csv_writes_is_read_and_every_line_is_known(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    quoting: int,
    separator: str,
    blank: int,
    last_end: bool,
) -> None:
    assume(any(map(any, rows)))
    memory = io.StringIO()
    writer = csv.writer(memory, delimiter=separator, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writerow(["user", f"it{separator}em\nname", "rating"])
    lines = []
    for row in rows:
        lines.append(memory.getvalue().count("\n") + 1)
        writer.writerow(row)
        memory.write("\n" * blank)
    text = memory.getvalue()
    text = text if last_end else text.rstrip("\n")
    frame = read_table(write(tmp_path_factory.mktemp("tables"), text), separator=separator)
    expected = [(line, row) for line, row in zip(lines, rows, strict=True) if any(row)]
    assert list(frame.columns) == ["user", f"it{separator}em\nname", "rating"]
    assert frame.index.tolist() == [line for line, _ in expected]
    assert frame.to_numpy().tolist() == [row for _, row in expected]


@pytest.mark.parametrize("quote", ["", '"'])
def test_files_larger_than_what_is_parsed_at_once(tmp_path: Path, quote: str) -> None:
    """Two rows of the wrong width far down, and lines that are right to the end."""
    rows = [f"{quote}{k % 977}{quote},{k % 1009},{quote}{k}{quote}\n" for k in range(200_000)]
    path = write(tmp_path, "user,item,time\n" + "".join(rows))
    frame = read_table(path)
    assert frame.index[-1] == 200_001 and frame["time"].tolist() == [str(k) for k in range(200_000)]
    rows[150_000] = f"{quote}1{quote},2\n"
    rows[150_007] = "1,2,3,4\n"
    with pytest.raises(DataError, match=r"^log.csv, line 150002: 2 columns; the table has 3$"):
        read_table(write(tmp_path, "user,item,time\n" + "".join(rows)))


def test_quotes_byte_order_mark_and_empty_lines(tmp_path: Path) -> None:
    text = '\ufeff"user","item"\n\n"Smith, J","a ""b"""\n\nx,y\n\n'
    frame = read_table(write(tmp_path, text))
    assert list(frame.columns) == ["user", "item"]
    assert frame.to_numpy().tolist() == [["Smith, J", 'a "b"'], ["x", "y"]]
    assert frame.index.tolist() == [3, 5]


def test_empty_lines_before_the_header_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^log.csv, line 5: 3 columns"):
        read_table(write(tmp_path, "\n\nuser,item\n1,2\n1,2,3\n"))


def test_rows_of_separators_alone_as_spreadsheets_write_them_are_left_out(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "user,item,\n1,2,\n,,\n3,4,\n,,\n"))
    assert frame.index.tolist() == [2, 4] and frame["item"].tolist() == ["2", "4"]


def test_a_line_break_in_quotes_is_part_of_a_value(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, 'user,review,rating\n1,"fine\nfilm",5\n2,"a\r\n\r\nb",1\n3,x,2\n'))
    assert frame["review"].tolist() == ["fine\nfilm", "a\n\nb", "x"]
    assert frame.index.tolist() == [2, 4, 7]


def test_quotation_marks_inside_of_values_are_characters(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, 'user,title\n1,12" single\n2,say "yes"\n'))
    assert frame["title"].tolist() == ['12" single', 'say "yes"']


@pytest.mark.parametrize("separator", ["\t", ","])
def test_a_file_in_which_quotation_marks_mean_nothing(tmp_path: Path, separator: str) -> None:
    """As Amazon's reviews: a title that begins with a mark swallows the rows up to the next one."""
    rows = [["user", "item", "title"], ["1", "7", '"Great'], ["2", "7", "dull"], ["3", "8", '"Fine"']]
    path = write(tmp_path, "\n".join(map(separator.join, rows)) + "\n")
    assert read_table(path, quotes=False).to_numpy().tolist() == rows[1:]
    rows[3][2] = "Fine"
    with pytest.raises(DataError, match=r"^log.csv, line 2: .*say quotes=False"):
        read_table(write(tmp_path, "\n".join(map(separator.join, rows)) + "\n"))


def test_swallowed_rows_that_leave_the_number_of_columns_right(tmp_path: Path) -> None:
    path = write(tmp_path, 'user\titem\ttitle\tstars\n1\t7\tgood\t5\n1\t8\t"Great\t5\n2\t7\tGood"\t4\n')
    with pytest.raises(DataError, match=r"^log.csv, line 3: a value in quotes holds a tab and a line break"):
        read_table(path)
    assert len(read_table(path, quotes=False)) == 3
    assert read_table(path, quotes=True)["title"].tolist() == ["good", "Great\t5\n2\t7\tGood"]


def test_types_in_recbole_headers_are_dropped(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "user_id:token\titem_id:token\trating:float\n1\t2\t3\n", "x.inter"))
    assert list(frame.columns) == ["user_id", "item_id", "rating"]
    other = read_table(write(tmp_path, "user:id\titem\n1\t2\n"))
    assert list(other.columns) == ["user:id", "item"]


def test_a_line_of_separators_of_several_characters_may_hold_anything_else(tmp_path: Path) -> None:
    path = write(tmp_path, 'user -> item\tmade\na\t"1 -> ::b"\n')
    assert read_table(path, separator=" -> ").to_numpy().tolist() == [['a\t"1', '::b"']]
    long = write(tmp_path, "a::b\n" + "x::y\n" * 300_000)
    assert set(read_table(long)["b"]) == {"y"}
    with pytest.raises(DataError, match=r"line 2: holds the control character '\\x1f'"):
        read_table(write(tmp_path, "a::b\nx\x1f::y\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log.csv: the file is empty"),
        ("\n\n", "log.csv: the file is empty"),
        ("user,item\n", "log.csv: there are no rows below the header"),
        ("user,item\n,\n\n", "log.csv: no row holds a value"),
        ("user|item\n1|2\n", r"log.csv, line 1: no separator is known in 'user\|item'; .* tab, '::', ';', ','"),
        ("user,item\n1,2\n1,2,3\n", "log.csv, line 3: 3 columns; the table has 2"),
        ("user,item\n1,2\n\n7\n", "log.csv, line 4: 1 columns; the table has 2"),
        ('user,item\n"1",2\n\n7\n', "log.csv, line 4: 1 columns; the table has 2"),
        ('user,item,title\n1,2,"A, B"\n2,2,D, The\n', "log.csv, line 3: 4 columns; the table has 3"),
        (
            '"user","item"\n"1","a","b"\n',
            "line 2: 3 columns; the table has 2 names .if row names come first, as from R",
        ),
        ("user,user\n1,2\n", "log.csv, line 1: two columns have the same name: user, user"),
        ('user,item\n1,2\n"1,2\n3,4\n', "log.csv, line 3: .*quotes=False"),
        ('user,item\n1,2\n3,"4', "log.csv, line 3: a quotation mark is never closed"),
        ('user,item\n1,2\n3,"4\n', "log.csv, line 3: a quotation mark is never closed"),
        ('user,item\n1,2\n3,"4' + "x,y\n" * 600_000, "log.csv, line 3: .*a quotation mark that is not closed"),
        ("user,item\n1,2\n" + "x" * 10**6, "log.csv, line 3: is longer than .* this is no table"),
        ('user,"item' + "x" * 200_000 + '"\n1,2\n', "log.csv, line 1: this is no row of a table"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_row_names_as_r_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path, '"user","item","rating"\n"1",7,8,5\n"2",7,9,1\n')
    frame = read_table(path, columns=["row", "user", "item", "rating"], header=True)
    assert frame.to_dict("list") == {
        "row": ["1", "2"],
        "user": ["7", "7"],
        "item": ["8", "9"],
        "rating": ["5", "1"],
    }
    named = read_table(write(tmp_path, '"","user","item"\n"1",7,8\n'))  # write.csv
    assert named["user"].tolist() == ["7"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "nowhere.csv")
