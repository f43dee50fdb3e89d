from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from gploss.files.rows import checksum, intact, sealed

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = st.none() | numbers | st.text() | st.binary()
rows = st.lists(values, min_size=1, max_size=5)


@given(rows)
def test_a_row_comes_back_from_a_database_intact(row: list[Any]) -> None:
    assume(not any("\0" in value for value in row if isinstance(value, str)))
    names = ", ".join(f"c{place}" for place in range(len(row) + 1))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE rows ({names})")
        connection.execute(f"INSERT INTO rows VALUES ({', '.join('?' * (len(row) + 1))})", sealed("rows", row))
        assert intact("rows", connection.execute("SELECT * FROM rows").fetchone())


@given(rows, st.data())
def test_any_other_row_has_another_checksum(row: list[Any], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(row) - 1))
    value = data.draw(values)
    assume(repr(value) != repr(row[place]))
    changed = [*row[:place], value, *row[place + 1 :]]
    assert not intact("rows", (*changed, checksum("rows", row)))
    assert not intact("others", sealed("rows", row))


def test_equal_numbers_of_different_kinds_are_different() -> None:
    assert len({checksum("rows", [value]) for value in (1, 1.0, "1", b"1", None, "0x31", -0.0, 0.0, math.inf)}) == 9
