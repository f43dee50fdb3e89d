"""Transfer, small: every loss is tried everywhere, and what is known is kept."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result


@pytest.fixture(scope="module")
def main() -> click.Command:
    command = importlib.import_module("experiments.transfer").main
    assert isinstance(command, click.Command)
    return command


def run(main: click.Command, out: Path, *options: str) -> Result:
    size = ["--budget", "6", "--search-epochs", "1", "--epochs", "2", "--tuning-seeds", "1", "--tests", "2"]
    return CliRunner().invoke(main, [*size, "--device", "cpu", "--out", str(out), *options], catch_exceptions=False)


def test_every_loss_is_tried_everywhere(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    outcome = run(main, tmp_path, "--models", "mf,deep", "--datasets", str(ratings))
    assert outcome.exit_code == 0, outcome.output
    table = pd.read_csv(tmp_path / "transfer.csv")
    places = {f"mf on {ratings}", f"deep on {ratings}"}
    assert set(zip(table["source"], table["target"], strict=True)) == {(a, b) for a in places for b in places}
    assert (table["low"] <= table["high"]).all()
    expected = table["test_auc"] - table["baseline_auc"]
    assert table["difference"].to_list() == pytest.approx(expected.to_list())
    assert (tmp_path / "transfer.png").exists() and "Away from where" in (tmp_path / "summary.md").read_text()
    again = run(main, tmp_path, "--models", "mf,deep", "--datasets", str(ratings), "--resume")
    assert again.exit_code == 0 and "tuning" not in again.output
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "transfer.csv"), table)


def test_takes_losses_that_were_found_elsewhere(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.csv"
    rows = [["deep", "elsewhere", "genetic 1", "square(label - pred)"], ["deep", "elsewhere", "genetic 2", "pred"]]
    pd.DataFrame(rows, columns=["model", "dataset", "name", "expression"]).to_csv(found, index=False)
    outcome = run(main, tmp_path / "out", "--models", "mf", "--datasets", str(ratings), "--found", str(found))
    assert outcome.exit_code == 0, outcome.output
    table = pd.read_csv(tmp_path / "out" / "transfer.csv")
    assert table["source"].to_list() == ["deep on elsewhere"]


def test_a_file_without_losses_is_refused(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.csv"
    found.write_text("loss\n")
    outcome = run(main, tmp_path / "out", "--models", "mf", "--datasets", str(ratings), "--found", str(found))
    assert outcome.exit_code == 1 and "holds no found losses" in outcome.output
