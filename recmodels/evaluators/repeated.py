"""Losses evaluated several times over: other validation parts, other training seeds, one mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gploss.arguments import each
from gploss.compute.kinds import Loss
from gploss.files.plain import JSON
from gploss.search.evaluation import Evaluation, Status
from recmodels.evaluators.evaluator import LossEvaluator


class RepeatedEvaluator:
    """Evaluates each loss with several evaluators, and rewards it by the mean of its metrics.

    The reward of one training run says as much about the luck of its validation part and seed as about the loss.
    Where one of the runs diverges, the loss has diverged.

    Args:
        evaluators: alike but for their splits and seeds. The first one screens, and knows duplicates.

    Raises:
        TypeError: they are no list of evaluators.
        ValueError: there is none, or they differ in task, metric or epochs.
    """

    def __init__(self, evaluators: Sequence[LossEvaluator]) -> None:
        if not each("evaluators", evaluators, LossEvaluator, "a LossEvaluator"):
            raise ValueError("there is no evaluator to repeat")
        if len({(one.problem.task.name, one.metric, one.epochs) for one in evaluators}) > 1:
            raise ValueError("evaluators of different tasks, metrics or epochs have no mean")
        self.evaluators = list(evaluators)
        self.epochs = evaluators[0].epochs
        self.metric = evaluators[0].metric
        self.higher_is_better = evaluators[0].higher_is_better

    def describe(self) -> dict[str, JSON]:
        """Return what decides the evaluations, for results and checkpoints."""
        task = self.evaluators[0].problem.task.name
        return {"task": task, "repeated": [one.describe() for one in self.evaluators]}

    def evaluate(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluate a prefix of the losses; see `gploss.search.evaluation.Evaluator`."""
        first = self.evaluators[0].evaluate(losses, seen, limit)
        sound = [one.loss for one in first if one.status is Status.TRAINED]
        columns = [iter(other.evaluate(sound, {}, len(sound))) for other in self.evaluators[1:]]
        met: dict[str, Evaluation] = {}
        evaluations = []
        for one in first:
            if one.status is Status.TRAINED:
                one = self._mean([one, *(next(column) for column in columns)])
            elif one.status is Status.DUPLICATE and one.fingerprint is not None:
                original = seen[one.fingerprint] if one.fingerprint in seen else met[one.fingerprint]
                one = replace(one, reward=original.reward, metrics=original.metrics)
            if one.charged and one.fingerprint is not None:
                met.setdefault(one.fingerprint, one)
            evaluations.append(one)
        return evaluations

    def _mean(self, runs: Sequence[Evaluation]) -> Evaluation:
        """Return one evaluation for all runs of a loss; a curve ends where the shortest of its runs does."""
        seconds = sum(run.seconds for run in runs)
        epochs = sum(run.candidate_epochs for run in runs)
        cached = all(run.cached for run in runs)
        diverged = next((run for run in runs if run.status is Status.DIVERGED), None)
        if diverged is not None:
            return replace(diverged, seconds=seconds, candidate_epochs=epochs, cached=cached)
        metrics: dict[str, list[float]] = {}
        for name in runs[0].metrics:
            length = min(len(run.metrics[name]) for run in runs)
            metrics[name] = np.mean([run.metrics[name][:length] for run in runs], axis=0).tolist()
        return replace(
            runs[0],
            reward=self.evaluators[0].reward.of(metrics, self.epochs),
            metrics=metrics,
            seconds=seconds,
            candidate_epochs=epochs,
            cached=cached,
        )
