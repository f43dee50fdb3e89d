"""What tuned losses are worth on the test part: fresh models, at their best epoch on validation, resampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.files.plain import JSON
from gploss.screening.screening import Screening, screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import EvaluationKey
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.metrics.resampling import Counts
from recmodels.training.problem import Problem
from recmodels.training.trainer import Member, Trainer
from recmodels.verdict.bootstrap import Floats, draw_units, parts
from recmodels.verdict.tuning import Say, Tuned

#: Models whose weights and scores are held in memory at a time.
_AT_A_TIME: Final = 64

_VALUE, _RESAMPLED = "value", "resampled"


@dataclass(frozen=True)
class Marks:
    """What came out for K losses and S seeds.

    Attributes:
        plain: (K, S) the metric on the test part.
        resampled: (K, S, R) the metric in each resample of its units; NaN where it is not defined there.
        diverged: (K, S) bool: the model diverged before it had a value, and counts as one that gives every row the
            same score.
    """

    plain: Floats
    resampled: Floats
    diverged: npt.NDArray[np.bool_]


class Examination:
    """A test part, and how models are measured on it.

    Args:
        trainer: trains everybody alike.
        problem: data and metrics.
        metric: name of one of the problem's metrics.
        epochs: of each training, at most.
        resamples: of the bootstrap.
        seed: of the resamples.
        cache: keeps each model's values, so that a run that was cut off goes on where it was; or None.

    Attributes:
        units: (N,) number of the unit, user or row, that each row of the test part is drawn with.
        n_units: how many units there are.
        by_row: whether rows are drawn, for want of users.
    """

    def __init__(
        self,
        trainer: Trainer,
        problem: Problem,
        metric: str,
        *,
        epochs: int,
        resamples: int,
        seed: int,
        cache: Cache | None,
    ) -> None:
        self.trainer = trainer
        self.problem = problem
        self.metric = metric
        self.epochs = epochs
        self.resamples = resamples
        self.seed = seed
        self.cache = cache
        self._evaluator = LossEvaluator(problem, trainer)
        self._rows = problem.rows("test")
        groups = problem.groups("test")
        self.by_row = groups is None
        self.units = np.arange(len(self._rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
        self.n_units = int(self.units.max()) + 1

    def run(self, chosen: Sequence[Tuned], seeds: Sequence[int], say: Say) -> Marks:
        """Train each loss from each seed, and measure the models on the test part.

        Args:
            chosen: K losses with their settings.
            seeds: S training seeds, which no choice has seen.
            say: told where the metric can only be computed slowly.
        """
        if self.problem.resampler("test", self.metric) is None:
            say(
                f"{self.metric} does not say how it is resampled (Problem.resampler): it is computed on the rows "
                f"of each of {self.resamples} resamples, which takes long"
            )
        losses = [one.loss for one in chosen]
        screening = screen(losses, self.problem.task, scale_free=self.trainer.protocol.scale_free)
        pairs = [(row, seed) for seed in seeds for row in range(len(chosen))]  # one seed's models share batches
        known: dict[tuple[int, int], CacheEntry] = {}
        for row, seed in pairs:
            entry = self._look_up(chosen[row], seed, screening.losses.texts[row])
            if entry is not None:
                known[row, seed] = entry
        waiting = [pair for pair in pairs if pair not in known]
        for first in range(0, len(waiting), _AT_A_TIME):
            some = waiting[first : first + _AT_A_TIME]
            members = [Member(row, seed, chosen[row].settings) for row, seed in some]
            for (row, seed), entry in zip(some, self._measure(screening, members), strict=True):
                known[row, seed] = entry
                if self.cache is not None:
                    self.cache.store(self._key(chosen[row], seed), [entry])
        table = [[known[row, seed] for seed in seeds] for row in range(len(chosen))]
        return Marks(
            np.array([[entry.metrics[_VALUE][0] for entry in own] for own in table]),
            np.array([[entry.metrics[_RESAMPLED] for entry in own] for own in table]),
            np.array([[entry.status == "diverged" for entry in own] for own in table]),
        )

    def _key(self, one: Tuned, seed: int) -> EvaluationKey:
        """Return what the values depend on: all that training does, for how long, the test part and the draws."""
        fields = self._evaluator.with_settings(seed, one.settings).key.fields
        own: dict[str, JSON] = {
            "metric": self.metric,
            "epochs": self.epochs,
            "test": self._rows.content_hash,
            "units": blake2b(self.units.astype("<i8").tobytes(), digest_size=16).hexdigest(),
            "resamples": self.resamples,
            "seed": self.seed,
        }
        return EvaluationKey({**fields, "examination": own})

    def _look_up(self, one: Tuned, seed: int, text: str) -> CacheEntry | None:
        return None if self.cache is None else self.cache.lookup(self._key(one, seed), text, self.resamples)

    def _measure(self, screening: Screening, members: Sequence[Member]) -> Iterator[CacheEntry]:
        """Train some models, and yield what each is worth as an entry with R values instead of one an epoch."""
        report = self.trainer.fit(screening.losses, members, self.problem, self.epochs, keep="best")
        assert report.states is not None
        scores = self.trainer.predict(report.states, self._rows)
        lost = np.array([not np.isfinite(own).all() for own in scores])
        scores[lost] = 0.0
        plain = self.problem.judge("test")(torch.from_numpy(scores))[self.metric].tolist()
        resampled = self._resample(torch.from_numpy(scores))
        for position, member in enumerate(members):
            yield CacheEntry(
                program=screening.losses.texts[member.loss],
                fingerprint=screening.fingerprints[member.loss],
                status="diverged" if lost[position] else "trained",
                reason=report.reasons[position] if lost[position] else None,
                epochs=self.resamples,
                complete=True,
                metrics={_VALUE: [plain[position]], _RESAMPLED: resampled[position].tolist()},
                seconds=float(report.seconds[position]),
            )

    def _resample(self, scores: torch.Tensor) -> Floats:
        """Return (M, R) values of the metric in the resamples."""
        in_one_pass = self.problem.resampler("test", self.metric)
        columns = []
        for resamples in parts(self.n_units, self.resamples):
            counts = draw_units(self.n_units, resamples, self.seed)
            columns.append(in_one_pass(scores, counts) if in_one_pass else self._by_copies(scores, counts))
        return np.concatenate(columns, axis=1)

    def _by_copies(self, scores: torch.Tensor, counts: Counts) -> Floats:
        """Judge the rows of each resample, copied as often as their unit was drawn, each copy as another unit."""
        values = np.full((len(scores), counts.shape[1]), np.nan)
        for resample, drawn in enumerate(counts.T):
            times = drawn[self.units].astype(np.int64)
            rows = np.repeat(np.arange(len(times)), times)
            copy = np.arange(len(rows)) - np.repeat(times.cumsum() - times, times)
            groups = None if self.by_row else self.units[rows] * len(rows) + copy
            try:
                judged = self.problem.judge_of(self._rows.take(rows), groups)(scores[:, rows])
            except ValueError:  # not defined on what was drawn
                continue
            values[:, resample] = judged[self.metric].numpy()
        return values
