"""The hard search, small: it begins with known losses, chooses one, tests it once, and can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gploss.search.result import SearchResult
from tests.experiments.conftest import Gploss, Outcome


def run(gploss: Gploss, ratings: Path, out: Path, *options: str) -> Outcome:
    size = ["--budget", "24", "--seeds", "2", "--epochs", "1", "--validation-parts", "2", "--contenders", "2"]
    size += ["--tests", "2", "--final-epochs", "2", "--tuning-seeds", "1", "--population", "8"]
    return gploss("improve", "--dataset", ratings, "--out", out, "--device", "cpu", *size, *options)


def test_one_found_loss_stands_beside_the_hand_made_ones(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    outcome = run(gploss, ratings, tmp_path, "--jobs", "1")
    assert outcome.code == 0, outcome.errors
    table = pd.read_csv(tmp_path / "confirmation.csv")
    assert {"bce", "mse", "focal", "hinge"} <= set(table["loss"])
    assert (table["found by"] == "found").sum() == 1
    found = pd.read_csv(tmp_path / "found.csv")
    assert found["model"].to_list() == ["mf"]
    assert found["expression"].to_list() == table.loc[table["found by"] == "found", "expression"].to_list()
    assert (tmp_path / "losses.png").exists() and "better loss for mf" in (tmp_path / "summary.md").read_text()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["words"].startswith("improve --budget 24 --epochs 1 ") and record["command"] == "improve"
    searches = record["details"]["searches"]
    assert [one["counts"]["trained"] + one["counts"]["diverged"] for one in searches] == [24, 24]
    again = gploss("improve", "--out", tmp_path, "--jobs", "2", "--resume")
    assert again.code == 0, again.errors
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "confirmation.csv"), table)


def test_losses_of_a_file_are_begun_with(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("cube: abs(label - pred) * square(label - pred)\n")
    out = tmp_path / "out"
    options = ["--jobs", "1", "--seeds", "1", "--start-with", str(file), "--validation", "rolling"]
    outcome = run(gploss, ratings, out, *options, "--searchers", "genetic,random")
    assert outcome.code == 0, outcome.errors
    texts = [str(record.expression) for record in SearchResult.load(out / "runs/genetic-0.json").records]
    assert "mul(abs(add(label, neg(pred))), square(add(label, neg(pred))))" in texts[:22]
    assert (out / "runs/random-0.json").exists(), "a searcher that takes no initial losses is told them"
    assert "mine.txt" in (out / "summary.md").read_text()


def test_errors_are_plain(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    outcome = run(gploss, tmp_path / "nowhere.csv", tmp_path / "out")
    assert outcome.code == 1 and "nowhere.csv" in outcome.errors and outcome.errors.count("\n") == 1
    outcome = run(gploss, ratings, tmp_path / "out", "--start-with", "nowhere.txt")
    assert outcome.code == 1 and "nowhere.txt" in outcome.errors and outcome.errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
