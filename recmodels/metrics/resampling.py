"""Metrics of resampled rows without copying a row: each unit (a user, or a row) counts as often as it was drawn.

A bootstrap of 1,000 resamples needs a metric 1,000 times for the same scores. Here it is computed for all resamples
in one pass over the rows: the inner loops run over the resamples, whose counts lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: (U, R) uint8: how often each of U units was drawn in each of R resamples.
Counts = npt.NDArray[np.uint8]


def resampled_ratio(numerators: Floats, denominators: Floats, counts: Counts) -> Floats:
    """Return a ratio of sums over units, in each resample.

    Args:
        numerators: (U,) what each unit adds above the line.
        denominators: (U,) what it adds below; both 0 for a unit that the metric leaves out.
        counts: (U, R).

    Returns:
        (R,); NaN where nothing that was drawn counts.
    """
    above, below = _sums(numerators, counts), _sums(denominators, counts)
    return _divide(above, below)


def resampled_auc(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], owner: Integers, counts: Counts
) -> Floats:
    """Return the area under the ROC curve in each resample, ties counted half; exact but for one rounding.

    Args:
        scores: (N,) finite.
        positive: (N,).
        owner: (N,) the unit of each row.
        counts: (U, R).

    Returns:
        (R,); NaN where the rows drawn are of one class.
    """
    order, begins = _groups(scores)
    doubled_wins, positives, negatives = _count_wins(order, begins, positive, owner, counts)
    return _divide(doubled_wins, 2.0 * positives * negatives)


def resampled_best_f1(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], owner: Integers, counts: Counts
) -> tuple[Floats, Floats]:
    """Return the best F1 over all thresholds, and the accuracy at that threshold, in each resample.

    Of thresholds with the same F1 the lowest is taken. Arguments as in `resampled_auc`.

    Returns:
        (R,) twice; NaN where no positive was drawn.
    """
    order, begins = _groups(scores)
    positives = _sums(np.bincount(owner[positive], minlength=len(counts)).astype(np.float64), counts)
    rows = _sums(np.bincount(owner, minlength=len(counts)).astype(np.float64), counts)
    hits, predicted = _best_threshold(order, begins, positive, owner, counts, positives.astype(np.int64))
    defined = np.where(positives > 0, 1.0, 0.0)
    f1 = _divide(2.0 * hits * defined, (predicted + positives) * defined)
    return f1, _divide((rows - positives + 2.0 * hits - predicted) * defined, rows * defined)


def _groups(scores: npt.NDArray[np.float32]) -> tuple[Integers, Integers]:
    """Order rows by score; the groups of equal scores begin, in that order, at (G + 1,) `begins`, N at the end."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    return order, begins


def _divide(above: Floats, below: Floats) -> Floats:
    result = np.full(len(above), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _add_up(values: Floats, counts: Counts) -> Floats:
    sums = np.zeros(counts.shape[1])
    for unit in range(len(values)):
        if values[unit] != 0:
            for resample in range(len(sums)):
                sums[resample] += values[unit] * counts[unit, resample]
    return sums


def _wins(
    order: Integers, begins: Integers, positive: npt.NDArray[np.bool_], owner: Integers, counts: Counts
) -> tuple[Floats, Floats, Floats]:
    """Count both classes, and 2 for each pair with the positive above the negative, 1 for a tie; by resample."""
    n_resamples = counts.shape[1]
    wins = np.zeros(n_resamples, np.int64)
    positives, negatives = np.zeros(n_resamples, np.int64), np.zeros(n_resamples, np.int64)
    tied = np.zeros((2, n_resamples), np.int32)  # negatives and positives of one score
    for group in range(len(begins) - 1):
        tied[:] = 0
        for row in order[begins[group] : begins[group + 1]]:
            own, drawn = tied[np.int64(positive[row])], counts[owner[row]]
            for resample in range(n_resamples):
                own[resample] += drawn[resample]
        for resample in range(n_resamples):
            wins[resample] += tied[1, resample] * (2 * negatives[resample] + tied[0, resample])
            negatives[resample] += tied[0, resample]
            positives[resample] += tied[1, resample]
    return wins.astype(np.float64), positives.astype(np.float64), negatives.astype(np.float64)


def _search_threshold(
    order: Integers,
    begins: Integers,
    positive: npt.NDArray[np.bool_],
    owner: Integers,
    counts: Counts,
    positives: Integers,
) -> tuple[Integers, Integers]:
    """Return hits and rows predicted positive at the threshold of the best F1, from the highest threshold down."""
    n_resamples = counts.shape[1]
    hits, predicted = np.zeros(n_resamples, np.int64), np.zeros(n_resamples, np.int64)
    best_hits, best_predicted = np.zeros(n_resamples, np.int64), np.zeros(n_resamples, np.int64)
    for group in range(len(begins) - 2, -1, -1):
        for row in order[begins[group] : begins[group + 1]]:
            drawn, is_hit = counts[owner[row]], np.int64(positive[row])
            for resample in range(n_resamples):
                predicted[resample] += drawn[resample]
                hits[resample] += is_hit * drawn[resample]
        for resample in range(n_resamples):
            # hits / (predicted + positives), compared in whole numbers; of equals the later one, which is lower
            here = hits[resample] * (best_predicted[resample] + positives[resample])
            if here >= best_hits[resample] * (predicted[resample] + positives[resample]):
                best_hits[resample], best_predicted[resample] = hits[resample], predicted[resample]
    return best_hits, best_predicted


_Kernel = Callable[..., Any]
_sums: _Kernel = numba.njit(cache=True, nogil=True)(_add_up)
_count_wins: _Kernel = numba.njit(cache=True, nogil=True)(_wins)
_best_threshold: _Kernel = numba.njit(cache=True, nogil=True)(_search_threshold)
