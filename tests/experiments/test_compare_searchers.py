"""The main job, small: every file is written, resuming changes nothing, and bad options get plain errors."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

FILES = {
    "evaluations.csv",
    "summary.csv",
    "summary.md",
    "confirmation.csv",
    "settings.json",
    "efficiency.png",
    "filters.png",
    "pareto.png",
    "losses.png",
}


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_searchers", EXPERIMENTS / "compare_searchers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings of 60 users for 40 items with a taste in them."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(60 * 40, size=1500, replace=False), 40)
    taste = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    ratings = np.clip(np.rint(3.5 + taste[users, items] + 0.5 * rng.normal(size=1500)), 1, 5)
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    pd.DataFrame({"user": users, "item": items, "rating": ratings}).to_csv(path, index=False)
    return path


def run(compare: ModuleType, *options: str) -> Result:
    return CliRunner().invoke(compare.main, list(options), catch_exceptions=False)


def small(table: Path, out: Path) -> list[str]:
    return ["--dataset", str(table), "--budget", "6", "--seeds", "2", "--epochs", "2", "--out", str(out)]


def rows(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "evaluations.csv").drop(columns=["seconds", "cached"])


def test_writes_every_file_with_true_content(compare: ModuleType, table: Path, tmp_path: Path) -> None:
    outcome = run(compare, *small(table, tmp_path))
    assert outcome.exit_code == 0, outcome.output
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    evaluations = rows(tmp_path)
    charged = evaluations[evaluations["status"].isin(["trained", "diverged"])]
    assert (charged.groupby(["searcher", "seed"]).size() == 6).all()
    assert set(evaluations["searcher"]) == {"random", "genetic", "rl"}
    summary = (tmp_path / "summary.md").read_text()
    assert "Confirmation" in summary and "bce" in summary and "95% interval" in summary
    best = evaluations[evaluations["status"] == "trained"].groupby("searcher")["reward"].max()
    written = pd.read_csv(tmp_path / "summary.csv").set_index("searcher")["best_reward"]
    assert written.to_dict() == pytest.approx(best.to_dict())


def test_resumed_and_repeated_runs_are_equal(compare: ModuleType, table: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--searchers", "genetic", "--seeds", "1"]
    assert run(compare, *small(table, first), *options).exit_code == 0
    half = small(table, second)
    half[half.index("--budget") + 1] = "3"
    assert run(compare, *half, *options).exit_code == 0
    assert run(compare, *small(table, second), *options, "--resume").exit_code == 0
    pd.testing.assert_frame_equal(rows(first), rows(second))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searchers", "random,genetics"], "no searcher is named 'genetics'"),
        (["--dataset", "no-such-data"], "no file, folder or dataset is named 'no-such-data'"),
        (["--device", "abacus"], "abacus"),
        (["--budget", "0"], "budget"),
    ],
)
def test_bad_options_get_plain_errors(
    compare: ModuleType, table: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outcome = run(compare, *small(table, tmp_path), *options)
    assert outcome.exit_code != 0
    assert message in outcome.output
    assert "Traceback" not in outcome.output
