"""Experiments are scripts: their folder is where they import each other from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXPERIMENTS = str(Path(__file__).parents[2] / "experiments")
if EXPERIMENTS not in sys.path:
    sys.path.insert(0, EXPERIMENTS)


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
