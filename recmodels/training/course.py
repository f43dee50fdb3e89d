"""What happens to one member over its epochs: values, the best one, when it ends and why, what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recmodels.training.trainer import Keep, Outcome, State, TrainReport


@dataclass(frozen=True)
class Rules:
    """What decides how long members are trained, and which of their weights are kept.

    Attributes:
        metrics: for each validation metric whether more of it is better; the first one steers.
        epochs: the most there are.
        patience: epochs without a better value after which a member ends, or None.
        keep: "none", the weights of the "last" epoch, or those of the "best" one.
    """

    metrics: Mapping[str, bool]
    epochs: int
    patience: int | None
    keep: Keep


class Course:
    """One member from its first epoch to its end.

    A trainer tells of each epoch, in order, either what was `measured` or that the gradient `broke`. Both answer
    whether the weights that the member has after this epoch are to be kept: the trainer then puts them in `state`.

    Args:
        rules: of the training.

    Attributes:
        values: (epochs,) validation values by metric; NaN from where the member diverged or ended.
        outcome: trained or diverged.
        reason: what diverged, and when; None for a trained member.
        epochs: how many it went through.
        ended: whether there is no next epoch.
        state: what was kept.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._steering = next(iter(rules.metrics))
        self._sign = 1.0 if rules.metrics[self._steering] else -1.0
        self._best = math.nan
        self._best_epoch = 0
        self.values = {name: np.full(rules.epochs, np.nan) for name in rules.metrics}
        self.outcome = Outcome.TRAINED
        self.reason: str | None = None
        self.epochs = 0
        self.ended = False
        self.state: State | None = None

    def can_end(self, epoch: int) -> bool:
        """Tell whether an epoch may be the last one, by what is known of the epochs before it."""
        patience = self._rules.patience
        return epoch + 1 == self._rules.epochs or (patience is not None and epoch - self._best_epoch >= patience)

    def measured(self, epoch: int, values: Mapping[str, float]) -> bool:
        """Take note of the validation values of an epoch, counted from 0; where one is not finite, it diverged.

        Returns:
            Whether the weights of this epoch are to be kept.
        """
        self.epochs = epoch + 1
        if not all(map(math.isfinite, values.values())):
            return self._diverged("validation score")
        for name, value in values.items():
            self.values[name][epoch] = value
        value = self._sign * values[self._steering]
        improved = not value <= self._best  # a first value beats NaN
        if improved:
            self._best, self._best_epoch = value, epoch
        self.ended = self.can_end(epoch)
        return self._keeps(improved)

    def broke(self, epoch: int) -> bool:
        """Take note that a gradient of an epoch was not finite; see `measured`."""
        self.epochs = epoch + 1
        return self._diverged("gradient")

    def _diverged(self, what: str) -> bool:
        self.outcome = Outcome.DIVERGED
        self.reason = f"non-finite {what} in epoch {self.epochs}"
        self.ended = True
        return self._keeps(improved=False)

    def _keeps(self, improved: bool) -> bool:
        if self._rules.keep == "best":
            return improved or (self.ended and self.state is None)  # without a value, the last weights
        return self.ended and self._rules.keep == "last"


def report_on(courses: Sequence[Course], seconds: Sequence[float], rules: Rules) -> TrainReport:
    """Return what came out of M members.

    Args:
        courses: of all members, ended.
        seconds: (M,) that each took.
        rules: of the training.
    """
    states = [course.state for course in courses if course.state is not None]
    rows = {name: [course.values[name] for course in courses] for name in rules.metrics}
    return TrainReport(
        metrics={name: np.array(own, np.float64).reshape(-1, rules.epochs) for name, own in rows.items()},
        outcomes=[course.outcome for course in courses],
        reasons=[course.reason for course in courses],
        stopped_at=np.array([course.epochs for course in courses], np.int64),
        seconds=np.array(seconds, np.float64),
        states=State.join(states) if states else None,
    )
