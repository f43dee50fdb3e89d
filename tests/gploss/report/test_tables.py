from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from gploss.report import tables as report

# ---- Markdown


def test_markdown_of_a_small_table() -> None:
    frame = pd.DataFrame({"loss | name": ["a|b", "c\nd", None], "AUC": [0.5, 0.8123456789, np.nan], "n": [1, 2, 3]})
    assert report.to_markdown(frame) == (
        "| loss \\| name | AUC | n |\n"
        "| --- | ---: | ---: |\n"
        "| a\\|b | 0.5 | 1 |\n"
        "| c<br>d | 0.812346 | 2 |\n"
        "|  |  | 3 |\n"
    )


def test_markdown_needs_a_column() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        report.to_markdown(pd.DataFrame())


@given(st.lists(st.tuples(st.text(max_size=12), st.floats()), max_size=5))
def test_any_text_keeps_the_table_whole(rows: list[tuple[str, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["text|", "number"])
    lines = report.to_markdown(frame).removesuffix("\n").split("\n")
    assert len(lines) == len(rows) + 2
    for line in lines:
        bars = re.findall(r"(\\*)\|", line)
        assert sum(len(slashes) % 2 == 0 for slashes in bars) == 3, line


# ---- the terminal


def printed(frame: pd.DataFrame, title: str | None = None, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report.to_rich_table(frame, title))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_rich_tables_take_texts_literally() -> None:
    text = printed(pd.DataFrame({"a [bold]": ["[red]x[/red]", "[/nothing]"], "n": [1, 2]}), "[title]")
    for part in ("a [bold]", "[red]x[/red]", "[/nothing]", "[title]"):
        assert part in text


def test_long_formulas_are_listed_below_the_table() -> None:
    formula = "mul(label, log(add(pred, sigmoid(max(pred, neg(label))))))"
    frame = pd.DataFrame({"searcher": ["rl"], "AUC": [0.5], "best formula": [formula]})
    text = printed(frame, width=70)
    assert f"best formula:\n  rl: {formula}" in "\n".join(line.rstrip() for line in text.splitlines())
    assert re.search(rf"rl +0.5 +{re.escape(formula)}", printed(frame, width=90)), "there is room for it"


@given(st.lists(st.text("abc ", max_size=20), min_size=1, max_size=14), st.integers(60, 120))
@example(["a" * 30] * 9, 80)
@example(["a" * 9] * 8, 80)
@example(["0.0004", "-0.0101 to +0.0014"] * 5, 80)
def test_nothing_is_cut_off_at_the_edge_of_the_window(cells: list[str], width: int) -> None:
    names = [f"column {number}" for number in range(len(cells))]
    text = printed(pd.DataFrame([cells], columns=names), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    for letter in "abcmn0124":
        assert text.count(letter) == "".join([*names, *cells]).count(letter)


def test_words_stay_whole_where_there_is_room() -> None:
    frame = pd.DataFrame({name: ["hand-made 0.123"] for name in ("validation AUC", "difference", "p", "found by")})
    for word in ("hand-made", "0.123", "validation", "difference"):
        assert word in printed(frame, width=60)


def test_a_table_without_rows_has_its_heading() -> None:
    assert "reward" in printed(pd.DataFrame({"loss": [], "reward": []}))
