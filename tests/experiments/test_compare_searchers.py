"""The main job, small: every file is written, going on changes nothing, and bad options get plain errors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.conftest import Gploss

FILES = {
    "evaluations.csv", "summary.csv", "summary.md", "confirmation.csv", "run.json", "cache.sqlite",
    "efficiency.png", "filters.png", "pareto.png", "losses.png",
}  # fmt: skip


def small(table: Path, out: Path) -> list[str]:
    size = ["--budget", "6", "--seeds", "2", "--epochs", "2", "--tests", "2", "--tuning-seeds", "1"]
    return ["compare", "--dataset", str(table), *size, "--final-epochs", "2", "--out", str(out)]


def rows(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "evaluations.csv").drop(columns=["seconds", "cached"])


def test_writes_every_file_with_true_content(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    outcome = gploss(*small(ratings, tmp_path))
    assert outcome.code == 0, outcome.errors
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    evaluations = rows(tmp_path)
    charged = evaluations[evaluations["status"].isin(["trained", "diverged"])]
    assert (charged.groupby(["searcher", "seed"]).size() == 6).all()
    assert set(evaluations["searcher"]) == {"random", "genetic", "rl"}
    summary = (tmp_path / "summary.md").read_text()
    assert "Confirmation" in summary and "bce" in summary and "95% interval" in summary
    assert "Confirmation" in outcome.out and f"done: open {tmp_path / 'summary.md'}" in outcome.errors
    best = evaluations[evaluations["status"] == "trained"].groupby("searcher")["reward"].max()
    written = pd.read_csv(tmp_path / "summary.csv").set_index("searcher")["best_reward"]
    assert written.to_dict() == pytest.approx(best.to_dict())
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["state"], record["command"], record["configuration"]["budget"]) == ("finished", "compare", 6)
    assert record["data"][str(ratings)]["content_hash"]
    assert set(record["files"]) == {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    } - {"run.json", ".lock"}  # fmt: skip


def test_resumed_and_repeated_runs_are_equal(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--searchers", "genetic", "--seeds", "1"]
    assert gploss(*small(ratings, first), *options).code == 0
    assert gploss(*small(ratings, second), *options, "--budget", "3").code == 0
    refused = gploss(*small(ratings, second), *options)
    assert refused.code == 1 and "--resume" in refused.errors
    resumed = gploss("compare", "--out", second, "--resume", "--budget", "6", "--epochs", "5", "--seed", "0")
    assert resumed.code == 0, resumed.errors
    assert "going on with budget 6; the run in" in resumed.errors
    assert f"going on with epochs 2, as the run in {second} began; 5 was given" in resumed.errors
    assert "seed" not in resumed.errors.split("going on with epochs")[0]
    pd.testing.assert_frame_equal(rows(first), rows(second))


def test_an_interrupted_run_says_so_and_goes_on(
    gploss: Gploss, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("experiments.compare_searchers.judge", interrupt)
        outcome = gploss(*small(ratings, tmp_path), "--searchers", "random")
    assert (
        outcome.code == 130 and f"Error: interrupted; --resume goes on with the run in {tmp_path}" in outcome.errors
    )
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "interrupted"
    assert gploss("compare", "--resume", "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "run.json").read_text())["configuration"]["searchers"] == ["random"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searchers", "random,genetics"], "no searcher is named 'genetics'"),
        (["--dataset", "no-such-data"], "no file, folder or dataset is named 'no-such-data'"),
        (["--dataset", "synthetic", "--user", "UserID"], "does not take user"),
        (["--user", "UserID"], "UserID"),
        (["--model", "mff"], "no model is named 'mff'"),
        (["--protocol", "papers"], "papers"),
        (["--rivals", "bce;bcee"], "no loss is named 'bcee'"),
        (["--train-noise", "flip=1.5"], "outside of [0, 1)"),
        (["--metric", "aucc"], "no metric is named 'aucc'"),
        (["--device", "abacus"], "abacus"),
        (["--budget", "0"], "budget is 0"),
        (["--budget", "many"], "'many' is not a valid integer"),
        (["--budgt", "3"], "--budget"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_bad_options_get_one_line_and_nothing_is_made(
    gploss: Gploss, ratings: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outcome = gploss(*small(ratings, tmp_path / "out"), *options)
    assert outcome.code == 1
    (line,) = outcome.errors.splitlines()
    assert line.startswith("Error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_columns_can_be_named(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    table = pd.read_csv(ratings)
    expected = tmp_path / "expected"
    size = ["--searchers", "random", "--seeds", "1", "--budget", "2"]
    assert gploss(*small(ratings, expected), *size).code == 0
    named = tmp_path / "named.txt"
    table.set_axis(["UserID", "ItemID", "Rating"], axis=1).assign(Twice=2).to_csv(named, index=False, sep="|")
    columns = ["--user", "UserID", "--item", "ItemID", "--rating", "Rating", "--weight", "Twice"]
    columns += ["--separator", "|"]  # that all rows count twice is nothing new
    assert gploss(*small(named, tmp_path / "a"), *size, *columns).code == 0
    bare = tmp_path / "bare.csv"
    table.to_csv(bare, index=False, header=False)
    columns = ["--no-header", "--user", "1", "--item", "2", "--rating", "3"]
    assert gploss(*small(bare, tmp_path / "b"), *size, *columns).code == 0
    for out in ("a", "b"):
        pd.testing.assert_frame_equal(rows(tmp_path / out), rows(expected))
