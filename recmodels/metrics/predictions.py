"""Scores of many models for the rows of some targets, with what several metrics share."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from recmodels.metrics.counting import differs_from_previous, sorted_rows
from recmodels.metrics.targets import Targets, Top

LOGLOSS_CLIPPING: Final = 1e-6
"""Probabilities are clipped to [1e-6, 1 - 1e-6] in the log loss, as AutoLossGen's authors do."""

LARGEST_LOGIT: Final = math.log((1 - LOGLOSS_CLIPPING) / LOGLOSS_CLIPPING)
"""What the clipping of probabilities does to the score, in either direction."""


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
        return sorted_rows(self._keys())

    @cached_property
    def by_user(self) -> Tensor:
        """(M, N) int64: as `by_score` with the user in front: a user's keys have the same columns in every row."""
        return sorted_rows(self._keys() + (self.targets.user_index << 33))

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
        f1[:, 1:] *= differs_from_previous(keys)
        best, column = f1.max(dim=1)
        best_hits = hits.gather(1, column.unsqueeze(1)).squeeze(1)
        correct = targets.n_negatives + 2 * best_hits - predicted[column]
        return best, correct.to(torch.float64) / targets.n_rows

    def top_positives(self, top: Top) -> Tensor:
        """Return (M, C) int64: 1 where the row in that place is a positive.

        Among a user's rows of equal score negatives are placed first, so that a constant model earns nothing by
        the order of the rows in a file.
        """
        return 1 - (self.by_user[:, top.columns] & 1)
