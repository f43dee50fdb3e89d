"""AutoLossGen's three phases, small: files, resuming, phase 3 alone, plain errors."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result


@pytest.fixture(scope="module")
def main() -> click.Command:
    command = importlib.import_module("experiments.autolossgen").main
    assert isinstance(command, click.Command)
    return command


def run(main: click.Command, *options: str) -> Result:
    return CliRunner().invoke(main, list(options), catch_exceptions=False)


def small(ratings: Path, out: Path, *options: str) -> list[str]:
    size = ["--rounds", "2", "--samples", "20", "--epochs", "3", "--tests", "2", "--top", "2"]
    return ["--dataset", str(ratings), *size, "--device", "cpu", "--out", str(out), *options]


@pytest.fixture(scope="module")
def finished(main: click.Command, ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three phases, for two searchers."""
    out = tmp_path_factory.mktemp("finished")
    outcome = run(
        main, *small(ratings, out, "--searcher", "rl,genetic", "--protocol", "standard", "--samples", "60")
    )
    assert outcome.exit_code == 0, outcome.output
    return out


def test_writes_tables_and_plots(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names > {
        "rounds.csv", "rounds.png", "filters.png", "efficiency.png", "valid.csv", "ranking.csv",
        "effectiveness.csv", "effectiveness_seeds.csv", "losses.png", "found.csv",
        "confirmation.csv", "summary.md", "settings.json",
    }  # fmt: skip
    rounds = pd.read_csv(finished / "rounds.csv")
    assert rounds.groupby(["searcher", "seed"]).size().to_dict() == {("genetic", 0): 2, ("rl", 0): 2}
    following = rounds.groupby("searcher")["end"].shift().dropna()
    assert (rounds.loc[following.index, "start"] == following).all()
    assert (rounds["end"] >= rounds["start"] - 1e-5).all()


def test_validity_check_looks_at_everything_that_was_trained(finished: Path) -> None:
    valid = pd.read_csv(finished / "valid.csv")
    assert (valid["valid"] == (valid["right"] > 1200)).all()
    assert valid["gain"].is_monotonic_decreasing
    assert valid["times"].sum() == pd.read_csv(finished / "rounds.csv")["trained"].sum()


def test_published_losses_stand_beside_those_found(finished: Path) -> None:
    table = pd.read_csv(finished / "effectiveness.csv")
    assert {"maxr", "sumr", "hinge_embedding", "logmin", "bce", "focal", "mse"} <= set(table["loss"])
    assert {"test AUC", "test f1", "test accuracy"} <= set(table.columns)
    seeds = pd.read_csv(finished / "effectiveness_seeds.csv").groupby("loss")["test_auc"].agg(["size", "mean"])
    assert (seeds["size"] == 2).all()
    shown = table.set_index("loss")["test AUC"]
    pd.testing.assert_series_equal(seeds["mean"].round(4)[shown.index], shown, check_names=False, atol=1e-4)
    found = pd.read_csv(finished / "found.csv")
    assert set(found["name"]) == set(table["loss"]) - {
        "maxr", "sumr", "hinge_embedding", "logmin", "bce", "focal", "mse"
    }  # fmt: skip


def test_interrupted_and_resumed_search_equals_an_unbroken_one(
    main: click.Command, ratings: Path, finished: Path, tmp_path: Path
) -> None:
    same = ["--searcher", "genetic", "--phase", "1", "--protocol", "standard", "--samples", "60"]
    half = small(ratings, tmp_path, *same, "--rounds", "1")
    assert run(main, *half).exit_code == 0
    more = [*half, "--rounds", "2", "--resume"]
    assert run(main, *more).exit_code == 0
    expected = pd.read_csv(finished / "rounds.csv").query("searcher == 'genetic'").reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "rounds.csv"), expected)
    assert run(main, *small(ratings, tmp_path, "--phase", "2")).exit_code == 0
    assert (tmp_path / "valid.csv").exists()


def test_searches_of_so_many_candidates_do_not_depend_on_jobs(
    main: click.Command, ratings: Path, tmp_path: Path
) -> None:
    tables = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        equal = ["--searcher", "random", "--phase", "1", "--phase", "2", "--protocol", "standard"]
        options = small(ratings, out, *equal, "--candidates", "70", "--seeds", "2", "--jobs", jobs)
        assert run(main, *options).exit_code == 0
        tables.append(pd.read_csv(out / "rounds.csv"))
        assert pd.read_csv(out / "valid.csv")["times"].sum() == 2 * 70
    pd.testing.assert_frame_equal(*tables)
    assert (tables[0].groupby("seed")["trained"].sum() <= 70).all()


def test_a_budget_below_one_round_gets_a_plain_error(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    options = small(ratings, tmp_path, "--searcher", "random", "--candidates", "1", "--jobs", "1")
    outcome = run(main, *options)
    assert outcome.exit_code == 1 and "allow more" in outcome.output and "Traceback" not in outcome.output


def test_phase_three_alone_on_losses_given_as_text(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "losses.txt"
    lines = ["# mine", "first: square(label - pred)", "neg(label * logit)", "", "third: pred", "bce  # by name"]
    file.write_text("\n".join(lines))
    out = tmp_path / "out"
    outcome = run(
        main, *small(ratings, out, "--phase", "3", "--losses", str(file), "--protocol", "standard", "--top", "3")
    )
    assert outcome.exit_code == 0, outcome.output
    ranking = pd.read_csv(out / "ranking.csv").set_index("loss")
    assert ranking["status"].to_dict() == {
        "first": "trained",
        "loss 3": "trained",
        "third": "rejected",
        "bce": "trained",
    }
    assert ranking.loc["third", "reason"] == "no dependence on label"
    table = pd.read_csv(out / "effectiveness.csv").set_index("loss")
    assert {"first", "loss 3", "bce", "mse"} <= set(table.index)
    # the same function under two names, from the same seeds
    assert table.loc["first", "test AUC"] == table.loc["mse", "test AUC"]
    assert (out / "confirmation.csv").exists() and "Confirmation" in (out / "summary.md").read_text()


def test_published_losses_alone(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    options = small(ratings, tmp_path, "--losses", "published", "--tests", "1")
    assert run(main, *options).exit_code == 0
    table = pd.read_csv(tmp_path / "effectiveness.csv")
    assert len(table) == 7 and np.isfinite(table["test AUC"]).all()
    assert not (tmp_path / "confirmation.csv").exists()


def test_without_a_valid_loss_the_published_ones_are_left(
    main: click.Command, ratings: Path, tmp_path: Path
) -> None:
    """A short search under protocol "paper" finds none."""
    outcome = run(main, *small(ratings, tmp_path, "--tests", "1"))
    assert outcome.exit_code == 0, outcome.output
    assert "search longer" in outcome.output
    assert len(pd.read_csv(tmp_path / "effectiveness.csv")) == 7
    assert pd.read_csv(tmp_path / "found.csv").empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searcher", "evolution"], "no searcher is named"),
        (["--losses", "published", "--phase", "1"], "phase 3 alone"),
        (["--phase", "2"], "run phase 1 first"),
        (["--phase", "3"], "run phase 2 first"),
        (["--losses", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_bad_options_get_plain_errors(
    main: click.Command, ratings: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outcome = run(main, *small(ratings, tmp_path, *options))
    assert outcome.exit_code == 1 and message in outcome.output and "Traceback" not in outcome.output


def test_a_line_that_is_no_loss_is_named(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "losses.txt"
    file.write_text("bce\nsquare(label - \n")
    outcome = run(main, *small(ratings, tmp_path, "--losses", str(file)))
    assert outcome.exit_code == 1 and "line 2" in outcome.output
