"""From metrics to the one number that a search follows, and the paper's filter on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gploss.arguments import real_number
from gploss.files.plain import JSON
from gploss.search.evaluation import Evaluation

_FAILURE_OF_LOSSES = -10.0
"""Where lower is better, values are negative: a failure must lie below those of any usual RMSE or logloss."""


@dataclass(frozen=True, init=False)
class Reward:
    """How good a candidate is, by one validation metric.

    Attributes:
        metric: name of the metric.
        higher_is_better: its direction.
        failure: the value of a candidate that was rejected or diverged, on the scale of `value`, where higher
            is better. By default 0, the worst AUC or NDCG; where lower is better -10, below the value
            of a usual RMSE or logloss: give your own for a metric with larger numbers.

    Raises:
        ValueError: if failure is not finite.

    Example:
        >>> Reward("auc").of({"auc": [0.5, 0.75, 0.7]}, epochs=3)
        0.75
    """

    metric: str
    higher_is_better: bool
    failure: float

    def __init__(self, metric: str, higher_is_better: bool = True, failure: float | None = None) -> None:
        if failure is None:
            failure = 0.0 if higher_is_better else _FAILURE_OF_LOSSES
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "higher_is_better", bool(higher_is_better))
        object.__setattr__(self, "failure", real_number("what a failure is worth", failure))

    def of(self, metrics: Mapping[str, Sequence[float]], epochs: int) -> float:
        """The best value within the first epochs, in the metric's own direction.

        Args:
            metrics: raw values by name, one an epoch; a run that stopped early has fewer than `epochs`.
            epochs: how many of them count.

        Returns:
            The best of the values that are finite.

        Raises:
            ValueError: if the metric is missing, none of its values is finite, or epochs is less than 1.
        """
        if epochs < 1:
            raise ValueError(f"a reward needs at least 1 epoch, got {epochs!r}")
        if self.metric not in metrics:
            raise ValueError(f"no metric {self.metric!r} to take a reward from: there are {sorted(metrics)}")
        values = [value for value in metrics[self.metric][:epochs] if math.isfinite(value)]
        if not values:
            raise ValueError(f"the metric {self.metric!r} has no finite value within {epochs} epochs")
        return float(max(values) if self.higher_is_better else min(values))

    def value(self, evaluation: Evaluation) -> float:
        """What the evaluation is worth to a search: higher is better, and failures have their value."""
        if evaluation.reward is None:
            return self.failure
        return evaluation.reward if self.higher_is_better else -evaluation.reward

    def values(self, evaluations: Sequence[Evaluation], reward_filter: BaselineFilter | None = None) -> list[float]:
        """What evaluations are worth to a search, in their order.

        Rewards pass through the filter, each once, and move its baseline. Failures are worth what `failure` says,
        but never more than what the filter turns down: otherwise a search would learn to fail.

        Args:
            evaluations: in the order of their proposal.
            reward_filter: the searcher's own, or None.
        """
        if reward_filter is None:
            return [self.value(evaluation) for evaluation in evaluations]
        of_failure = min(self.failure, reward_filter.turned_down_value)
        return [
            of_failure if evaluation.reward is None else reward_filter(self.value(evaluation))
            for evaluation in evaluations
        ]


def parsimonious(value: float, complexity: int, weight: float) -> float:
    """The value less the complexity's price: `weight` for each distinct node of the expression."""
    return value - weight * complexity


class BaselineFilter:
    """AutoLossGen's reward filter: rewards below a slowly moving baseline count as turned down.

    A reward below baseline - 1e-5 is worth -1 and leaves the baseline as it is. Any other reward is accepted,
    passed on unchanged, and moves the baseline towards it: baseline -= (1 - decay) * (baseline - reward)
    (arXiv 2204.13160, and its code). Each searcher has a filter of its own; nothing of it is cached.

    Args:
        start: the first baseline: the AUC of the model that the search warm-starts from. None (a search from
            scratch) makes the first reward the baseline, which is accepted.
        decay: share of the baseline that an accepted reward leaves, in [0, 1].
        turned_down_value: what a reward that is turned down is worth. The paper's -1 suits an AUC; where
            lower is better, values are negative, and it must lie below them.

    Attributes:
        baseline: the present baseline; None before the first reward of a search from scratch.
        turned_down: how many rewards were turned down.

    Raises:
        ValueError: if the start or the value is not finite, or the decay outside of [0, 1].

    Example:
        >>> reward_filter = BaselineFilter(start=0.5)
        >>> reward_filter(0.6), reward_filter(0.4), reward_filter.turned_down
        (0.6, -1.0, 1)
    """

    TOLERANCE = 1e-5
    """How far below the baseline a reward is still accepted."""

    def __init__(self, start: float | None = None, decay: float = 0.99, *, turned_down_value: float = -1.0) -> None:
        self.start = None if start is None else real_number("the baseline's start", start)
        self.decay = real_number("decay", decay, least=0.0, most=1.0)
        self.turned_down_value = real_number("turned_down_value", turned_down_value)
        self.baseline = self.start
        self.turned_down = 0

    def __call__(self, reward: float) -> float:
        """The reward, or what it is worth if it is turned down; moves the baseline.

        Args:
            reward: of a trained candidate, higher is better.

        Raises:
            ValueError: if the reward is not finite.
        """
        if not math.isfinite(reward):
            raise ValueError(f"a reward must be finite, got {reward!r}")
        if self.baseline is None:
            self.baseline = reward
        if reward < self.baseline - self.TOLERANCE:
            self.turned_down += 1
            return self.turned_down_value
        self.baseline -= (1.0 - self.decay) * (self.baseline - reward)
        return reward

    def restart(self, start: float) -> None:
        """Begins a new round, whose baseline starts at this value; the count goes on.

        Raises:
            ValueError: if the start is not finite.
        """
        self.baseline = real_number("the baseline's start", start)

    def describe(self) -> dict[str, JSON]:
        """The arguments that it was made with."""
        return {"start": self.start, "decay": self.decay, "turned_down_value": self.turned_down_value}

    def state_dict(self) -> dict[str, JSON]:
        """The baseline and the count, as JSON."""
        return {"baseline": self.baseline, "turned_down": self.turned_down}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state that `state_dict` returned."""
        self.baseline = None if state["baseline"] is None else float(state["baseline"])
        self.turned_down = int(state["turned_down"])
