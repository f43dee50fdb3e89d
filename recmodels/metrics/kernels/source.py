"""Loops over the rows of many models or resamples, compiled by numba.

A source of `recmodels.metrics.loops`: nothing else imports it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Whole = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

compiled = njit(cache=True, nogil=True)


@compiled
def doubled_wins(keys: Whole, begins: Whole, ends: Whole) -> Whole:
    """Count as `doubled_wins`: one pass over each sorted row."""
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


@compiled
def sums(values: Real, counts: npt.NDArray[np.uint8]) -> Real:
    """Return the sums (R,) of (U,) values, each counted as often as its unit was drawn."""
    sums = np.zeros(counts.shape[1])
    for unit in range(len(values)):
        if values[unit] != 0:
            for resample in range(len(sums)):
                sums[resample] += values[unit] * counts[unit, resample]
    return sums


@compiled
def count_wins(
    order: Whole,
    begins: Whole,
    positive: npt.NDArray[np.bool_],
    owner: Whole,
    counts: npt.NDArray[np.uint8],
) -> tuple[Real, Real, Real]:
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


@compiled
def best_threshold(
    order: Whole,
    begins: Whole,
    positive: npt.NDArray[np.bool_],
    owner: Whole,
    counts: npt.NDArray[np.uint8],
    positives: Whole,
) -> tuple[Whole, Whole]:
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
