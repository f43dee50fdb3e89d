"""Every metric of the table in resamples, against the metric itself on rows that are copied."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from recmodels.metrics import METRICS, Metric, evaluate, evaluate_resampled
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.targets import Targets

N_USERS, ROWS, RESAMPLES = 30, 200, 40


def make(levels: int, *, users: bool = True, seed: int = 0) -> tuple[torch.Tensor, Targets, npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy((rng.integers(-levels, levels, size=(3, ROWS)) / 7).astype(np.float32))
    labels = rng.random(ROWS) < 0.3
    owner = np.concatenate([np.arange(N_USERS), rng.integers(N_USERS, size=ROWS - N_USERS)]) * 17 - 5
    targets = Targets(labels, owner if users else None)
    drawn = rng.integers(targets.n_units, size=(RESAMPLES, targets.n_units))
    counts = np.stack([np.bincount(own, minlength=targets.n_units) for own in drawn], axis=1)
    return scores, targets, counts.astype(np.uint8)


def on_copies(
    metric: Metric, scores: torch.Tensor, targets: Targets, drawn: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Copy the rows of every unit as often as it was drawn, every copy as a user of its own."""
    rows, users = [], []
    for unit, times in enumerate(drawn):
        own = np.flatnonzero(targets.unit == unit)
        for copy in range(times):
            rows.append(own)
            users.append(np.full(len(own), 1000 * unit + copy))
    index = np.concatenate(rows)
    copied = Targets(targets.labels[index], None if targets.users is None else np.concatenate(users))
    return metric(scores[:, index], copied).numpy()


@pytest.mark.parametrize("levels", [3, 10_000])
@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_in_resamples_is_the_metric_on_copied_rows(name: str, levels: int) -> None:
    scores, targets, counts = make(levels)
    found = evaluate_resampled(name, scores, targets, counts)
    assert found.shape == (3, RESAMPLES)
    expected = np.stack([on_copies(METRICS[name], scores, targets, drawn) for drawn in counts.T], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["auc", "gauc", "logloss", "rmse", "mae", "f1", "accuracy", "ndcg@10", "hr@10", "recall@10"]
)
def test_the_metrics_of_the_table_copy_no_rows(name: str) -> None:
    assert METRICS[name].resampled is not None


@pytest.mark.parametrize("name", METRICS.names())
def test_every_unit_once_is_the_metric_itself(name: str) -> None:
    scores, targets, _ = make(5, seed=2)
    found = evaluate_resampled(name, scores, targets, np.ones((targets.n_units, 1), np.uint8))
    np.testing.assert_allclose(found[:, 0], evaluate([name], scores, targets)[name].numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if metric.resampled and not metric.needs]
)
def test_rows_are_drawn_where_there_are_no_users(name: str) -> None:
    scores, targets, counts = make(3, users=False)
    assert targets.n_units == ROWS
    found = evaluate_resampled(name, scores, targets, counts)
    expected = [
        evaluate([name], scores[:, own], Targets(targets.labels[own]))[name].numpy()
        for own in (np.repeat(np.arange(ROWS), drawn) for drawn in counts.T)
    ]
    np.testing.assert_allclose(found.T, expected, rtol=0, atol=1e-12)


def test_where_a_metric_is_not_defined() -> None:
    """Users drawn have one label only, or no positive; a model has a score that is not finite."""
    targets = Targets([1, 0, 0, 1], users=[1, 1, 2, 3])
    scores = torch.tensor([[2.0, 1.0, 0.0, 0.5], [math.nan, 1.0, 0.0, 0.5]])
    counts = np.array([[1, 0, 0], [0, 3, 0], [2, 0, 3]], np.uint8)
    expected = {
        "auc": [True, False, False],
        "gauc": [True, False, False],
        "f1": [True, False, True],
        "accuracy": [True, False, True],
        "ndcg@5": [True, False, True],
        "logloss": [True, True, True],
    }
    for name, defined in expected.items():
        fast = evaluate_resampled(name, scores, targets, counts)
        assert np.isfinite(fast[0]).tolist() == defined, name
        assert np.isnan(fast[1]).all()


def test_what_resampling_asks_for() -> None:
    scores, targets, counts = make(3)
    with pytest.raises(ValueError, match="counts are given for 29 units; the targets have 30"):
        evaluate_resampled("auc", scores, targets, counts[1:])
    with pytest.raises(ValueError, match="it needs rows with label 1 and rows with label 0"):
        evaluate_resampled("auc", scores[:, :3], Targets([1, 1, 1]), counts[:3])
    METRICS.register("mute", dataclasses.replace(METRICS["auc"], name="mute", resampled=None))
    try:
        with pytest.raises(ValueError, match="'mute' does not say how it is resampled"):
            evaluate_resampled("mute", scores, targets, counts)
    finally:
        METRICS.unregister("mute")
    with pytest.raises(LookupError, match="no metric is named 'nothing'"):
        evaluate_resampled("nothing", scores, targets, counts)


def test_a_users_own_metric_may_bring_its_own_way() -> None:
    def mean_score(predictions: Predictions) -> torch.Tensor:
        return predictions.scores.double().mean(dim=1)

    own = Metric(
        "mean score", mean_score, True, resampled=lambda predictions, counts: np.full(counts.shape[1], 7.0)
    )
    METRICS.register("mean score", own)
    try:
        scores, targets, counts = make(3)
        assert (evaluate_resampled("mean score", scores, targets, counts) == 7.0).all()
    finally:
        METRICS.unregister("mean score")
