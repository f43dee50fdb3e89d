"""Sums and counts with the same bits in whatever order their terms are taken."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recmodels.metrics.loops import loops
from recmodels.metrics.targets import Segments


def total(values: Tensor, bound: float) -> Tensor:
    """Sum (M, C) float64 over the columns to (M,), with the same bits in whatever order they are added.

    A sum of integers does not depend on its order, so the values are rounded to multiples of 2^-s first, with s
    as large as an int64 allows: the error is below C * 2^-62 * bound.

    Args:
        values: not negative.
        bound: at least the sum of each row.
    """
    scale = math.ldexp(1.0, 62 - math.frexp(bound)[1])
    return (values * scale).round().to(torch.int64).sum(dim=1).to(torch.float64) / scale


def sorted_rows(keys: Tensor) -> Tensor:
    """Sort each row of (M, N) int64; on the CPU in place and by numpy, whose sort is vectorised."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    keys.numpy().sort(axis=1)
    return keys


def differs_from_previous(keys: Tensor) -> Tensor:
    """Tell for the columns from the second on where a new score (or user) begins: (M, N - 1) bool."""
    scores = keys >> 1
    return scores[:, 1:] != scores[:, :-1]


def doubled_wins(keys: Tensor, segments: Segments) -> Tensor:
    """Count pairs of a positive and a negative in each segment: 2 where the positive scores higher, 1 for a tie.

    Args:
        keys: (M, N) int64, as `Predictions.by_score` and `Predictions.by_user`.
        segments: S column ranges that no score is shared across.

    Returns:
        (M, S) int64.
    """
    if keys.device.type != "cpu":
        return doubled_wins_by_scans(keys, segments)
    return torch.from_numpy(loops().doubled_wins(keys.numpy(), segments.begins.numpy(), segments.ends.numpy()))


def doubled_wins_by_scans(keys: Tensor, segments: Segments) -> Tensor:
    """Count as `doubled_wins`, on any device."""
    positive = 1 - (keys & 1)
    seen = positive.cumsum(dim=1)
    below = seen - positive
    below[:, 1:] *= differs_from_previous(keys)
    below = below.cummax(dim=1).values  # positives with a lower score; `seen` has those with the same score too
    lost = ((1 - positive) * (seen + below)).cumsum(dim=1)
    seen, lost = (torch.nn.functional.pad(counts, (1, 0)) for counts in (seen, lost))
    earlier = 2 * segments.negatives * seen[:, segments.begins]  # lost to positives before the segment
    within = lost[:, segments.ends] - lost[:, segments.begins] - earlier
    return 2 * segments.positives * segments.negatives - within
