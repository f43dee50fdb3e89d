"""What the user says outranks every guess; where a guess could be wrong in silence, it has to be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recmodels.data.interactions import DataError
from recmodels.data.tables import read_table

AMAZON = "AX1,B0001,5.0,1387670400\nAX2,B0001,1.0,1378857600\nAX1,B0002,4.0,1362182400\n"
TAOBAO = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"
CRITEO = "0\t1\t\t5\t68fd1e64\t\n1\t\t0\t\t68fd1e64\te5ba7672\n"


def write(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (AMAZON, ["user", "item", "rating", "timestamp"]),
        (TAOBAO, ["user", "item", "category", "behaviour", "time"]),
        (CRITEO, ["label", "I1", "I2", "I3", "C1", "C2"]),
        ("1,2,5\n1,3,4\n", ["u", "i", "r"]),
        ('"a, b",2,5\n"c",3,4\n', ["u", "i", "r"]),
    ],
)
def test_names_that_are_given_say_that_there_is_no_header(tmp_path: Path, text: str, names: list[str]) -> None:
    path = write(tmp_path, text)
    frame = read_table(path, columns=names)
    assert list(frame.columns) == names
    assert len(frame) == text.count("\n") and frame.index[0] == 1
    assert read_table(path, columns=names, header=False).equals(frame)
    assert len(read_table(path, columns=names, header=True)) == len(frame) - 1


def test_a_first_row_of_the_names_themselves_is_the_header(tmp_path: Path) -> None:
    path = write(tmp_path, "user,item\n1,2\n")
    assert read_table(path, columns=["user", "item"]).to_numpy().tolist() == [["1", "2"]]
    assert len(read_table(path, columns=["user", "item"], header=False)) == 2
    assert len(read_table(path, columns=["item", "user"])) == 2


def test_numbers_in_the_first_row_are_not_guessed_about(tmp_path: Path) -> None:
    path = write(tmp_path, "1994,1995\n1,2\n")
    with pytest.raises(DataError, match=r"^log.csv, line 1: 2 numbers: .*columns=.* header=False; .* header=True"):
        read_table(path)
    assert read_table(path, header=True).to_dict("list") == {"1994": ["1"], "1995": ["2"]}
    assert read_table(path, header=False).to_dict("list") == {"1": ["1994", "1"], "2": ["1995", "2"]}
    with pytest.raises(DataError, match="line 1: 3 numbers"):
        read_table(write(tmp_path, "1,,5\n1,2,5\n"))  # a gap is no name


def test_four_columns_of_numbers_are_ratings_with_times_in_movielens_files_alone(tmp_path: Path) -> None:
    for name, separator in (("u.data", "\t"), ("ratings.dat", "::"), ("u1.base", "\t"), ("ub.test", "\t")):
        line = separator.join(("196", "242", "3", "881250949"))
        frame = read_table(write(tmp_path, f"{line}\n{line}\n", name))
        assert list(frame.columns) == ["user_id", "item_id", "rating", "timestamp"]
        assert frame.index.tolist() == [1, 2]
    with pytest.raises(DataError, match="line 1: 4 numbers"):
        read_table(write(tmp_path, "196\t242\t3\t17\n", "mine.data"))


def test_a_separator_that_is_said(tmp_path: Path) -> None:
    bars = write(tmp_path, "user|item, made\n1|2, 3\n")
    frame = read_table(bars, separator="|")
    assert list(frame.columns) == ["user", "item, made"] and frame.to_numpy().tolist() == [["1", "2, 3"]]
    comma = write(tmp_path, "user;name,item\n1,2\n")
    with pytest.raises(DataError, match="line 2: 1 columns; the table has 2"):
        read_table(comma)  # the semicolon was guessed
    assert list(read_table(comma, separator=",").columns) == ["user;name", "item"]
    assert read_table(write(tmp_path, "a b\n1 2\n"), separator=" ")["b"].tolist() == ["2"]
    assert read_table(write(tmp_path, "a§b\n1§2\n"), separator="§")["b"].tolist() == ["2"]


@pytest.mark.parametrize(
    "encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252", "utf-8", "UTF8", "utf-8-sig", "gbk"]
)
def test_an_encoding_that_is_said(tmp_path: Path, encoding: str) -> None:
    word = "电影" if encoding == "gbk" else "Amélie"
    (tmp_path / "log.csv").write_bytes(f"user,item\n1,{word}\n".encode(encoding))
    assert read_table(tmp_path / "log.csv", encoding=encoding).to_numpy().tolist() == [["1", word]]


def test_text_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item\r\n" + b"1,2\r\n" * 100_000 + "1,Amélie\r\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"^log.csv, line 100002: this is no text in UTF-8; .*encoding='latin-1'"):
        read_table(path)
    path.write_bytes("user,item\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"^log.csv, line 1: this is no text in UTF-8; .*'utf-16'"):
        read_table(path)
    path.write_bytes(b"user,item\n1,2\n\n1,\xe9")  # cut off in a character
    with pytest.raises(DataError, match=r"^log.csv, line 4: "):
        read_table(path)
    path.write_bytes("user,item\n1,2\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"^log.csv, line 2: this is no text in UTF-16"):
        read_table(path, encoding="utf-16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "user,item"}, "columns is 'user,item'; it must be a list of names"),
        ({"columns": [0, 1]}, "columns is .0, 1.; it must be a list of names"),
        ({"columns": {"user", "item"}}, "columns is .*; it must be a list of names"),
        ({"columns": ["user"]}, "log.csv, line 1: 1 names are given for 2 columns"),
        ({"columns": ["user", "user"]}, "log.csv, line 1: two columns have the same name"),
        ({"columns": ["a", "b", "c"], "header": True}, "log.csv, line 2: 2 columns; the table has 3"),
        ({"header": "no"}, "header is 'no'; it can be True or False"),
        ({"quotes": '"'}, "quotes is '\"'; it can be True or False"),
        ({"separator": ""}, "separator is ''; it must be one character or more"),
        ({"separator": "\n"}, "separator is .*; it must be one character or more"),
        ({"separator": 5}, "separator is 5; it must be one character or more"),
        ({"encoding": "utf-9"}, "encoding is 'utf-9'; it must name one, such as 'utf-8'"),
        ({"encoding": "hex"}, "encoding is 'hex'; it must name one"),
        ({"encoding": 8}, "encoding is 8; it must name one"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, "user,item\n1,2\n"), **options)
