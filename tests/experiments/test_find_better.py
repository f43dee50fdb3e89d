"""The hard search, small: it begins with known losses, chooses one, tests it once, and can be resumed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from gploss.search.result import SearchResult


@pytest.fixture(scope="module")
def main() -> click.Command:
    command = importlib.import_module("experiments.find_better").main
    assert isinstance(command, click.Command)
    return command


def run(main: click.Command, ratings: Path, out: Path, *options: str) -> Result:
    size = ["--budget", "14", "--seeds", "2", "--epochs", "1", "--splits", "2", "--finalists", "2", "--tests", "2"]
    size += ["--long-epochs", "2", "--tuning-seeds", "1", "--population", "8", "--device", "cpu"]
    where = ["--dataset", str(ratings), "--out", str(out)]
    return CliRunner().invoke(main, [*size, *where, *options], catch_exceptions=False)


def test_one_found_loss_stands_beside_the_hand_made_ones(
    main: click.Command, ratings: Path, tmp_path: Path
) -> None:
    outcome = run(main, ratings, tmp_path, "--jobs", "1")
    assert outcome.exit_code == 0, outcome.output
    table = pd.read_csv(tmp_path / "confirmation.csv")
    assert {"bce", "mse", "focal", "hinge"} <= set(table["loss"])
    assert (table["found by"] == "found").sum() == 1
    found = pd.read_csv(tmp_path / "found.csv")
    assert found["model"].to_list() == ["mf"]
    assert found["expression"].to_list() == table.loc[table["found by"] == "found", "formula"].to_list()
    assert (tmp_path / "losses.png").exists() and "better loss for mf" in (tmp_path / "summary.md").read_text()
    searches = json.loads((tmp_path / "settings.json").read_text())["searches"]
    assert [one["counts"]["trained"] + one["counts"]["diverged"] for one in searches] == [14, 14]
    again = run(main, ratings, tmp_path, "--jobs", "2", "--resume")
    assert again.exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "confirmation.csv"), table)


def test_losses_of_a_file_are_begun_with(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("cube: abs(label - pred) * square(label - pred)\n")
    outcome = run(
        main,
        ratings,
        tmp_path / "out",
        "--jobs",
        "1",
        "--seeds",
        "1",
        "--start-with",
        str(file),
        "--validation",
        "rolling",
    )
    assert outcome.exit_code == 0, outcome.output
    texts = [str(record.expression) for record in SearchResult.load(tmp_path / "out/runs/genetic-0.json").records]
    assert "mul(abs(add(label, neg(pred))), square(add(label, neg(pred))))" in texts[:12]
    assert "mine.txt" in (tmp_path / "out" / "summary.md").read_text()


def test_errors_are_plain(main: click.Command, tmp_path: Path) -> None:
    outcome = run(main, tmp_path / "nowhere.csv", tmp_path / "out")
    assert outcome.exit_code == 1 and "nowhere.csv" in outcome.output and "Traceback" not in outcome.output
