"""The best so far of many runs, as bands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.report.trajectories import band, numbered, quantiles, trajectories
from tests.gploss.report.plots.figures import made_up


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_bands_equal_a_plain_loop(seed: int, runs: int) -> None:
    frame = numbered(made_up(("genetic",), runs, 60, seed=seed))
    found = band(trajectories(frame, "candidate"))
    for place, low, median, high in zip(found.positions, found.low, found.median, found.high, strict=True):
        best = []
        for _, run in frame.groupby("seed"):
            sofar = run[(run["candidate"] <= place) & (run["status"] == "trained")]["reward"]
            best.append(sofar.max() if len(sofar) else -np.inf)
        expected = quantiles(best, (0.25, 0.5, 0.75))
        np.testing.assert_allclose([low, median, high], expected)
    assert found.positions[-1] == frame["candidate"].max()


def test_a_run_that_found_nothing_counts_as_the_worst() -> None:
    np.testing.assert_allclose(quantiles([-np.inf, 0.5, 0.7], (0.0, 0.5, 1.0)), [np.nan, 0.5, 0.7])
    assert np.isnan(quantiles([-np.inf, -np.inf, 0.7], (0.5,))).all()


def test_candidates_are_numbered_by_run_in_order_of_steps() -> None:
    frame = pd.DataFrame(
        {
            "searcher": "a",
            "seed": [1, 1, 1, 2, 1],
            "step": [4, 1, 2, 1, 3],
            "status": ["trained", "diverged", "rejected", "trained", "trained"],
        }
    )
    assert numbered(frame)["candidate"].tolist() == [3, 1, 1, 1, 2]
    kept = frame.assign(candidate=7)
    assert numbered(kept) is kept


def test_a_band_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        band([])
