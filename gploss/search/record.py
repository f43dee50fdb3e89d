"""The growing record of one run, and the short summary of it that callbacks and displays are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gploss.search.budget import Budget, Spending
from gploss.search.evaluation import Evaluation, Status

_COUNT_OF_STATUS = {
    Status.TRAINED: "trained",
    Status.DIVERGED: "diverged",
    Status.REJECTED: "rejected",
    Status.DUPLICATE: "duplicates",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        best: the best trained evaluation so far; None before there is one.
        counts: how many evaluations of each kind, as in `gploss.search.result.SearchResult.counts`.
        spending: what was spent.
        budget: what may be spent.
    """

    best: Evaluation | None
    counts: dict[str, int]
    spending: Spending
    budget: Budget

    @property
    def share(self) -> float:
        """How much of the budget is spent, from 0 to 1."""
        return min(1.0, self.budget.spent(self.spending) / self.budget.amount)


class RunRecord:
    """All evaluations of a run in the order of their proposal, with running totals.

    Args:
        higher_is_better: direction of the reward.

    Attributes:
        evaluations: every evaluation so far.
        elapsed: for each, the seconds into the run at which it was known.
        seen: the first charged evaluation with each fingerprint.
        spending: what these evaluations cost.
        best: the best trained evaluation: highest (or lowest) reward, then least complexity, then the earliest.
    """

    def __init__(self, higher_is_better: bool) -> None:
        self.evaluations: list[Evaluation] = []
        self.elapsed: list[float] = []
        self.seen: dict[str, Evaluation] = {}
        self.spending = Spending()
        self.best: Evaluation | None = None
        self._higher_is_better = higher_is_better
        self._counts = dict.fromkeys(("trained", "cached", "diverged", "duplicates", "rejected"), 0)

    def add(self, evaluations: Sequence[Evaluation], elapsed: float) -> None:
        """Append evaluations that were known after so many seconds of the run."""
        for evaluation in evaluations:
            self.evaluations.append(evaluation)
            self.elapsed.append(elapsed)
            self._count(evaluation)
            if evaluation.charged:
                self._charge(evaluation)
            if evaluation.status is Status.TRAINED:
                self.best = better(self.best, evaluation, self._higher_is_better)
        self.spending.elapsed = max(self.spending.elapsed, elapsed)

    @property
    def counts(self) -> dict[str, int]:
        """The totals so far; rejections once in all and once by reason, as ``"rejected: <reason>"``."""
        return {"proposals": self.spending.proposals, **self._counts}

    def progress(self, budget: Budget) -> Progress:
        """Return a summary that does not change when the record grows."""
        return Progress(self.best, self.counts, replace(self.spending), budget)

    def _count(self, evaluation: Evaluation) -> None:
        self._counts[_COUNT_OF_STATUS[evaluation.status]] += 1
        if evaluation.status is Status.REJECTED:
            name = f"rejected: {evaluation.reason}"
            self._counts[name] = self._counts.get(name, 0) + 1
        if evaluation.charged and evaluation.cached:
            self._counts["cached"] += 1
        self.spending.proposals += 1

    def _charge(self, evaluation: Evaluation) -> None:
        self.spending.candidates += 1
        self.spending.candidate_epochs += evaluation.candidate_epochs
        self.spending.candidate_seconds += evaluation.seconds
        if evaluation.fingerprint is not None:
            self.seen.setdefault(evaluation.fingerprint, evaluation)


def better(first: Evaluation | None, second: Evaluation, higher_is_better: bool) -> Evaluation:
    """Return the one with the better reward; of equals the less complex one; of those the first.

    Args:
        first: a trained evaluation, or None for nothing yet.
        second: a trained evaluation.
        higher_is_better: direction of the reward.
    """
    if first is None:
        return second
    return second if _order(second, higher_is_better) < _order(first, higher_is_better) else first


def best_distinct(evaluations: Sequence[Evaluation], higher_is_better: bool) -> list[Evaluation]:
    """Return the best trained evaluation of each loss, the best loss first.

    The fingerprint says which are the same loss. Of equal rewards the less complex comes first, then the earlier.

    Args:
        evaluations: in the order of their proposal.
        higher_is_better: direction of the reward.
    """
    trained = [evaluation for evaluation in evaluations if evaluation.status is Status.TRAINED]
    best: dict[str, Evaluation] = {}
    for evaluation in sorted(trained, key=lambda evaluation: _order(evaluation, higher_is_better)):
        best.setdefault(evaluation.fingerprint or str(evaluation.loss), evaluation)
    return list(best.values())


def pareto_front(evaluations: Sequence[Evaluation], higher_is_better: bool) -> list[Evaluation]:
    """Return the trained evaluations that no other one beats in reward and in complexity.

    Of several with the same reward and complexity the first is kept.

    Returns:
        The front by rising complexity, and so by ever better reward.
    """
    trained = [evaluation for evaluation in evaluations if evaluation.status is Status.TRAINED]
    trained.sort(key=lambda evaluation: (evaluation.loss.complexity, _order(evaluation, higher_is_better)))
    front: list[Evaluation] = []
    for evaluation in trained:
        if not front or _loss(evaluation, higher_is_better) < _loss(front[-1], higher_is_better):
            front.append(evaluation)
    return front


def _order(evaluation: Evaluation, higher_is_better: bool) -> tuple[float, int]:
    return _loss(evaluation, higher_is_better), evaluation.loss.complexity


def _loss(evaluation: Evaluation, higher_is_better: bool) -> float:
    """The reward with the sign that makes less the better."""
    assert evaluation.reward is not None
    return -evaluation.reward if higher_is_better else evaluation.reward
