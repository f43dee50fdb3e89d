"""Metrics of the first places of each user's list."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recmodels.metrics import METRICS, Metric
from recmodels.metrics.counting import total
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.resampling import Counts, Floats, resampled_ratio
from recmodels.metrics.targets import Need

CUTOFFS: Final = (5, 10, 20)
"""The list lengths k for which ndcg@k, hr@k and recall@k are registered."""


def top_k_metrics(k: int) -> tuple[Metric, Metric, Metric]:
    """Make ndcg@k, hr@k and recall@k, means over the users with a positive.

    Each user's own rows are ranked, by descending score; of rows with equal scores the negatives come first.

    - ndcg@k: binary gains, discount 1 / log2(place + 1) for places 1 to k, divided by the best possible.
    - hr@k: the share of users with a positive in the first k places.
    - recall@k: the share of the user's positives in the first k places (of all of them, even where k is less).

    Args:
        k: length of the list, at least 1.

    Raises:
        ValueError: k is below 1.

    Example:
        >>> for metric in top_k_metrics(50):
        ...     _ = METRICS.register(metric.name, metric)
    """
    if k < 1:
        raise ValueError(f"a list has at least one place, so k = {k} is too small")

    def ndcg(predictions: Predictions) -> Tensor:
        top = predictions.targets.top(k)
        n_users = len(top.ends)
        return total(predictions.top_positives(top) * top.gain, bound=n_users) / n_users

    def hit_rate(predictions: Predictions) -> Tensor:
        top = predictions.targets.top(k)
        until = predictions.top_positives(top).cumsum(dim=1)[:, top.ends - 1]
        hits = until.diff(dim=1, prepend=until.new_zeros(len(until), 1))
        return (hits > 0).sum(dim=1).to(torch.float64) / len(top.ends)

    def recall(predictions: Predictions) -> Tensor:
        top = predictions.targets.top(k)
        n_users = len(top.ends)
        return total(predictions.top_positives(top) * top.share, bound=n_users) / n_users

    def mean_over_users(predictions: Predictions, counts: Counts, gains: str | None) -> Floats:
        """Sum the gains of each user's positives in the list, or tell whether there are any."""
        top = predictions.targets.top(k)
        values = predictions.top_positives(top)[0].to(torch.float64).numpy()
        begins = np.append(0, top.ends.numpy()[:-1])
        if gains is None:
            own = np.maximum.reduceat(values, begins)
        else:
            own = np.add.reduceat(values * getattr(top, gains).numpy(), begins)
        with_positive = (predictions.targets.all_users.positives > 0).numpy()
        return resampled_ratio(own, np.ones(len(own)), counts[with_positive])

    needs = frozenset({Need.USERS, Need.POSITIVE})
    return (
        Metric(f"ndcg@{k}", ndcg, True, needs, functools.partial(mean_over_users, gains="gain")),
        Metric(f"hr@{k}", hit_rate, True, needs, functools.partial(mean_over_users, gains=None)),
        Metric(f"recall@{k}", recall, True, needs, functools.partial(mean_over_users, gains="share")),
    )


for _k in CUTOFFS:
    for _metric in top_k_metrics(_k):
        METRICS.register(_metric.name, _metric)
