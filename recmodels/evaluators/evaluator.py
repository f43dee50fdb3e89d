"""From a loss to its evaluation: screen, recognise duplicates, look up, train, store."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from gploss.arguments import choice, each, instance, seed_number, truth, whole_number
from gploss.compute.kinds import Loss
from gploss.environment import numbers_depend_on
from gploss.files.described import describe, key_of, own_code
from gploss.files.plain import JSON
from gploss.screening.probes import PROBE_VERSION
from gploss.screening.screening import Reason, Screening
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from gploss.search.reward import Reward
from gploss.setting import complete
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import load_dataset
from recmodels.evaluators.sifting import Sieve
from recmodels.models.base import ModelFactory
from recmodels.training.choice import choose_trainer
from recmodels.training.problem import Problem
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.trainer import Member, Outcome, State, Trainer

#: Part of every cache key: raised whenever the same inputs train to other numbers, or keys are made otherwise.
FORMAT_VERSION: Final = 3

Reuse = Literal["exact", "fingerprint"]


class LossEvaluator:
    """Evaluates losses by training a recommender with each of them.

    It never touches the test part of the problem.

    Args:
        problem: what losses are given, and data; the reward is measured on its validation part.
        trainer: trains populations; its protocol decides whether losses are made scale-free.
        epochs: epochs a candidate is trained for.
        seed: training seed, the same for every candidate: initial weights, batches, dropout.
        settings: of every candidate, by name, such as "learning_rate"; the others have their defaults.
        cache: evaluated losses of this and earlier runs, or None.
        reuse: "exact" serves from the cache only what the very same program gave, so that a run with a cache
            equals one without; "fingerprint" also what another program of the same function gave.
        check_direction: reject losses that fail the task's check of the direction; in the pointwise task,
            AutoLossGen's validity check.
        start: weights and optimiser state of one model that every candidate starts from; without it, fresh
            weights from the seed.
        allow: reasons for which a loss is trained all the same, to measure what the filter is worth.
        recognise_duplicates: whether a loss whose fingerprint was met before is not trained again.

    Raises:
        TypeError: an argument is of another kind, such as a path for a cache.
        ValueError: epochs below 1, a start of several models, a setting that is unknown or makes no sense, or
            losses that are not finite to be allowed.
    """

    def __init__(
        self,
        problem: Problem,
        trainer: Trainer,
        *,
        epochs: int = 5,
        seed: int = 0,
        settings: Mapping[str, float] | None = None,
        cache: Cache | None = None,
        reuse: Reuse = "exact",
        check_direction: bool = False,
        start: State | None = None,
        allow: Collection[Reason] = (),
        recognise_duplicates: bool = True,
    ) -> None:
        if start is not None and len(instance("start", start, State, "a State, or None")) != 1:
            raise ValueError(f"candidates start from one model, not from {len(start)}")
        if cache is not None:
            instance("cache", cache, Cache, 'a Cache, such as Cache("losses.sqlite"), or None')
        self.problem = instance("problem", problem, Problem, "a Problem, such as PointwiseProblem(split)")
        self.trainer = instance("trainer", trainer, Trainer, "a Trainer, such as choose_trainer(MF, STANDARD)")
        self.epochs = whole_number("epochs", epochs, least=1)
        self.seed = seed_number("seed", seed)
        self.settings = complete(settings or {}, trainer.settings(problem))
        self.cache = cache
        self.reuse = choice("reuse", reuse, get_args(Reuse))
        self.start = start
        self.sieve = Sieve(
            problem.task,
            trainer.protocol.scale_free,
            truth("check_direction", check_direction),
            frozenset(each("allow", list(allow), Reason, "a Reason, such as Reason.ZERO_GRADIENT")),
            truth("recognise_duplicates", recognise_duplicates),
        )
        self.metric = problem.metric
        self.higher_is_better = problem.higher_is_better
        self.reward = Reward(self.metric, self.higher_is_better)
        self._code = self._code_now()
        self.key = EvaluationKey(self._key_fields())

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        model: ModelFactory,
        *,
        protocol: Protocol = STANDARD,
        device: str = "auto",
        metrics: Sequence[str] | None = None,
        epochs: int = 5,
        seed: int = 0,
        cache: Cache | None = None,
        check_direction: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> LossEvaluator:
        """Make an evaluator from a table and a model: `load_dataset`, `choose_trainer` and this class in one.

        Args:
            frame: a row an interaction, with columns of users, items, and what makes some of them positive.
            model: makes a module for a number of users and items; a module class will do.
            protocol: how to train.
            device: "auto", "cpu", "cuda" or "cuda:N".
            metrics: names of validation metrics; the reward is taken from the first one. By default the task's own.
            epochs: epochs a candidate is trained for.
            seed: training seed.
            cache: evaluated losses of this and earlier runs, or None.
            check_direction: reject losses that fail AutoLossGen's validity check.
            data: options of `load_dataset`, such as ``{"user": "customer", "split": "at_random"}``.

        Raises:
            DataError: the table cannot be used; the message names row and column.
        """
        if data is not None:
            instance("data", data, Mapping, "a dictionary of options of load_dataset")
        problem = PointwiseProblem(load_dataset(frame, **(data or {})), metrics)
        trainer = choose_trainer(model, protocol, device=device)
        return cls(problem, trainer, epochs=epochs, seed=seed, cache=cache, check_direction=check_direction)

    def starting_from(self, start: State) -> LossEvaluator:
        """Return an evaluator that is the same but for the model that candidates start from."""
        other = copy.copy(self)
        other.start = start
        other.key = EvaluationKey({**self.key.fields, "start": start.content_hash})
        return other

    def with_settings(self, seed: int, settings: Mapping[str, float]) -> LossEvaluator:
        """Return an evaluator that is the same but for the training seed and the settings."""
        other = copy.copy(self)
        other.seed = seed_number("seed", seed)
        other.settings = complete(settings, self.trainer.settings(self.problem))
        other.key = EvaluationKey({**self.key.fields, "seed": other.seed, "settings": other.settings})
        return other

    def _key_fields(self) -> dict[str, JSON]:
        """All that a candidate's raw metrics depend on, the loss and the number of epochs aside."""
        return {
            "format": FORMAT_VERSION,
            "environment": dict(numbers_depend_on()),
            "seed": self.seed,
            "settings": self.settings,
            "start": None if self.start is None else self.start.content_hash,
            "problem": self.problem.describe(),
            "trainer_source": own_code(type(self.trainer), f"the trainer {type(self.trainer).__qualname__}"),
            **self.trainer.describe(self.problem.schema),
        }

    def _code_now(self) -> str:
        own = (getattr(self.trainer, "model", None), type(self.trainer), type(self.problem))
        return describe(own, "the model").hash

    def _look_again(self) -> None:
        """Where code was edited since, as in a notebook, have the trainer look at the model anew."""
        code = self._code_now()
        if code != self._code:
            self._code = code
            self.trainer.forget()
            self.key = EvaluationKey(self._key_fields())

    def describe(self) -> dict[str, JSON]:
        """Return what decides the evaluations, for results and checkpoints, as code and versions are now."""
        self._look_again()
        self.key = EvaluationKey(self._key_fields())
        return {
            "data": self.problem.name,
            "task": self.problem.task.name,
            "epochs": self.epochs,
            "check_direction": self.sieve.check_direction,
            "direction": key_of(self.problem.task.direction, "the check of the direction")
            if self.sieve.check_direction
            else None,
            "allow": sorted(self.sieve.allow),
            "recognise_duplicates": self.sieve.recognise_duplicates,
            "reuse": self.reuse,
            "probes": PROBE_VERSION,
            **self.key.fields,
        }

    def evaluate(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluate a prefix of the losses; see `gploss.search.evaluator.Evaluator`."""
        self._look_again()
        sifted = self.sieve.sift(losses, seen, limit)
        screening = sifted.screening
        stored = {k: entry for k in sifted.new if (entry := self._look_up(screening, k)) is not None}
        trained = self._train(screening, [k for k in sifted.new if k not in stored])
        if self.cache is not None and trained:
            self.cache.store(self.key, list(trained.values()))
        return sifted.evaluations(
            {
                k: self._from_entry(losses[k], screening.fingerprints[k], entry, cached=k in stored)
                for k, entry in (stored | trained).items()
            }
        )

    def _look_up(self, screening: Screening, k: int) -> CacheEntry | None:
        if self.cache is None:
            return None
        entry = self.cache.lookup(self.key, screening.losses.texts[k], self.epochs)
        if entry is None and self.reuse == "fingerprint":
            entry = self.cache.lookup_fingerprint(self.key, screening.fingerprints[k], self.epochs)
        return entry

    def _train(self, screening: Screening, rows: Sequence[int]) -> dict[int, CacheEntry]:
        if not rows:
            return {}
        members = [Member(row, self.seed, self.settings) for row in rows]
        report = self.trainer.fit(screening.losses, members, self.problem, self.epochs, start=self.start)
        entries = {}
        for position, row in enumerate(rows):
            diverged = report.outcomes[position] is Outcome.DIVERGED
            stopped = int(report.stopped_at[position])
            valid = stopped - 1 if diverged else stopped
            entries[row] = CacheEntry(
                program=screening.losses.texts[row],
                fingerprint=screening.fingerprints[row],
                status="diverged" if diverged else "trained",
                reason=report.reasons[position],
                epochs=self.epochs,
                complete=diverged or stopped < self.epochs,
                metrics={name: column[position, :valid].tolist() for name, column in report.metrics.items()},
                scale=float(screening.scales[row]) if self.sieve.scale_free else None,
                seconds=float(report.seconds[position]),
            )
        return entries

    def _from_entry(self, loss: Loss, fingerprint: str, entry: CacheEntry, *, cached: bool) -> Evaluation:
        entry = entry.truncated(self.epochs)
        trained = entry.status == "trained"
        return Evaluation(
            loss,
            Status.TRAINED if trained else Status.DIVERGED,
            reason=entry.reason,
            reward=self.reward.of(entry.metrics, self.epochs) if trained else None,
            metrics=dict(entry.metrics),
            fingerprint=fingerprint,
            scale=entry.scale,
            cached=cached,
            seconds=entry.seconds,
            candidate_epochs=self.epochs,
        )


def training_seed(experiment_seed: int, replicate: int) -> int:
    """Return the seed of a replicate's training: a function of nothing else, so that all losses share its luck."""
    return int(np.random.SeedSequence([experiment_seed, replicate]).generate_state(1, np.uint32)[0])
