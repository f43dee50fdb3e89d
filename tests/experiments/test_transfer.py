"""Transfer, small: every loss is tried everywhere, and what is known is kept."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.conftest import Gploss, Outcome


def run(gploss: Gploss, ratings: Path, out: Path, *options: str) -> Outcome:
    size = ["--budget", "6", "--epochs", "1", "--final-epochs", "2", "--tuning-seeds", "1", "--tests", "2"]
    return gploss("transfer", "--datasets", ratings, "--device", "cpu", "--out", out, *size, *options)


def test_every_loss_is_tried_everywhere(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    outcome = run(gploss, ratings, tmp_path, "--models", "mf,deep")
    assert outcome.code == 0, outcome.errors
    table = pd.read_csv(tmp_path / "transfer.csv")
    places = {f"mf on {ratings}", f"deep on {ratings}"}
    assert set(zip(table["source"], table["target"], strict=True)) == {(a, b) for a in places for b in places}
    assert (table["low"] <= table["high"]).all()
    expected = table["test"] - table["baseline_test"]
    assert table["difference"].to_list() == pytest.approx(expected.to_list())
    assert (tmp_path / "transfer.png").exists() and "Away from where" in (tmp_path / "summary.md").read_text()
    again = gploss("transfer", "--out", tmp_path, "--resume")
    assert again.code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "transfer.csv"), table)


def test_takes_losses_that_were_found_elsewhere(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.csv"
    rows = [["deep", "elsewhere", "genetic 1", "square(label - pred)"], ["deep", "elsewhere", "genetic 2", "pred"]]
    pd.DataFrame(rows, columns=["model", "dataset", "name", "expression"]).to_csv(found, index=False)
    outcome = run(gploss, ratings, tmp_path / "out", "--models", "mf", "--found", str(found))
    assert outcome.code == 0, outcome.errors
    table = pd.read_csv(tmp_path / "out" / "transfer.csv")
    assert table["source"].to_list() == ["deep on elsewhere"]


def test_a_file_without_losses_is_refused(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.csv"
    found.write_text("loss\n")
    outcome = run(gploss, ratings, tmp_path / "out", "--models", "mf", "--found", str(found))
    assert outcome.code == 1 and "holds no found losses" in outcome.errors
    assert not (tmp_path / "out").exists()
