from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from gploss.report import tables as report


def made_up() -> pd.DataFrame:
    """Two searchers; the second trained something with one of its three seeds only."""
    rows = [
        ("genetic", 0, 1, "mul(pred, label)", "trained", 0.70, 3, 1.0),
        ("genetic", 0, 2, "pred", "rejected", None, 1, 1.5),
        ("genetic", 0, 3, "log(pred)", "trained", 0.80, 2, 4.0),
        ("genetic", 1, 1, "neg(pred)", "trained", 0.60, 2, 2.0),
        ("genetic", 1, 2, "neg(pred)", "duplicate", 0.99, 2, 2.5),
        ("rl", 0, 1, "inv(inv(pred))", "trained", 0.75, 3, 2.0),
        ("rl", 0, 2, "inv(pred)", "trained", 0.75, 2, 3.0),
        ("rl", 1, 1, "label", "rejected", None, 1, 1.0),
        ("rl", 2, 1, "label", "diverged", None, 1, 1.0),
    ]
    columns = ["searcher", "seed", "step", "expression", "status", "reward", "complexity", "elapsed"]
    return pd.DataFrame(rows, columns=columns)


def test_summary_condenses_runs() -> None:
    frame = report.summary(made_up()).set_index("searcher")
    genetic, rl = frame.loc["genetic"], frame.loc["rl"]
    assert genetic["seeds"] == 2
    assert genetic["trained_candidates"] == 1.5
    assert genetic["proposals"] == 2.5
    assert genetic["best_reward_median"] == pytest.approx(0.70)
    assert genetic["best_reward_lower_quartile"] == pytest.approx(0.65)
    assert genetic["best_reward_upper_quartile"] == pytest.approx(0.75)
    assert genetic["seconds"] == pytest.approx(3.25)
    assert genetic["best_formula"] == "log(pred)"
    assert rl["best_formula"] == "inv(pred)", "the simpler one of two equally good"
    assert rl["best_reward"] == 0.75
    assert np.isnan(rl["best_reward_median"]), "most of its runs have found nothing"


def test_summary_where_lower_is_better_mirrors_the_figures() -> None:
    frame = made_up()
    up = report.summary(frame).iloc[0]
    down = report.summary(frame.assign(reward=-frame["reward"]), higher_is_better=False).iloc[0]
    assert down["best_reward"] == -up["best_reward"]
    assert down["best_reward_median"] == pytest.approx(-up["best_reward_median"])
    assert down["best_reward_lower_quartile"] == pytest.approx(-up["best_reward_upper_quartile"])
    assert down["best_formula"] == up["best_formula"]


def test_summary_adds_up_seconds_where_there_is_no_clock() -> None:
    frame = made_up().drop(columns="elapsed").assign(seconds=2.0)
    assert report.summary(frame)["seconds"].tolist() == [5.0, 2.0]
    with pytest.raises(ValueError, match="summary needs the columns elapsed"):
        report.summary(frame.drop(columns="seconds"))
    with pytest.raises(ValueError, match="summary needs the columns expression"):
        report.summary(frame.drop(columns="expression"))


def test_summary_of_no_row_is_an_empty_table_with_its_columns() -> None:
    frame = report.summary(made_up().iloc[:0])
    assert len(frame) == 0
    assert "best_formula" in frame.columns


def test_readable_summary_says_none_and_never_nan() -> None:
    table = report.readable_summary(report.summary(made_up()), "validation AUC")
    text = report.to_markdown(table)
    assert "nan" not in text
    assert table["best validation AUC"].tolist() == ["0.7000", "none"]
    assert table["quartiles"].tolist()[0] == "0.6500 to 0.7500"


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
    text = printed(pd.DataFrame({"searcher": ["rl"], "AUC": [0.5], "best formula": [formula]}))
    assert f"best formula:\n  rl: {formula}" in "\n".join(line.rstrip() for line in text.splitlines())


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


# ---- the machine


def test_environment_is_a_json_record() -> None:
    record = report.environment(seed=5)
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {
        "python", "platform", "numpy", "torch", "numba", "pandas", "gploss", "cpu", "cores", "device", "seed",
    }  # fmt: skip
    assert record["numpy"] == np.__version__
    assert isinstance(record["cores"], int)
    assert record["cores"] >= 1
    assert record["device"] == "cpu"
    assert record["cpu"]
    assert record["seed"] == 5


def test_cpu_name_comes_from_the_system_or_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Abacus 9: fast\n")
    assert report._cpu_name(cpuinfo) == "Abacus 9: fast"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "slide rule")
    assert report._cpu_name(tmp_path / "absent") == "slide rule"


def test_a_package_that_is_not_installed_is_said() -> None:
    assert report._version("no-such-package-as-this") == "not installed"
