"""The ablation, small: each variant leaves out what it says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.conftest import Gploss, Outcome


def run(gploss: Gploss, ratings: Path, out: Path, *options: str) -> Outcome:
    size = ["--rounds", "2", "--samples", "20", "--seeds", "2", "--epochs", "1", "--device", "cpu"]
    return gploss("ablate", "--dataset", ratings, *size, "--out", out, *options)


@pytest.mark.parametrize(("protocol", "searcher"), [("paper", "rl"), ("standard", "genetic")])
def test_parts_that_are_off_are_trained(
    gploss: Gploss, ratings: Path, tmp_path: Path, protocol: str, searcher: str
) -> None:
    outcome = run(gploss, ratings, tmp_path, "--protocol", protocol, "--searchers", searcher)
    assert outcome.code == 0, outcome.errors
    runs = pd.read_csv(tmp_path / "runs.csv").set_index(["variant", "seed"])
    assert len(runs) == 14 and (runs["trained"] + runs["rejected"] + runs["duplicates"] == runs["proposals"]).all()
    assert (runs.loc["without duplicates", "duplicates"] == 0).all()
    assert (runs.loc["nothing filtered", "duplicates"] == 0).all()
    if protocol == "standard":
        assert (runs["proposals"] == 40).all()
        for variant in ("without zero gradient", "without dependence on inputs", "nothing filtered"):
            assert runs.loc[variant, "rejected"].sum() < runs.loc["the filter", "rejected"].sum()
    table = pd.read_csv(tmp_path / "ablation.csv")
    assert len(table) == 7 and (tmp_path / f"ablation-{searcher}.png").exists()


def test_finished_runs_are_kept(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    assert run(gploss, ratings, tmp_path, "--seeds", "1").code == 0
    before = pd.read_csv(tmp_path / "runs.csv")
    assert gploss("ablate", "--out", tmp_path, "--seeds", "2", "--resume").code == 0
    after = pd.read_csv(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(after[after["seed"] == 0].reset_index(drop=True), before)
    assert len(after) == 14
