"""Metrics of resampled rows without copying a row: each unit (a user, or a row) counts as often as it was drawn.

A bootstrap of 1,000 resamples needs a metric 1,000 times for the same scores. Here it is computed for all resamples
in one pass over the rows: the inner loops run over the resamples, whose counts lie side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recmodels.metrics.loops import loops

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
    above, below = loops().sums(numerators, counts), loops().sums(denominators, counts)
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
    doubled_wins, positives, negatives = loops().count_wins(order, begins, positive, owner, counts)
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
    positives = loops().sums(np.bincount(owner[positive], minlength=len(counts)).astype(np.float64), counts)
    rows = loops().sums(np.bincount(owner, minlength=len(counts)).astype(np.float64), counts)
    hits, predicted = loops().best_threshold(order, begins, positive, owner, counts, positives.astype(np.int64))
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
