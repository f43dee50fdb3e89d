"""Trainings that go on where they were: looked up before they are done, and continued rather than begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gploss.compute.kinds import Loss
from gploss.screening.screening import Screening, screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import EvaluationKey
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.training.course import Course, Rules
from recmodels.training.problem import Problem
from recmodels.training.trainer import Member, Outcome, State, Trainer, TrainReport

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A training of one model.

    Attributes:
        loss: its loss, as it stands: constants are numbers.
        seed: of initial weights and batches.
        settings: values by name, sorted.
    """

    loss: Loss
    seed: int
    settings: tuple[tuple[str, float], ...]


class Runs:
    """Trainings on one problem, each known to the last epoch that was asked for.

    What a training gives does not depend on whether it was interrupted: a curve that was continued is, bit for bit,
    that of one long training, and is stored in the cache as such. Weights are held in memory alone, and only of the
    runs that were asked for last.

    Args:
        trainer: trains.
        problem: what is trained and validated on.
        cache: evaluations of this and earlier sessions, or None.
    """

    def __init__(self, trainer: Trainer, problem: Problem, cache: Cache | None) -> None:
        self.trainer = trainer
        self.problem = problem
        self.cache = cache
        self._evaluator = LossEvaluator(problem, trainer)
        self._entries: dict[Run, CacheEntry] = {}
        self._states: dict[Run, State] = {}

    def best(self, runs: Sequence[Run], epochs: int) -> Floats:
        """Train some runs until so many epochs, where that is not known yet.

        Returns:
            (N,) the best validation value of each within these epochs, higher is better; minus infinity for one
            that diverged, or whose loss cannot train anything.
        """
        screening = self._screen(runs)
        rows = {loss: row for row, loss in enumerate(dict.fromkeys(run.loss for run in runs))}
        sound = [run for run in dict.fromkeys(runs) if screening.reasons[rows[run.loss]] is None]
        for run in sound:
            self._look_up(run, screening, rows[run.loss], epochs)
        waiting = [run for run in sound if run not in self._entries or not self._entries[run].serves(epochs)]
        self._states = {run: self._states[run] for run in sound if run in self._states}
        for before in sorted({self._behind(run) for run in waiting}):
            same = [run for run in waiting if self._behind(run) == before]
            self._train(same, [rows[run.loss] for run in same], screening, before, epochs)
        return np.array([self._value(run, epochs) for run in runs])

    def _screen(self, runs: Sequence[Run]) -> Screening:
        losses = list(dict.fromkeys(run.loss for run in runs))
        return screen(losses, self.problem.task, scale_free=self.trainer.protocol.scale_free)

    def _behind(self, run: Run) -> int:
        """Return after how many epochs a run can be continued."""
        return self._entries[run].epochs if run in self._states else 0

    def _value(self, run: Run, epochs: int) -> float:
        entry = self._entries.get(run)
        if entry is None:
            return -np.inf
        entry = entry.truncated(epochs)
        if entry.status != Outcome.TRAINED:
            return -np.inf
        values = np.array(entry.metrics[self.problem.metric])
        return float(values.max() if self.problem.higher_is_better else -values.min())

    def _look_up(self, run: Run, screening: Screening, row: int, epochs: int) -> None:
        known = run in self._entries and self._entries[run].serves(epochs)
        if self.cache is not None and not known:
            entry = self.cache.lookup(self._key(run), screening.losses.texts[row], epochs)
            if entry is not None:
                self._entries[run] = entry
                self._states.pop(run, None)  # of fewer epochs than the entry

    def _key(self, run: Run) -> EvaluationKey:
        """Return the key of a search's evaluations: what a search has trained is not trained again."""
        return self._evaluator.with_settings(run.seed, dict(run.settings)).key

    def _train(
        self, runs: Sequence[Run], rows: Sequence[int], screening: Screening, before: int, epochs: int
    ) -> None:
        members = [Member(row, run.seed, dict(run.settings)) for run, row in zip(runs, rows, strict=True)]
        start = State.join([self._states[run] for run in runs]) if before else None
        report = self.trainer.fit(
            screening.losses, members, self.problem, epochs - before, start=start, keep="last"
        )
        assert report.states is not None
        for position, (run, row) in enumerate(zip(runs, rows, strict=True)):
            entry = CacheEntry(
                program=screening.losses.texts[row],
                fingerprint=screening.fingerprints[row],
                scale=float(screening.scales[row]) if self.trainer.protocol.scale_free else None,
                **self._joined(run, report, position, before, epochs),
            )
            self._entries[run] = entry
            self._states.pop(run, None)
            if not entry.complete:
                self._states[run] = report.states.take([position])
            if self.cache is not None:
                self.cache.store(self._key(run), [entry])

    def _joined(self, run: Run, report: TrainReport, position: int, before: int, epochs: int) -> dict[str, Any]:
        """Return what happened to a run from its first epoch on, as fields of an entry.

        Patience counts from the best epoch of all; the trainer counts from where it went on, and ends no earlier.
        """
        stopped = int(report.stopped_at[position])
        diverged = report.outcomes[position] is Outcome.DIVERGED
        metrics = {
            name: (self._entries[run].metrics[name] if before else []) + column[position, :stopped].tolist()
            for name, column in report.metrics.items()
        }
        course = Course(Rules(self.problem.metrics, epochs, self.trainer.protocol.patience, "none"))
        for epoch in range(before + stopped - diverged):
            course.measured(epoch, {name: values[epoch] for name, values in metrics.items()})
            if course.ended:
                diverged = False  # if at all, then after its end
                break
        reason = report.reasons[position]
        return {
            "status": "diverged" if diverged else "trained",
            # the trainer counts epochs from where it went on
            "reason": f"{reason.rpartition(' ')[0]} {before + stopped}" if diverged and reason else None,
            "epochs": epochs,
            "complete": diverged or course.epochs < epochs,
            "metrics": {name: values[: course.epochs] for name, values in metrics.items()},
            "seconds": float(report.seconds[position]) + (self._entries[run].seconds if before else 0.0),
        }
