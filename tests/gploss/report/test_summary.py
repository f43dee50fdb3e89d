"""Searchers condensed to a row each: medians and quartiles of runs, of which some trained nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gploss.report.summary import readable_summary, summary
from gploss.report.tables import to_markdown


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
    frame = summary(made_up()).set_index("searcher")
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
    up = summary(frame).iloc[0]
    down = summary(frame.assign(reward=-frame["reward"]), higher_is_better=False).iloc[0]
    assert down["best_reward"] == -up["best_reward"]
    assert down["best_reward_median"] == pytest.approx(-up["best_reward_median"])
    assert down["best_reward_lower_quartile"] == pytest.approx(-up["best_reward_upper_quartile"])
    assert down["best_formula"] == up["best_formula"]


def test_summary_adds_up_seconds_where_there_is_no_clock() -> None:
    frame = made_up().drop(columns="elapsed").assign(seconds=2.0)
    assert summary(frame)["seconds"].tolist() == [5.0, 2.0]
    with pytest.raises(ValueError, match="summary needs the columns elapsed"):
        summary(frame.drop(columns="seconds"))
    with pytest.raises(ValueError, match="summary needs the columns expression"):
        summary(frame.drop(columns="expression"))


def test_summary_of_no_row_is_an_empty_table_with_its_columns() -> None:
    frame = summary(made_up().iloc[:0])
    assert len(frame) == 0
    assert "best_formula" in frame.columns


def test_readable_summary_says_none_and_never_nan() -> None:
    table = readable_summary(summary(made_up()), "validation AUC")
    text = to_markdown(table)
    assert "nan" not in text
    assert table["best validation AUC"].tolist() == ["0.7000", "none"]
    assert table["quartiles"].tolist()[0] == "0.6500 to 0.7500"
    assert table["best formula"].tolist() == ["log(sigmoid(s))", "1 / sigmoid(s)"]
