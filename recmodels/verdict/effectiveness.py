"""How good a loss is in the end: models trained from scratch with it, judged on test at their best epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import instance, seed_number, shown
from gploss.compute.kinds import Loss
from gploss.files.plain import JSON
from gploss.screening.screening import Screening, screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import EvaluationKey
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.training.problem import Problem
from recmodels.training.trainer import Member, Trainer, TrainReport

#: Models whose weights are held in memory at a time.
_AT_A_TIME: Final = 64

_VALIDATION, _BEST_EPOCH, _EPOCHS = "validation", "best_epoch", "epochs"


@dataclass(frozen=True)
class Effect:
    """A loss, trained from scratch with S seeds.

    Attributes:
        loss: the loss.
        validation: (S,) best validation value of each seed, by the metric that steers; NaN where the model diverged
            before it had one.
        best_epoch: (S,) where that was, from 1; 0 where there is none.
        epochs: (S,) epochs trained.
        test: (S,) values on test at that epoch, by metric of the problem.
    """

    loss: Loss
    validation: npt.NDArray[np.float64]
    best_epoch: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    test: dict[str, npt.NDArray[np.float64]]


def effectiveness(
    losses: Sequence[Loss],
    trainer: Trainer,
    problem: Problem,
    *,
    epochs: int,
    seeds: Sequence[int],
    cache: Cache | None = None,
) -> list[Effect]:
    """Train every loss from scratch with every seed, at the protocol's own rate and decay, and look at test.

    Args:
        losses: K losses; those that screening would reject are trained all the same.
        trainer: its protocol ends training early.
        problem: data; all of its metrics are measured on test.
        epochs: at most so many.
        seeds: S training seeds.
        cache: keeps each model's figures, so that a run that was cut off goes on where it was; or None.

    Returns:
        K effects, in the order of the losses.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a number is out of range.
    """
    instance("problem", problem, Problem, "a Problem, such as PointwiseProblem(split)")
    instance("trainer", trainer, Trainer, "a Trainer")
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be a list of seeds, got {shown(seeds)}")
    seeds = [seed_number("each of seeds", seed) for seed in seeds]
    if cache is not None:
        instance("cache", cache, Cache, 'a Cache, such as Cache("losses.sqlite"), or None')
    screening = screen(losses, problem.task, scale_free=trainer.protocol.scale_free)
    texts = screening.losses.texts
    keys = {seed: _key(trainer, problem, seed, epochs) for seed in seeds}
    known: dict[tuple[int, int], dict[str, float]] = {}
    waiting = []
    for seed, key in keys.items():  # models with one seed share their batches
        for row, text in enumerate(texts):
            entry = None if cache is None else cache.lookup(key, text, epochs)
            if entry is None:
                waiting.append((row, seed))
            else:
                known[row, seed] = {name: value for name, (value,) in entry.metrics.items()}
    for first in range(0, len(waiting), _AT_A_TIME):
        part = waiting[first : first + _AT_A_TIME]
        values, seconds = _train(screening, part, trainer, problem, epochs)
        known.update(zip(part, values, strict=True))
        if cache is not None:
            for (row, seed), own, time in zip(part, values, seconds, strict=True):
                cache.store(keys[seed], [_entry(screening, row, own, epochs, time)])
    return [_effect(losses[row], [known[row, seed] for seed in seeds], problem) for row in range(len(losses))]


def _train(
    screening: Screening, pairs: Sequence[tuple[int, int]], trainer: Trainer, problem: Problem, epochs: int
) -> tuple[list[dict[str, float]], list[float]]:
    """Train some (loss, seed) pairs; return each one's figures and seconds."""
    members = [Member(row, seed) for row, seed in pairs]
    report = trainer.fit(screening.losses, members, problem, epochs, keep="best")
    assert report.states is not None
    scores = torch.from_numpy(trainer.predict(report.states, problem.rows("test")))
    on_test = problem.judge("test")(scores)
    best = _best_epochs(report, problem)
    values = []
    for position, epoch in enumerate(best.tolist()):
        column = report.metrics[problem.metric][position]
        own = {name: float(tensor[position]) if epoch else float("nan") for name, tensor in on_test.items()}
        own[_VALIDATION] = float(column[epoch - 1]) if epoch else float("nan")
        own[_BEST_EPOCH], own[_EPOCHS] = float(epoch), float(report.stopped_at[position])
        values.append(own)
    return values, report.seconds.tolist()


def _best_epochs(report: TrainReport, problem: Problem) -> npt.NDArray[np.int64]:
    """First epoch with the best value of the metric that steers, from 1; 0 where there is no value."""
    column = report.metrics[problem.metric] * (1 if problem.higher_is_better else -1)
    best = np.where(np.isfinite(column), column, -np.inf).argmax(axis=1) + 1
    return np.where(np.isfinite(column).any(axis=1), best, 0).astype(np.int64)


def _key(trainer: Trainer, problem: Problem, seed: int, epochs: int) -> EvaluationKey:
    """What the figures depend on: all that training depends on, how long it may last, and the test part."""
    fields = LossEvaluator(problem, trainer, seed=seed).key.fields
    own: dict[str, JSON] = {"effect_epochs": epochs, "test": problem.rows("test").content_hash}
    return EvaluationKey({**fields, **own})


def _entry(screening: Screening, row: int, values: dict[str, float], epochs: int, seconds: float) -> CacheEntry:
    # one value a metric instead of one an epoch: complete, since the key holds the number of epochs
    return CacheEntry(
        program=screening.losses.texts[row],
        fingerprint=screening.fingerprints[row],
        status="trained",
        reason=None,
        epochs=epochs,
        complete=True,
        metrics={name: [value] for name, value in values.items()},
        seconds=seconds,
    )


def _effect(loss: Loss, values: Sequence[dict[str, float]], problem: Problem) -> Effect:
    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array([own[name] for own in values], np.float64)

    return Effect(
        loss,
        column(_VALIDATION),
        column(_BEST_EPOCH).astype(np.int64),
        column(_EPOCHS).astype(np.int64),
        {name: column(name) for name in problem.metrics},
    )
