"""Scores, labels and users that the tests of metrics share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

from recmodels.metrics import METRICS

ALL = METRICS.names()
N_ROWS = 333  # odd on purpose: vector instructions then end at different elements of different rows
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def make_data(n_models: int, seed: int = 0, levels: int | None = None) -> tuple[Tensor, Floats, Integers]:
    """Return scores (M, N), labels (N,), users (N,); with `levels` the scores have many ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_models, N_ROWS)) * 3
    if levels is not None:
        scores = rng.integers(-levels, levels + 1, size=scores.shape) / 2
    labels = (rng.random(N_ROWS) < 0.3).astype(np.float32)
    users = rng.integers(0, 40, size=N_ROWS) * 1_000_003 - 5
    return torch.from_numpy(scores.astype(np.float32)), labels, users


def same_bits(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.view(torch.int64), right.view(torch.int64))


small_cases = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label, _ in rows}) == 2)
