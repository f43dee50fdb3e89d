"""What tests of commands share: a command run as it is typed, and small ratings to run it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from experiments.command.cli import main


class Outcome(NamedTuple):
    """What a command came to.

    Attributes:
        code: exit code.
        out: what it wrote to the standard output.
        errors: what it wrote to the standard error stream.
    """

    code: int
    out: str
    errors: str


Gploss = Callable[..., Outcome]


@pytest.fixture
def gploss(capsys: pytest.CaptureFixture[str]) -> Gploss:
    """Run `gploss` with these words."""

    def run(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings of 60 users for 40 items with a taste in them."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(60 * 40, size=1500, replace=False), 40)
    taste = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    stars = np.clip(np.rint(3.5 + taste[users, items] + 0.5 * rng.normal(size=1500)), 1, 5)
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    pd.DataFrame({"user": users, "item": items, "rating": stars}).to_csv(path, index=False)
    return path
