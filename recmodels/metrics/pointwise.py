"""Pairs in the right order, errors of probabilities, and decisions at a threshold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recmodels.metrics import METRICS, Metric
from recmodels.metrics.counting import doubled_wins, total
from recmodels.metrics.predictions import LARGEST_LOGIT, Predictions
from recmodels.metrics.resampling import Counts, Floats, resampled_auc, resampled_best_f1, resampled_ratio
from recmodels.metrics.targets import Need


def auc(predictions: Predictions) -> Tensor:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counted half.

    Exact but for one rounding, in the division; equal to scikit-learn's ``roc_auc_score`` up to its rounding.
    Taken on scores: where float32 sigmoids saturate and tie, the scores still differ.
    """
    targets = predictions.targets
    wins = doubled_wins(predictions.by_score, targets.everything).squeeze(1)
    return wins.to(torch.float64) / (2 * targets.n_positives * targets.n_negatives)


def _auc_resampled(predictions: Predictions, counts: Counts) -> Floats:
    return resampled_auc(*_one_model(predictions), counts)


def gauc(predictions: Predictions) -> Tensor:
    """Mean of the users' own AUCs, weighted by their numbers of rows; users with one label only are left out.

    Source: Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017 (there weighted by
    impressions, which are the rows here).
    """
    won, sizes = _won_by_user(predictions)
    weight = int(sizes.sum())
    return total(won, bound=weight) / weight


def _gauc_resampled(predictions: Predictions, counts: Counts) -> Floats:
    users = predictions.targets.all_users
    mixed = (users.positives > 0) & (users.negatives > 0)
    won, sizes = _won_by_user(predictions)
    return resampled_ratio(won[0].numpy(), sizes.to(torch.float64).numpy(), counts[mixed.numpy()])


def _won_by_user(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Return AUC times number of rows of each user with both labels, (M, U'), and those numbers, (U',)."""
    users = predictions.targets.mixed_users
    wins = doubled_wins(predictions.by_user, users)
    sizes = users.ends - users.begins
    pairs = 2 * users.positives * users.negatives
    return wins / pairs.to(torch.float64) * sizes, sizes


def logloss(predictions: Predictions) -> Tensor:
    """Mean negative log-likelihood of the labels, in nats, with probabilities clipped to [1e-6, 1 - 1e-6]."""
    n_rows = predictions.targets.n_rows
    return total(predictions.log_losses, bound=(LARGEST_LOGIT + 1) * n_rows) / n_rows


def rmse(predictions: Predictions) -> Tensor:
    """Root of the mean squared difference between sigmoid(score) and label."""
    n_rows = predictions.targets.n_rows
    return (total(predictions.errors.square(), bound=n_rows) / n_rows).sqrt()


def mae(predictions: Predictions) -> Tensor:
    """Mean absolute difference between sigmoid(score) and label."""
    n_rows = predictions.targets.n_rows
    return total(predictions.errors, bound=n_rows) / n_rows


def _mean_over_rows(predictions: Predictions, values: Tensor, counts: Counts) -> Floats:
    """Return (R,) means of (1, N) values over the rows drawn."""
    targets = predictions.targets
    sums = np.bincount(targets.unit, weights=values[0].numpy(), minlength=targets.n_units).astype(np.float64)
    rows = np.bincount(targets.unit, minlength=targets.n_units).astype(np.float64)
    return resampled_ratio(sums, rows, counts)


def _logloss_resampled(predictions: Predictions, counts: Counts) -> Floats:
    return _mean_over_rows(predictions, predictions.log_losses, counts)


def _rmse_resampled(predictions: Predictions, counts: Counts) -> Floats:
    root: Floats = np.sqrt(_mean_over_rows(predictions, predictions.errors.square(), counts))
    return root


def _mae_resampled(predictions: Predictions, counts: Counts) -> Floats:
    return _mean_over_rows(predictions, predictions.errors, counts)


def f1(predictions: Predictions) -> Tensor:
    """F1 of the positives at the best threshold for each model: the maximum of 2PR / (P + R) over its scores.

    As AutoLossGen's authors compute it, but for the 1e-6 that they add to the denominator. The threshold is
    chosen on the rows it is judged on, which flatters every model.
    """
    return predictions.best_f1[0]


def accuracy(predictions: Predictions) -> Tensor:
    """Share of labels predicted right at the threshold of `f1` (a score equal to it counts as 1)."""
    return predictions.best_f1[1]


def _f1_resampled(predictions: Predictions, counts: Counts) -> Floats:
    return resampled_best_f1(*_one_model(predictions), counts)[0]


def _accuracy_resampled(predictions: Predictions, counts: Counts) -> Floats:
    return resampled_best_f1(*_one_model(predictions), counts)[1]


def _one_model(
    predictions: Predictions,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return scores (N,), which rows are positive (N,), and the unit of each row (N,)."""
    targets = predictions.targets
    return predictions.scores[0].numpy(), targets.negative.numpy() == 0, targets.unit


for _metric in (
    Metric("auc", auc, True, frozenset({Need.BOTH_CLASSES}), _auc_resampled),
    Metric("gauc", gauc, True, frozenset({Need.USERS, Need.MIXED_USER}), _gauc_resampled),
    Metric("logloss", logloss, False, resampled=_logloss_resampled),
    Metric("rmse", rmse, False, resampled=_rmse_resampled),
    Metric("mae", mae, False, resampled=_mae_resampled),
    Metric("f1", f1, True, frozenset({Need.POSITIVE}), _f1_resampled),
    Metric("accuracy", accuracy, True, frozenset({Need.POSITIVE}), _accuracy_resampled),
):
    METRICS.register(_metric.name, _metric)
