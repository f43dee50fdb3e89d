"""Metrics of many models at once: a matrix of scores, one row a model, gives one number a row.

Three promises hold for every metric here:

- **Rows do not see each other.** A row's value has the same bits alone, in any batch, in any order of rows and
  with any number of threads. Counts are integers, and sums of fractions are taken in fixed point, where the order
  of addition does not matter.
- **The order of the examples does not matter either**, ties included.
- **A row with a score that is not finite gives NaN**, in its own place only.

Example:
    >>> targets = Targets([1, 0, 1, 0], users=[7, 7, 7, 8])
    >>> scores = torch.tensor([[2.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> evaluate(["auc", "gauc"], scores, targets)["auc"]
    tensor([0.7500, 0.5000], dtype=torch.float64)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gploss.registry import Registry
from recmodels.metrics.resampling import Counts, Floats, resampled_auc, resampled_best_f1, resampled_ratio

LOGLOSS_CLIPPING: Final = 1e-6
"""Probabilities are clipped to [1e-6, 1 - 1e-6] in the log loss, as AutoLossGen's authors do."""

LARGEST_LOGIT: Final = math.log((1 - LOGLOSS_CLIPPING) / LOGLOSS_CLIPPING)
"""What the clipping of probabilities does to the score, in either direction."""

CUTOFFS: Final = (5, 10, 20)
"""The list lengths k for which ndcg@k, hr@k and recall@k are registered."""

_ELEMENTS_AT_A_TIME: Final = {"cpu": 2**16, "cuda": 2**25}
"""Rows are taken in chunks of about so many scores: half a megabyte of keys stays in a core's cache."""


class Need(StrEnum):
    """What a metric asks of the targets; the value completes the sentence "it needs ..."."""

    POSITIVE = "at least one row with label 1"
    BOTH_CLASSES = "rows with label 1 and rows with label 0"
    USERS = "the user of each row (Targets(labels, users))"
    MIXED_USER = "at least one user with rows of both labels"


@dataclass(frozen=True)
class _Segments:
    """Column ranges of the sorted keys (a user's rows, or all rows) and their class counts, each (S,) int64."""

    begins: Tensor
    ends: Tensor
    positives: Tensor
    negatives: Tensor


@dataclass(frozen=True)
class _Top:
    """The first k places of the users with a positive, as columns of the keys sorted by user.

    Attributes:
        columns: (C,) int64, a user's places side by side.
        ends: (U,) int64, where a user's places end in ``columns``.
        gain: (C,) float64, what a positive in that place adds to the user's NDCG.
        share: (C,) float64, what it adds to the user's recall.
    """

    columns: Tensor
    ends: Tensor
    gain: Tensor
    share: Tensor


class Targets:
    """Labels and users of N rows, with all that depends on them only and is shared by every call.

    Args:
        labels: (N,) of 0 and 1, numbers or booleans.
        users: (N,) integer identifiers, any values; None where there are no users.
        metrics: names of the metrics that will be asked for, checked at once. `evaluate` checks its names too, so a
            single-class set can still serve the metrics that make sense on it (log loss, RMSE, MAE).
        device: where the scores will be; by default that of ``labels``, or the CPU.

    Attributes:
        labels: (N,) float32.
        users: (N,) int64, or None.
        device: where everything is kept.
        n_rows: N.
        n_positives: the number of rows with label 1.
        n_negatives: the number of rows with label 0.
        offers: the needs of metrics that these targets meet.

    Raises:
        ValueError: no rows, a label other than 0 and 1, shapes that differ, or too little for one of ``metrics``.
        TypeError: labels that are not numbers, or users that are not integers.
    """

    def __init__(
        self,
        labels: npt.ArrayLike | Tensor,
        users: npt.ArrayLike | Tensor | None = None,
        *,
        metrics: Iterable[str] = (),
        device: torch.device | str | None = None,
    ) -> None:
        self.labels = _checked_labels(labels, device)
        self.device = self.labels.device
        self.users = None if users is None else _checked_users(users, self.labels)
        self.n_rows = len(self.labels)
        self.n_positives = int(self.labels.sum(dtype=torch.float64))
        self.n_negatives = self.n_rows - self.n_positives
        self._tops: dict[int, _Top] = {}
        self.offers = self._find_offers()
        self.require(metrics)

    def require(self, names: Iterable[str]) -> None:
        """Check that metrics can be computed on these targets.

        Raises:
            LookupError: no metric has that name.
            ValueError: a metric needs what is not there.
        """
        for name in names:
            METRICS[name].check(self)

    def _find_offers(self) -> frozenset[Need]:
        found = {
            Need.POSITIVE: self.n_positives > 0,
            Need.BOTH_CLASSES: self.n_positives > 0 and self.n_negatives > 0,
            Need.USERS: self.users is not None,
            Need.MIXED_USER: self.users is not None and len(self.mixed_users.begins) > 0,
        }
        return frozenset(need for need, there in found.items() if there)

    @cached_property
    def negative(self) -> Tensor:
        """(N,) int64: 1 where the label is 0."""
        return 1 - self.labels.to(torch.int64)

    @cached_property
    def user_index(self) -> Tensor:
        """(N,) int64: the user of each row as its position among the sorted distinct users."""
        if self.users is None:
            raise ValueError(f"these targets have no users; a metric by user needs {Need.USERS}")
        index: Tensor = torch.unique(self.users, return_inverse=True)[1]
        return index

    @cached_property
    def unit(self) -> npt.NDArray[np.int64]:
        """(N,) what each row is drawn with in a resample: its user, or itself where there are no users."""
        index = torch.arange(self.n_rows) if self.users is None else self.user_index.cpu()
        unit: npt.NDArray[np.int64] = index.numpy()
        return unit

    @cached_property
    def n_units(self) -> int:
        """Number of users, or of rows where there are no users."""
        return int(self.unit.max()) + 1

    @cached_property
    def everything(self) -> _Segments:
        """All rows as one segment."""
        values = (0, self.n_rows, self.n_positives, self.n_negatives)
        return _Segments(*(torch.tensor([value], device=self.device) for value in values))

    @cached_property
    def all_users(self) -> _Segments:
        """A segment for each user."""
        sizes = torch.bincount(self.user_index)
        negatives = torch.bincount(self.user_index[self.negative == 1], minlength=len(sizes))
        ends = sizes.cumsum(0)
        return _Segments(ends - sizes, ends, sizes - negatives, negatives)

    @cached_property
    def mixed_users(self) -> _Segments:
        """A segment for each user with rows of both labels."""
        users = self.all_users
        kept = (users.positives > 0) & (users.negatives > 0)
        return _Segments(users.begins[kept], users.ends[kept], users.positives[kept], users.negatives[kept])

    def top(self, k: int) -> _Top:
        """Return the first k places of the users with a positive; computed once for each k."""
        if k not in self._tops:
            self._tops[k] = self._find_top(k)
        return self._tops[k]

    def _find_top(self, k: int) -> _Top:
        users = self.all_users
        owner = self.user_index.sort().values
        # Keys ascend, so a user's best row is the last of the segment.
        place = users.ends[owner] - 1 - torch.arange(self.n_rows, device=self.device)
        columns = ((place < k) & (users.positives[owner] > 0)).nonzero().squeeze(1)
        owner, place = owner[columns], place[columns]
        discounts = 1 / torch.arange(2, k + 2, device=self.device).to(torch.float64).log2()
        positives = users.positives[owner]
        ideal = discounts.cumsum(0)[positives.clamp(max=k) - 1]
        ends = torch.unique_consecutive(owner, return_counts=True)[1].cumsum(0)
        return _Top(columns, ends, discounts[place] / ideal, 1 / positives.to(torch.float64))


class Predictions:
    """Scores of M models for the rows of some targets, with what several metrics share, each computed once.

    Args:
        scores: (M, N) float32 on the device of the targets. A row that is not finite gives meaningless values here;
            `evaluate` replaces them.
        targets: the N rows.
    """

    def __init__(self, scores: Tensor, targets: Targets) -> None:
        self.scores = scores.detach().contiguous()
        self.targets = targets

    @cached_property
    def finite(self) -> Tensor:
        """(M,) bool: all scores of the row are finite."""
        return self.scores.abs().amax(dim=1).isfinite()

    @cached_property
    def by_score(self) -> Tensor:
        """(M, N) int64: each row's keys, ascending; a key is a score with a last bit: 1 if negative, 0 if positive.

        So positives come first among equal scores, and scores are equal where keys agree but for the last bit.
        """
        return _sorted_rows(self._keys())

    @cached_property
    def by_user(self) -> Tensor:
        """(M, N) int64: as `by_score` with the user in front: a user's keys have the same columns in every row."""
        return _sorted_rows(self._keys() + (self.targets.user_index << 33))

    def _keys(self) -> Tensor:
        bits = self.scores.view(torch.int32)
        sign = bits >> 31
        # Negative floats hold sign and magnitude: -magnitude puts them in order, and -0.0 beside 0.0.
        ordered = (bits ^ (sign & 0x7FFFFFFF)) - sign
        return (ordered.to(torch.int64) << 1).add_(self.targets.negative)

    @cached_property
    def margins(self) -> Tensor:
        """(M, N) float64: the score where the label is 1, its negative where the label is 0."""
        return self.scores.to(torch.float64) * (1 - 2 * self.targets.negative)

    @cached_property
    def errors(self) -> Tensor:
        """(M, N) float64: abs(sigmoid(score) - label).

        Written with `exp`: `torch.sigmoid` on the CPU rounds an element by its position in memory.
        """
        return 1 / (1 + self.margins.exp())

    @cached_property
    def log_losses(self) -> Tensor:
        """(M, N) float64: negative log-likelihood of each label, in nats, with clipped probabilities."""
        # Clipping the logit does the same to the probability, and no digits are lost near 1.
        return (1 + self.margins.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).neg().exp()).log()

    @cached_property
    def best_f1(self) -> tuple[Tensor, Tensor]:
        """(M,) float64 twice: the best F1 over all thresholds, and the accuracy at that threshold.

        A row is predicted positive at a score of at least the threshold, and the thresholds are the scores
        themselves. Of thresholds with the same F1 the lowest is taken, as by ``argmax`` over scikit-learn's
        ``precision_recall_curve``.
        """
        targets, keys = self.targets, self.by_score
        positive = 1 - (keys & 1)
        hits = targets.n_positives - positive.cumsum(dim=1) + positive
        predicted = targets.n_rows - torch.arange(targets.n_rows, device=keys.device)
        f1 = 2 * hits / (predicted + targets.n_positives).to(torch.float64)
        # A threshold takes all rows of equal score, so it can only stand before the first of them.
        f1[:, 1:] *= _differs_from_previous(keys)
        best, column = f1.max(dim=1)
        best_hits = hits.gather(1, column.unsqueeze(1)).squeeze(1)
        correct = targets.n_negatives + 2 * best_hits - predicted[column]
        return best, correct.to(torch.float64) / targets.n_rows

    def top_positives(self, top: _Top) -> Tensor:
        """Return (M, C) int64: 1 where the row in that place is a positive.

        Among a user's rows of equal score negatives are placed first, so that a constant model earns nothing by
        the order of the rows in a file.
        """
        return 1 - (self.by_user[:, top.columns] & 1)


MetricFunction = Callable[[Predictions], Tensor]
"""Gives (M,) float64 for (M, N) scores; each row by itself, with no reduction over M."""

ResampledFunction = Callable[[Predictions, Counts], Floats]
"""Gives (R,) for the scores of one model: the metric's value where each unit counts as often as it was drawn."""


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Attributes:
        name: as users write it.
        function: `Predictions` of M models to (M,) float64.
        higher_is_better: the direction.
        needs: what the targets must offer.
        resampled: its values in many resamples at once; without it the rows are copied for each of them.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool
    needs: frozenset[Need] = frozenset()
    resampled: ResampledFunction | None = None

    def missing(self, targets: Targets) -> list[Need]:
        """Return what the metric needs and the targets do not offer."""
        return [need for need in Need if need in self.needs - targets.offers]

    def check(self, targets: Targets) -> None:
        """Check that the metric can be computed on these targets.

        Raises:
            ValueError: it needs what is not there.
        """
        missing = self.missing(targets)
        if missing:
            raise ValueError(
                f"the metric {self.name!r} cannot be computed on these {targets.n_rows} rows "
                f"({targets.n_positives} with label 1, {targets.n_negatives} with label 0): it needs {missing[0]}"
            )

    def __call__(self, scores: Tensor, targets: Targets) -> Tensor:
        """Return the metric of each row, (M,) float64; arguments and errors as in `evaluate`."""
        return _evaluate([self], scores, targets)[self.name]


METRICS: Registry[Metric] = Registry("metric")


def evaluate(names: Iterable[str], scores: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Compute metrics of M models on the same rows.

    Args:
        names: names in `METRICS`.
        scores: (M, N) float32, one row a model, before the sigmoid, on the device of the targets.
        targets: the labels and users of the N rows.

    Returns:
        For each name (M,) float64 on that device, NaN where a row has a score that is not finite.

    Raises:
        LookupError: no metric has that name.
        ValueError: the scores do not fit the targets, or a metric needs what the targets do not offer.
        TypeError: the scores are not float32.
    """
    return _evaluate([METRICS[name] for name in names], scores, targets)


def evaluate_resampled(name: str, scores: Tensor, targets: Targets, counts: Counts) -> Floats:
    """Compute a metric of M models in R resamples of the targets' units: their users, or rows without users.

    A user who was drawn twice counts as two users with the same rows.

    Args:
        name: a name in `METRICS`.
        scores: (M, N) float32 on the CPU.
        targets: the labels and users of the N rows, on the CPU.
        counts: (U, R) how often each unit was drawn; units are numbered by `Targets.unit`.

    Returns:
        (M, R); NaN where the metric is not defined on what was drawn, and for a model with a score that is not
        finite.

    Raises:
        As `evaluate`; and ValueError where the counts do not fit the targets.
    """
    metric = METRICS[name]
    metric.check(targets)
    _check_scores(scores, targets)
    if len(counts) != targets.n_units:
        raise ValueError(f"counts are given for {len(counts)} units; the targets have {targets.n_units}")
    result = np.full((len(scores), counts.shape[1]), np.nan)
    for model in range(len(scores)):
        predictions = Predictions(scores[model : model + 1], targets)
        if predictions.finite:
            resampled = metric.resampled or functools.partial(_evaluate_copies, metric)
            result[model] = resampled(predictions, counts)
    return result


def auc(predictions: Predictions) -> Tensor:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counted half.

    Exact but for one rounding, in the division; equal to scikit-learn's ``roc_auc_score`` up to its rounding.
    Taken on scores: where float32 sigmoids saturate and tie, the scores still differ.
    """
    targets = predictions.targets
    wins = _doubled_wins(predictions.by_score, targets.everything).squeeze(1)
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
    return _total(won, bound=weight) / weight


def _gauc_resampled(predictions: Predictions, counts: Counts) -> Floats:
    users = predictions.targets.all_users
    mixed = (users.positives > 0) & (users.negatives > 0)
    won, sizes = _won_by_user(predictions)
    return resampled_ratio(won[0].numpy(), sizes.to(torch.float64).numpy(), counts[mixed.numpy()])


def _won_by_user(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Return AUC times number of rows of each user with both labels, (M, U'), and those numbers, (U',)."""
    users = predictions.targets.mixed_users
    wins = _doubled_wins(predictions.by_user, users)
    sizes = users.ends - users.begins
    pairs = 2 * users.positives * users.negatives
    return wins / pairs.to(torch.float64) * sizes, sizes


def logloss(predictions: Predictions) -> Tensor:
    """Mean negative log-likelihood of the labels, in nats, with probabilities clipped to [1e-6, 1 - 1e-6]."""
    n_rows = predictions.targets.n_rows
    return _total(predictions.log_losses, bound=(LARGEST_LOGIT + 1) * n_rows) / n_rows


def rmse(predictions: Predictions) -> Tensor:
    """Root of the mean squared difference between sigmoid(score) and label."""
    n_rows = predictions.targets.n_rows
    return (_total(predictions.errors.square(), bound=n_rows) / n_rows).sqrt()


def mae(predictions: Predictions) -> Tensor:
    """Mean absolute difference between sigmoid(score) and label."""
    n_rows = predictions.targets.n_rows
    return _total(predictions.errors, bound=n_rows) / n_rows


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
        return _total(predictions.top_positives(top) * top.gain, bound=n_users) / n_users

    def hit_rate(predictions: Predictions) -> Tensor:
        top = predictions.targets.top(k)
        until = predictions.top_positives(top).cumsum(dim=1)[:, top.ends - 1]
        hits = until.diff(dim=1, prepend=until.new_zeros(len(until), 1))
        return (hits > 0).sum(dim=1).to(torch.float64) / len(top.ends)

    def recall(predictions: Predictions) -> Tensor:
        top = predictions.targets.top(k)
        n_users = len(top.ends)
        return _total(predictions.top_positives(top) * top.share, bound=n_users) / n_users

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


def _register_all() -> None:
    table = [
        Metric("auc", auc, True, frozenset({Need.BOTH_CLASSES}), _auc_resampled),
        Metric("gauc", gauc, True, frozenset({Need.USERS, Need.MIXED_USER}), _gauc_resampled),
        Metric("logloss", logloss, False, resampled=_logloss_resampled),
        Metric("rmse", rmse, False, resampled=_rmse_resampled),
        Metric("mae", mae, False, resampled=_mae_resampled),
        Metric("f1", f1, True, frozenset({Need.POSITIVE}), _f1_resampled),
        Metric("accuracy", accuracy, True, frozenset({Need.POSITIVE}), _accuracy_resampled),
    ]
    for k in CUTOFFS:
        table.extend(top_k_metrics(k))
    for metric in table:
        METRICS.register(metric.name, metric)


_register_all()


def _evaluate(metrics: list[Metric], scores: Tensor, targets: Targets) -> dict[str, Tensor]:
    for metric in metrics:
        metric.check(targets)
    _check_scores(scores, targets)
    elements = _ELEMENTS_AT_A_TIME.get(targets.device.type, 2**25)
    parts: dict[str, list[Tensor]] = {metric.name: [] for metric in metrics}
    for chunk in torch.split(scores, max(1, elements // targets.n_rows)):
        predictions = Predictions(chunk, targets)
        for metric in metrics:
            values = metric.function(predictions)
            parts[metric.name].append(values.masked_fill(~predictions.finite, math.nan))
    return {name: torch.cat(values) for name, values in parts.items()}


def _evaluate_copies(metric: Metric, predictions: Predictions, counts: Counts) -> Floats:
    """Return (R,) values of a metric on rows that are copied as often as their unit was drawn; slow."""
    targets = predictions.targets
    values = np.full(counts.shape[1], np.nan)
    for resample, drawn in enumerate(counts.T):
        times = drawn[targets.unit].astype(np.int64)
        rows = np.repeat(np.arange(targets.n_rows), times)
        copy = np.arange(len(rows)) - np.repeat(times.cumsum() - times, times)
        users = None if targets.users is None else targets.unit[rows] * len(rows) + copy  # each copy a user
        if len(rows):
            own = Targets(targets.labels[rows], users)
            if not metric.missing(own):
                values[resample] = metric(predictions.scores[:, rows], own)[0]
    return values


def _check_scores(scores: Tensor, targets: Targets) -> None:
    if scores.dtype != torch.float32:
        raise TypeError(f"scores are {scores.dtype}; metrics are defined on float32: use scores.float()")
    if scores.ndim != 2 or scores.shape[1] != targets.n_rows:
        raise ValueError(
            f"scores have the shape {tuple(scores.shape)}; expected (M, {targets.n_rows}): one row a model, "
            f"one column a row of the targets"
        )
    if scores.device != targets.device:
        raise ValueError(
            f"scores are on {scores.device}, targets on {targets.device}; use Targets(..., device=...)"
        )


def _checked_labels(labels: npt.ArrayLike | Tensor, device: torch.device | str | None) -> Tensor:
    values = _own_tensor("labels", labels, device).to(torch.float32)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"labels have the shape {tuple(values.shape)}; expected (N,) with at least one row")
    wrong = ((values != 0) & (values != 1)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(f"labels must be 0 or 1; row {row} has {values[row].item():g}")
    return values


def _checked_users(users: npt.ArrayLike | Tensor, labels: Tensor) -> Tensor:
    values = _own_tensor("users", users, labels.device)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"users are {values.dtype}; they must be integers: number them first")
    if values.shape != labels.shape:
        raise ValueError(
            f"users have the shape {tuple(values.shape)}, labels {tuple(labels.shape)}: give one user a row"
        )
    return values.to(torch.int64)


def _own_tensor(what: str, values: npt.ArrayLike | Tensor, device: torch.device | str | None) -> Tensor:
    """Copy to a tensor, so that later changes by the caller reach nothing derived from it."""
    if isinstance(values, Tensor):
        return values.detach().to(device or values.device, copy=True)
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} are {array.dtype}; they must be numbers")
    return torch.from_numpy(array).to(device or "cpu")


def _total(values: Tensor, bound: float) -> Tensor:
    """Sum (M, C) float64 over the columns to (M,), with the same bits in whatever order they are added.

    A sum of integers does not depend on its order, so the values are rounded to multiples of 2^-s first, with s
    as large as an int64 allows: the error is below C * 2^-62 * bound.

    Args:
        values: not negative.
        bound: at least the sum of each row.
    """
    scale = math.ldexp(1.0, 62 - math.frexp(bound)[1])
    return (values * scale).round().to(torch.int64).sum(dim=1).to(torch.float64) / scale


def _sorted_rows(keys: Tensor) -> Tensor:
    """Sort each row of (M, N) int64; on the CPU in place and by numpy, whose sort is vectorised."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)
    return keys


def _differs_from_previous(keys: Tensor) -> Tensor:
    """Tell for the columns from the second on where a new score (or user) begins: (M, N - 1) bool."""
    scores = keys >> 1
    return scores[:, 1:] != scores[:, :-1]


def _doubled_wins(keys: Tensor, segments: _Segments) -> Tensor:
    """Count pairs of a positive and a negative in each segment: 2 where the positive scores higher, 1 for a tie.

    Args:
        keys: (M, N) int64, as `Predictions.by_score` and `Predictions.by_user`.
        segments: S column ranges that no score is shared across.

    Returns:
        (M, S) int64.
    """
    if keys.device.type != "cpu":
        return _doubled_wins_by_scans(keys, segments)
    return torch.from_numpy(_doubled_wins_by_loop(keys.numpy(), segments.begins.numpy(), segments.ends.numpy()))


def _doubled_wins_by_scans(keys: Tensor, segments: _Segments) -> Tensor:
    """Count as `_doubled_wins`, on any device."""
    positive = 1 - (keys & 1)
    seen = positive.cumsum(dim=1)
    below = seen - positive
    below[:, 1:] *= _differs_from_previous(keys)
    below = below.cummax(dim=1).values  # positives with a lower score; `seen` has those with the same score too
    lost = ((1 - positive) * (seen + below)).cumsum(dim=1)
    seen, lost = (torch.nn.functional.pad(counts, (1, 0)) for counts in (seen, lost))
    earlier = 2 * segments.negatives * seen[:, segments.begins]  # lost to positives before the segment
    within = lost[:, segments.ends] - lost[:, segments.begins] - earlier
    return 2 * segments.positives * segments.negatives - within


def _count_doubled_wins(
    keys: npt.NDArray[np.int64], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Count as `_doubled_wins`: one pass over each sorted row."""
    wins = np.empty((len(keys), len(begins)), np.int64)
    for row in range(len(keys)):
        for segment in range(len(begins)):
            seen = 0
            below = 0
            lost = 0
            previous = keys[row, begins[segment]] >> 1
            for key in keys[row, begins[segment] : ends[segment]]:
                score = key >> 1
                negative = key & 1
                # A choice of values, not a branch: whether two scores tie cannot be predicted.
                below = seen if score != previous else below
                previous = score
                seen += 1 - negative
                lost += negative * (seen + below)
            size = ends[segment] - begins[segment]
            wins[row, segment] = 2 * seen * (size - seen) - lost
    return wins


_Kernel = Callable[[Any, Any, Any], npt.NDArray[np.int64]]
_doubled_wins_by_loop: _Kernel = numba.njit(cache=True, nogil=True)(_count_doubled_wins)
