"""AutoLossGen's three phases, small: files, resuming, phase 3 alone, plain errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.command.cli import main
from tests.experiments.conftest import Gploss

#: Enough samples, and a seed with which some losses pass the validity check.
LARGER = ["--protocol", "standard", "--samples", "60", "--seed", "2"]


def small(ratings: Path, out: Path, *options: str) -> list[str]:
    size = ["--rounds", "2", "--samples", "20", "--final-epochs", "3", "--tests", "2", "--top", "2"]
    return ["autolossgen", "--dataset", str(ratings), *size, "--device", "cpu", "--out", str(out), *options]


@pytest.fixture(scope="module")
def finished(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three phases, for two searchers."""
    out = tmp_path_factory.mktemp("finished")
    assert main(small(ratings, out, "--searchers", "rl,genetic", *LARGER)) == 0
    return out


def test_writes_tables_and_plots(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names > {
        "rounds.csv", "rounds.png", "filters.png", "efficiency.png", "valid.csv", "ranking.csv",
        "effectiveness.csv", "effectiveness_seeds.csv", "losses.png", "found.csv",
        "confirmation.csv", "summary.md", "run.json",
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
    assert {"test auc", "test f1", "test accuracy"} <= set(table.columns)
    seeds = pd.read_csv(finished / "effectiveness_seeds.csv").groupby("loss")["test_auc"].agg(["size", "mean"])
    assert (seeds["size"] == 2).all()
    shown = table.set_index("loss")["test auc"]
    pd.testing.assert_series_equal(seeds["mean"].round(4)[shown.index], shown, check_names=False, atol=1e-4)
    found = pd.read_csv(finished / "found.csv")
    assert set(found["name"]) == set(table["loss"]) - {
        "maxr", "sumr", "hinge_embedding", "logmin", "bce", "focal", "mse"
    }  # fmt: skip


def test_resumed_search_equals_an_unbroken_one(
    gploss: Gploss, ratings: Path, finished: Path, tmp_path: Path
) -> None:
    assert (
        gploss(*small(ratings, tmp_path, "--searchers", "genetic", "--phases", "1", *LARGER, "--rounds", "1")).code
        == 0
    )
    assert gploss("autolossgen", "--out", tmp_path, "--rounds", "2", "--resume").code == 0
    expected = pd.read_csv(finished / "rounds.csv").query("searcher == 'genetic'").reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "rounds.csv"), expected)
    assert gploss("autolossgen", "--out", tmp_path, "--phases", "2", "--resume").code == 0
    assert (tmp_path / "valid.csv").exists()


def test_searches_of_so_many_candidates_do_not_depend_on_jobs(
    gploss: Gploss, ratings: Path, tmp_path: Path
) -> None:
    tables = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        equal = ["--searchers", "random", "--phases", "1,2", "--protocol", "standard"]
        assert gploss(*small(ratings, out, *equal, "--budget", "70", "--seeds", "2", "--jobs", jobs)).code == 0
        tables.append(pd.read_csv(out / "rounds.csv"))
        assert pd.read_csv(out / "valid.csv")["times"].sum() == 2 * 70
    pd.testing.assert_frame_equal(*tables)
    assert (tables[0].groupby("seed")["trained"].sum() <= 70).all()


def test_a_budget_below_one_round_gets_a_plain_error(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    outcome = gploss(*small(ratings, tmp_path, "--searchers", "random", "--budget", "1", "--jobs", "1"))
    assert outcome.code == 1 and "allow more" in outcome.errors and "Traceback" not in outcome.errors


def test_losses_given_as_text_are_tested_alone(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "losses.txt"
    lines = ["# mine", "first: square(label - pred)", "neg(label * logit)", "", "third: pred", "bce  # by name"]
    file.write_text("\n".join(lines))
    out = tmp_path / "out"
    outcome = gploss(*small(ratings, out, "--losses", str(file), "--protocol", "standard", "--top", "3"))
    assert outcome.code == 0, outcome.errors
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
    assert table.loc["first", "test auc"] == table.loc["mse", "test auc"]
    assert (out / "confirmation.csv").exists() and "All tuned alike" in (out / "summary.md").read_text()


def test_published_losses_alone(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    assert gploss(*small(ratings, tmp_path, "--losses", "published")).code == 0
    table = pd.read_csv(tmp_path / "effectiveness.csv")
    assert len(table) == 7 and np.isfinite(table["test auc"]).all()
    assert not (tmp_path / "confirmation.csv").exists()


def test_without_a_valid_loss_the_published_ones_are_left(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    """A short search under protocol "paper" finds none."""
    outcome = gploss(*small(ratings, tmp_path))
    assert outcome.code == 0, outcome.errors
    assert "search longer" in outcome.errors
    assert len(pd.read_csv(tmp_path / "effectiveness.csv")) == 7
    assert pd.read_csv(tmp_path / "found.csv").empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searchers", "evolution"], "no searcher is named 'evolution'"),
        (["--phases", "2"], "run phase 1 first"),
        (["--phases", "3"], "run phase 2 first"),
        (["--phases", "4"], "phases is"),
        (["--losses", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_bad_options_get_plain_errors(
    gploss: Gploss, ratings: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outcome = gploss(*small(ratings, tmp_path, *options))
    assert outcome.code == 1 and message in outcome.errors and "Traceback" not in outcome.errors


def test_a_line_that_is_no_loss_is_named(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    file = tmp_path / "losses.txt"
    file.write_text("bce\nsquare(label - \n")
    outcome = gploss(*small(ratings, tmp_path / "out", "--losses", str(file)))
    assert outcome.code == 1 and "line 2" in outcome.errors
    assert not (tmp_path / "out").exists()
