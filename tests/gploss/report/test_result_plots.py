"""Figures of alternating search, transfer and ablation: what they show is what the tables hold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gploss.report import plots
from gploss.report.plots.ablation import ablation
from gploss.report.plots.heat_map import heat_map
from gploss.report.plots.rounds import rounds


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "searcher": ["rl"] * 4 + ["genetic"] * 2,
            "seed": [0, 0, 1, 1, 0, 0],
            "round": [0, 1, 0, 1, 0, 1],
            "trained": [10, 5, 7, 8, 20, 1],
            "start": [0.5, 0.6, 0.5, 0.55, 0.5, 0.7],
            "end": [0.6, 0.6, 0.55, 0.65, 0.7, 0.72],
            "loss": ["a", None, "b", "c", "d", "e"],
        }
    )


def test_rounds_draw_a_line_a_run_and_mark_the_recommenders_steps(history: pd.DataFrame, tmp_path: Path) -> None:
    figure = rounds(history)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    assert [list(line.get_ydata()) for line in lines] == [[0.5, 0.6, 0.6], [0.5, 0.55, 0.65], [0.5, 0.7, 0.72]]
    assert [list(line.get_xdata()) for line in lines] == [[0, 10, 15], [0, 7, 15], [0, 20, 21]]
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in marks] == [[10], [7, 15], [20, 21]]
    plots.save(figure, tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").stat().st_size > 1000


def test_heat_map_writes_difference_and_interval_and_bold_without_zero(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "source": ["mf", "mf", "deep"],
            "target": ["mf", "deep", "mf"],
            "difference": [0.01, -0.02, 0.0],
            "low": [0.005, -0.05, -0.01],
            "high": [0.02, 0.01, 0.01],
        }
    )
    figure = heat_map(table)
    texts = {text.get_text(): text.get_weight() for text in figure.axes[0].texts}
    assert texts == {
        "+0.0100\n+0.0050 to +0.0200": "bold",
        "-0.0200\n-0.0500 to +0.0100": "normal",
        "+0.0000\n-0.0100 to +0.0100": "normal",
    }
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mf", "deep"]
    plots.save(figure, tmp_path / "map.png")


def test_ablation_draws_a_dot_a_run_and_the_median() -> None:
    runs = pd.DataFrame({"variant": ["all", "all", "none"], "trained": [10, 20, 90], "result": [0.7, 0.8, None]})
    figure = ablation(runs, {"trained": "trained", "result": "AUC"}, "What it is worth")
    trained, result = figure.axes
    assert [list(line.get_xdata()) for line in trained.lines] == [[10, 20], [15, 15], [90], [90, 90]]
    assert [list(line.get_xdata()) for line in result.lines] == [[0.7, 0.8], [0.75, 0.75], []]
    assert [label.get_text() for label in trained.get_yticklabels()] == ["all", "none"]


def test_empty_tables_are_drawn_as_such(history: pd.DataFrame) -> None:
    empty = pd.DataFrame(columns=["source", "target", "difference", "low", "high"])
    assert "nothing to draw" in heat_map(empty).axes[0].texts[0].get_text().replace("\n", " ")
    assert "nothing to draw" in rounds(history.head(0)).axes[0].texts[0].get_text().replace("\n", " ")
    assert ablation(pd.DataFrame(columns=["variant", "x"]), {"x": "x"}, "t").axes[0].texts


@pytest.mark.parametrize("draw", [rounds, heat_map, lambda frame: ablation(frame, {"x": "x"}, "t")])
def test_missing_columns_are_named(draw: object) -> None:
    assert callable(draw)
    with pytest.raises(ValueError, match="column"):
        draw(pd.DataFrame({"other": [1]}))
