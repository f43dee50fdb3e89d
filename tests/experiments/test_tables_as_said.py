"""What the command line says of a table and a model of a user's own reaches reader and trainer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.parts.searching import MODELS
from recmodels.models.base import Batch
from tests.experiments.conftest import Gploss

SIZE = ("--searchers", "random", "--seeds", "1", "--budget", "2", "--epochs", "1", "--tests", "2")
SHORT = (*SIZE, "--tuning-seeds", "1", "--final-epochs", "1", "--rivals", "bce")


class Dots(torch.nn.Module):
    """A user's own model: it takes no argument `initialization`."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.users = torch.nn.Embedding(n_users, 4)
        self.items = torch.nn.Embedding(n_items, 4)

    def forward(self, batch: Batch) -> torch.Tensor:
        return (self.users(batch.user) * self.items(batch.item)).sum(-1)


@pytest.fixture
def dots() -> Iterator[str]:
    MODELS.register("dots", Dots)
    yield "dots"
    MODELS.unregister("dots")


def rewards(out: Path) -> list[float]:
    return pd.read_csv(out / "evaluations.csv")["reward"].dropna().to_list()


def test_a_file_is_read_as_it_is_described(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    table = pd.read_csv(ratings).set_axis(["user", "item", "rating"], axis=1)
    written = table.assign(**{name: table[name].map("x{:05d}".format) for name in ("user", "item")})
    first = written["user"].min()
    plain = tmp_path / "plain.csv"
    written.replace({first: "MA"}).to_csv(plain, index=False)
    assert gploss("compare", "--dataset", plain, *SHORT, "--out", tmp_path / "expected").code == 0
    written = written.replace({first: "NA"})  # a user of this name, and in the order of ids where MA was
    written["item"] = 'é"' + written["item"]
    written["rating"] = written["rating"].map(lambda value: f"{value + 0.25:.2f}".replace(".", ","))
    written["note"] = range(len(written))  # which could be times
    text = "\n".join(";".join(map(str, row)) for row in written.itertuples(index=False))
    path = tmp_path / "own.txt"
    path.write_bytes(text.encode("latin-1"))
    said = ["--columns", "user,item,rating,timestamp", "--encoding", "latin-1", "--decimal", ",", "--no-quotes"]
    said += ["--missing", "-", "--separator", ";", "--timeless"]
    outcome = gploss("compare", "--dataset", path, *SHORT, *said, "--out", tmp_path / "own")
    assert outcome.code == 0, outcome.errors
    assert rewards(tmp_path / "own") == rewards(tmp_path / "expected")
    configuration = json.loads((tmp_path / "own" / "run.json").read_text())["configuration"]
    assert configuration["columns"] == ["user", "item", "rating", "timestamp"]
    assert configuration["timeless"] is True and configuration["missing"] == ["-"]


def test_what_contradicts_itself_is_refused(gploss: Gploss, ratings: Path, tmp_path: Path) -> None:
    said = ["--time", "when", "--timeless"]
    outcome = gploss("compare", "--dataset", ratings, *SHORT, *said, "--out", tmp_path / "out")
    assert outcome.code == 1 and outcome.errors.splitlines() == ["Error: give time or timeless, not both"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_a_model_that_initialises_itself(
    gploss: Gploss, ratings: Path, tmp_path: Path, dots: str, protocol: str
) -> None:
    own = ["--model", dots, "--protocol", protocol, "--jobs", "1"]
    with warnings.catch_warnings(record=True) as caught:
        outcome = gploss("compare", "--dataset", ratings, *SHORT, *own, "--out", tmp_path)
    assert outcome.code == 0, outcome.errors
    told = any("Dots takes no argument 'initialization'" in str(one.message) for one in caught)
    assert told == (protocol == "paper")
