"""The ablation, small: each variant leaves out what it says."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result


@pytest.fixture(scope="module")
def main() -> click.Command:
    command = importlib.import_module("experiments.ablate_filter").main
    assert isinstance(command, click.Command)
    return command


def run(main: click.Command, ratings: Path, out: Path, *options: str) -> Result:
    size = ["--rounds", "2", "--samples", "20", "--seeds", "2", "--epochs", "1", "--device", "cpu"]
    arguments = ["--dataset", str(ratings), *size, "--out", str(out), *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.mark.parametrize(("protocol", "searcher"), [("paper", "rl"), ("standard", "genetic")])
def test_parts_that_are_off_are_trained(
    main: click.Command, ratings: Path, tmp_path: Path, protocol: str, searcher: str
) -> None:
    outcome = run(main, ratings, tmp_path, "--protocol", protocol, "--searcher", searcher)
    assert outcome.exit_code == 0, outcome.output
    runs = pd.read_csv(tmp_path / "runs.csv").set_index(["variant", "seed"])
    assert len(runs) == 14 and (runs["trained"] + runs["rejected"] + runs["duplicates"] == runs["proposals"]).all()
    assert (runs.loc["without duplicates", "duplicates"] == 0).all()
    assert (runs.loc["nothing filtered", "duplicates"] == 0).all()
    if protocol == "standard":
        assert (runs["proposals"] == 40).all()
        for variant in ("without zero gradient", "without label dependence", "nothing filtered"):
            assert runs.loc[variant, "rejected"].sum() < runs.loc["the filter", "rejected"].sum()
    table = pd.read_csv(tmp_path / "ablation.csv")
    assert len(table) == 7 and (tmp_path / "ablation.png").exists()


def test_finished_runs_are_kept(main: click.Command, ratings: Path, tmp_path: Path) -> None:
    assert run(main, ratings, tmp_path, "--seeds", "1").exit_code == 0
    before = pd.read_csv(tmp_path / "runs.csv")
    assert run(main, ratings, tmp_path, "--seeds", "2", "--resume").exit_code == 0
    after = pd.read_csv(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(after[after["seed"] == 0].reset_index(drop=True), before)
    assert len(after) == 14
