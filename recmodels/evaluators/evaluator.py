"""From an expression to its evaluation: screen, recognise duplicates, look up, train, store."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.screening.probes import PROBE_VERSION
from gploss.screening.screening import Reason, Screening, screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from gploss.search.reward import Reward
from recmodels.data.interactions import Split
from recmodels.datasets import load_dataset
from recmodels.metrics import METRICS
from recmodels.models.base import ModelFactory
from recmodels.training.choice import choose_trainer
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.trainer import Member, Outcome, State, Trainer

#: Part of every cache key: raised whenever the same inputs train to other numbers.
FORMAT_VERSION: Final = 1

Reuse = Literal["exact", "fingerprint"]


class LossEvaluator:
    """Evaluates losses by training a recommender with each of them.

    It never touches the test part of the split.

    Args:
        split: data; the reward is measured on its validation part.
        trainer: trains populations; its protocol decides whether losses are made scale-free.
        epochs: epochs a candidate is trained for.
        seed: training seed, the same for every candidate: initial weights, batches, dropout.
        learning_rate: of every candidate; the protocol's by default.
        weight_decay: likewise.
        cache: evaluated losses of this and earlier runs, or None.
        reuse: "exact" serves from the cache only what the very same program gave, so that a run with a cache
            equals one without; "fingerprint" also what another program of the same function gave.
        check_direction: reject losses that fail AutoLossGen's validity check.
        start: weights and optimiser state of one model that every candidate starts from; without it, fresh
            weights from the seed.
        allow: reasons for which a loss is trained all the same, to measure what the filter is worth.
        recognise_duplicates: whether a loss whose fingerprint was met before is not trained again.

    Raises:
        ValueError: epochs below 1, a start of several models, or losses that are not finite to be allowed.
    """

    def __init__(
        self,
        split: Split,
        trainer: Trainer,
        *,
        epochs: int = 5,
        seed: int = 0,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        cache: Cache | None = None,
        reuse: Reuse = "exact",
        check_direction: bool = False,
        start: State | None = None,
        allow: Collection[Reason] = (),
        recognise_duplicates: bool = True,
    ) -> None:
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}")
        if start is not None and len(start) != 1:
            raise ValueError(f"candidates start from one model, not from {len(start)}")
        if Reason.NON_FINITE in allow:
            raise ValueError("a loss that is not finite cannot be trained, so it cannot be allowed")
        self.split = split
        self.trainer = trainer
        self.epochs = epochs
        self.seed = seed
        protocol = trainer.protocol
        self.learning_rate = protocol.learning_rate if learning_rate is None else learning_rate
        self.weight_decay = protocol.weight_decay if weight_decay is None else weight_decay
        self.cache = cache
        self.reuse = reuse
        self.check_direction = check_direction
        self.start = start
        self.allow = frozenset(allow)
        self.recognise_duplicates = recognise_duplicates
        self.metric = trainer.metrics[0]
        self.higher_is_better = METRICS[self.metric].higher_is_better
        self.reward = Reward(self.metric, self.higher_is_better)
        self.key = EvaluationKey(self._key_fields())

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        model: ModelFactory,
        *,
        protocol: Protocol = STANDARD,
        device: str = "auto",
        metrics: Sequence[str] = ("auc",),
        epochs: int = 5,
        seed: int = 0,
        cache: Cache | None = None,
        check_direction: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> LossEvaluator:
        """Make an evaluator from a table and a model: `load_dataset`, `StackedTrainer` and this class in one.

        Args:
            frame: a row an interaction, with columns of users, items, and ratings or labels.
            model: makes a module for a number of users and items; a module class will do.
            protocol: how to train.
            device: "auto", "cpu", "cuda" or "cuda:N".
            metrics: names of validation metrics; the reward is taken from the first one.
            epochs: epochs a candidate is trained for.
            seed: training seed.
            cache: evaluated losses of this and earlier runs, or None.
            check_direction: reject losses that fail AutoLossGen's validity check.
            data: options of `load_dataset`, such as ``{"user": "customer", "split": "at_random"}``.

        Raises:
            DataError: the table cannot be used; the message names row and column.
        """
        split = load_dataset(frame, **(data or {}))
        trainer = choose_trainer(model, protocol, device=device, metrics=metrics)
        return cls(split, trainer, epochs=epochs, seed=seed, cache=cache, check_direction=check_direction)

    def starting_from(self, start: State) -> LossEvaluator:
        """Return an evaluator that is the same but for the model that candidates start from."""
        other = copy.copy(self)
        other.start = start
        other.key = EvaluationKey({**self.key.fields, "start": start.content_hash})
        return other

    def _key_fields(self) -> dict[str, JSON]:
        """All that a candidate's raw metrics depend on, the loss and the number of epochs aside."""
        fields: dict[str, JSON] = json.loads(
            json.dumps(
                {
                    "format": FORMAT_VERSION,
                    "train": self.split.train.content_hash,
                    "validation": self.split.validation.content_hash,
                    "metrics": self.trainer.metrics,
                    "seed": self.seed,
                    "learning_rate": self.learning_rate,
                    "weight_decay": self.weight_decay,
                    "start": None if self.start is None else self.start.content_hash,
                    **self.trainer.describe(self.split.train),
                }
            )
        )
        return fields

    def describe(self) -> dict[str, JSON]:
        """Return what decides the evaluations, for results and checkpoints."""
        return {
            "data": self.split.name,
            "epochs": self.epochs,
            "check_direction": self.check_direction,
            "allow": sorted(self.allow),
            "recognise_duplicates": self.recognise_duplicates,
            "reuse": self.reuse,
            "probes": PROBE_VERSION,
            **self.key.fields,
        }

    def evaluate(
        self, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
    ) -> list[Evaluation]:
        """Evaluate a prefix of the expressions; see `gploss.search.evaluation.Evaluator`."""
        screening = screen(
            expressions,
            scale_free=self.trainer.protocol.scale_free,
            check_direction=self.check_direction,
        )
        for k, reason in enumerate(screening.reasons):
            if reason in self.allow:
                screening.reasons[k] = None
        new = self._new_candidates(screening, seen, limit)
        end = len(expressions) if len(new) < limit else self._end_of_prefix(screening, seen, new)
        fresh = self._look_up_or_train(screening, new, expressions)
        first = dict(seen) | {screening.fingerprints[k]: evaluation for k, evaluation in fresh.items()}
        return [
            fresh[k] if k in fresh else self._without_training(expressions[k], k, screening, first)
            for k in range(end)
        ]

    def _new_candidates(self, screening: Screening, seen: Mapping[str, Evaluation], limit: int) -> list[int]:
        """Positions of the first `limit` candidates that pass screening and are no duplicates."""
        if not self.recognise_duplicates:
            return [k for k, reason in enumerate(screening.reasons) if reason is None][:limit]
        new: dict[str, int] = {}
        for k, (reason, fingerprint) in enumerate(zip(screening.reasons, screening.fingerprints, strict=True)):
            if len(new) == limit:
                break
            if reason is None and fingerprint not in seen:
                new.setdefault(fingerprint, k)
        return list(new.values())

    def _end_of_prefix(self, screening: Screening, seen: Mapping[str, Evaluation], new: Sequence[int]) -> int:
        """Position of the candidate that would be one too many."""
        known = set(seen) | {screening.fingerprints[k] for k in new}
        for k, (reason, fingerprint) in enumerate(zip(screening.reasons, screening.fingerprints, strict=True)):
            is_known = fingerprint in known if self.recognise_duplicates else k in new
            if reason is None and not is_known:
                return k
        return len(screening.reasons)

    def _without_training(
        self, expression: Expression, k: int, screening: Screening, first: Mapping[str, Evaluation]
    ) -> Evaluation:
        if screening.reasons[k] is not None:
            return Evaluation(expression, Status.REJECTED, reason=screening.texts[k])
        fingerprint = screening.fingerprints[k]
        original = first[fingerprint]
        return Evaluation(
            expression,
            Status.DUPLICATE,
            reward=original.reward,
            metrics=original.metrics,
            fingerprint=fingerprint,
            scale=self._scale(screening, k),
            duplicate_of=str(original.expression),
        )

    def _scale(self, screening: Screening, k: int) -> float | None:
        return float(screening.scales[k]) if self.trainer.protocol.scale_free else None

    def _look_up_or_train(
        self, screening: Screening, new: Sequence[int], expressions: Sequence[Expression]
    ) -> dict[int, Evaluation]:
        entries: dict[int, CacheEntry] = {}
        for k in new:
            entry = self._look_up(screening, k)
            if entry is not None:
                entries[k] = entry
        missing = [k for k in new if k not in entries]
        trained = self._train(screening, missing)
        if self.cache is not None and trained:
            self.cache.store(self.key, list(trained.values()))
        return {
            k: self._from_entry(expressions[k], screening.fingerprints[k], entry, cached=k in entries)
            for k, entry in (entries | trained).items()
        }

    def _look_up(self, screening: Screening, k: int) -> CacheEntry | None:
        if self.cache is None:
            return None
        entry = self.cache.lookup(self.key, screening.program.texts[k], self.epochs)
        if entry is None and self.reuse == "fingerprint":
            entry = self.cache.lookup_fingerprint(self.key, screening.fingerprints[k], self.epochs)
        return entry

    def _train(self, screening: Screening, rows: Sequence[int]) -> dict[int, CacheEntry]:
        if not rows:
            return {}
        members = [Member(row, self.seed, self.learning_rate, self.weight_decay) for row in rows]
        report = self.trainer.fit(
            screening.program, members, self.split.train, self.split.validation, self.epochs, start=self.start
        )
        entries = {}
        for position, row in enumerate(rows):
            diverged = report.outcomes[position] is Outcome.DIVERGED
            stopped = int(report.stopped_at[position])
            valid = stopped - 1 if diverged else stopped
            entries[row] = CacheEntry(
                program=screening.program.texts[row],
                fingerprint=screening.fingerprints[row],
                status="diverged" if diverged else "trained",
                reason=report.reasons[position],
                epochs=self.epochs,
                complete=diverged or stopped < self.epochs,
                metrics={name: column[position, :valid].tolist() for name, column in report.metrics.items()},
                scale=self._scale(screening, row),
                seconds=float(report.seconds[position]),
            )
        return entries

    def _from_entry(
        self, expression: Expression, fingerprint: str, entry: CacheEntry, *, cached: bool
    ) -> Evaluation:
        entry = entry.truncated(self.epochs)
        trained = entry.status == "trained"
        return Evaluation(
            expression,
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
