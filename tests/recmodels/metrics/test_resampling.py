"""Metrics of resamples against scikit-learn's weights and against rows that are copied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recmodels.metrics.resampling import resampled_auc, resampled_best_f1, resampled_ratio

cases = st.lists(
    st.tuples(st.integers(-2, 2), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30
)  # score, positive, unit: many ties


def draws(seed: int, n_units: int = 4, resamples: int = 5) -> npt.NDArray[np.uint8]:
    """Counts of which some leave only one unit."""
    counts = np.random.default_rng(seed).integers(0, 4, size=(n_units, resamples)).astype(np.uint8)
    counts[1:, 0] = 0
    return counts


def columns(
    rows: list[tuple[int, bool, int]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    scores, positive, owner = zip(*rows, strict=True)
    return np.array(scores, np.float32), np.array(positive, bool), np.array(owner, np.int64)


@given(cases, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_auc_equals_scikit_learn(rows: list[tuple[int, bool, int]], seed: int) -> None:
    scores, positive, owner = columns(rows)
    counts = draws(seed)
    found = resampled_auc(scores, positive, owner, counts)
    for value, drawn in zip(found, counts.T, strict=True):
        weights = drawn[owner].astype(float)
        if weights[positive].sum() and weights[~positive].sum():
            assert value == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights), abs=1e-12)
        else:
            assert np.isnan(value)


@given(cases, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_f1_and_accuracy_try_every_threshold(rows: list[tuple[int, bool, int]], seed: int) -> None:
    scores, positive, owner = columns(rows)
    counts = draws(seed)
    f1, accuracy = resampled_best_f1(scores, positive, owner, counts)
    for resample, drawn in enumerate(counts.T):
        row_scores, labels = np.repeat(scores, drawn[owner]), np.repeat(positive, drawn[owner])
        if not labels.any():
            assert np.isnan(f1[resample]) and np.isnan(accuracy[resample])
            continue
        best = (-1.0, 0.0)
        for threshold in np.unique(row_scores):  # from the lowest up: of equals the lowest stays
            chosen = row_scores >= threshold
            own = 2 * (chosen & labels).sum() / (chosen.sum() + labels.sum())
            if own > best[0]:
                best = (own, (chosen == labels).mean())
        assert (f1[resample], accuracy[resample]) == pytest.approx(best, abs=1e-15)


def test_counts_of_millions_do_not_overflow() -> None:
    """66,000 rows of one unit that is drawn 255 times: 16.8 million rows, and 7e13 pairs."""
    positive = np.arange(66_000) % 2 == 0
    scores = np.where(positive, 1, 0).astype(np.float32)
    counts = np.full((1, 3), 255, np.uint8)
    owner = np.zeros(len(scores), np.int64)
    assert resampled_auc(scores, positive, owner, counts).tolist() == [1.0] * 3
    assert resampled_best_f1(scores, positive, owner, counts)[0].tolist() == [1.0] * 3
    assert resampled_auc(-scores, positive, owner, counts).tolist() == [0.0] * 3


def test_a_ratio_leaves_out_units_that_do_not_count() -> None:
    counts = np.array([[1, 2, 0], [3, 0, 0], [0, 1, 1]], np.uint8)
    found = resampled_ratio(np.array([0.5, 1.0, 0.0]), np.array([1.0, 2.0, 0.0]), counts)
    assert found[:2].tolist() == [3.5 / 7, 1.0 / 2]
    assert np.isnan(found[2])  # only the unit that does not count was drawn
