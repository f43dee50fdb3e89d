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

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gploss.files.described import key_of
from gploss.registry import Registry, discover
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.resampling import Counts, Floats
from recmodels.metrics.targets import Need, Targets

_ELEMENTS_AT_A_TIME: Final = {"cpu": 2**16, "cuda": 2**25}
"""Rows are taken in chunks of about so many scores: half a megabyte of keys stays in a core's cache."""

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
        resampled: its values in many resamples at once; without it a verdict judges the rows of each by themselves.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool
    needs: frozenset[Need] = frozenset()
    resampled: ResampledFunction | None = None

    def check(self, targets: Targets) -> None:
        """Check that the metric can be computed on these targets.

        Raises:
            ValueError: it needs what is not there.
        """
        missing = [need for need in Need if need in self.needs - targets.offers]
        if missing:
            raise ValueError(
                f"the metric {self.name!r} cannot be computed on these {targets.n_rows} rows "
                f"({targets.n_positives} with label 1, {targets.n_negatives} with label 0): it needs {missing[0]}"
            )

    @property
    def content(self) -> str:
        """A hash of its code and all that this calls."""
        return key_of((self.function, sorted(self.needs), self.resampled), f"the metric {self.name!r}")

    def __call__(self, scores: Tensor, targets: Targets) -> Tensor:
        """Return the metric of each row, (M,) float64; arguments and errors as in `evaluate`."""
        return _evaluate([self], scores, targets)[self.name]


METRICS: Registry[Metric] = Registry("metric", module=__name__)


def require(names: Iterable[str], targets: Targets) -> None:
    """Check that metrics can be computed on some targets, before anything is trained for them.

    `evaluate` checks its own names only, so that rows of one class still serve the metrics that make sense on them
    (log loss, RMSE, MAE).

    Raises:
        LookupError: no metric has that name.
        ValueError: a metric needs what is not there.
    """
    for name in names:
        METRICS[name].check(targets)


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
        As `evaluate`; and ValueError where the counts do not fit the targets, or the metric does not say how it is
        resampled.
    """
    metric = METRICS[name]
    if metric.resampled is None:
        raise ValueError(f"the metric {name!r} does not say how it is resampled: give it Metric.resampled")
    metric.check(targets)
    _check_scores(scores, targets)
    if len(counts) != targets.n_units:
        raise ValueError(f"counts are given for {len(counts)} units; the targets have {targets.n_units}")
    result = np.full((len(scores), counts.shape[1]), np.nan)
    for model in range(len(scores)):
        predictions = Predictions(scores[model : model + 1], targets)
        if predictions.finite:
            result[model] = metric.resampled(predictions, counts)
    return result


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


discover(__name__, METRICS)  # the metrics themselves: each module of this package registers its own
