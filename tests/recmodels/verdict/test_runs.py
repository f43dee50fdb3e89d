"""Trainings that go on: bit for bit those of one long training, looked up first, whatever their patience."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from gploss.language.expression import Expression
from gploss.search.cache import Cache
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import STANDARD
from recmodels.training.trainer import Trainer
from recmodels.verdict.runs import Run, Runs
from tests.recmodels.training.cases import PROBLEM, mf_for
from tests.recmodels.verdict.planned import BCE, BLIND, MSE, PlannedTrainer, Wishes

#: Rates of which some are over the top after an epoch or two, so that patience ends them early.
RATES = (0.02, 0.1, 1.5, 4.0)
RUNS = [
    Run(expression, seed, (("learning_rate", rate), ("weight_decay", 1e-4)))
    for expression in (MSE, BCE)
    for seed in (1, 2)
    for rate in RATES
]


def trainer(patience: int | None = 2) -> Trainer:
    protocol = dataclasses.replace(STANDARD, patience=patience)
    return FusedTrainer(mf_for(protocol), protocol, device="cpu")


@pytest.mark.parametrize("patience", [1, 2, None])
def test_a_run_that_was_interrupted_is_stored_as_one_that_was_not(patience: int | None, tmp_path: Path) -> None:
    with Cache(tmp_path / "pieces.sqlite") as pieces, Cache(tmp_path / "whole.sqlite") as whole:
        runs = Runs(trainer(patience), PROBLEM, pieces)
        for epochs in (2, 3, 8):
            values = runs.best(RUNS, epochs)
        for run, value in zip(RUNS, values, strict=True):
            evaluator = LossEvaluator(
                PROBLEM, trainer(patience), epochs=8, seed=run.seed, settings=dict(run.settings), cache=whole
            )
            (evaluation,) = evaluator.evaluate([run.loss], {}, 1)
            assert evaluation.reward == value
            (expected,), (found,) = (
                [dataclasses.replace(entry, seconds=0.0, epochs=8) for entry in cache.entries(evaluator.key)
                 if entry.program == str(run.loss.canonical())]
                for cache in (whole, pieces)
            )  # fmt: skip
            assert found == expected
    if patience == 1:
        assert (
            len({len(entry.metrics["auc"]) for entry in runs._entries.values()}) > 2
        )  # some end early, some do not


def test_what_a_search_has_trained_is_not_trained_again(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache.sqlite") as cache:
        settings = {"learning_rate": 0.1, "weight_decay": 1e-4}
        searched = LossEvaluator(PROBLEM, trainer(), epochs=4, seed=1, settings=settings, cache=cache)
        (evaluation,) = searched.evaluate([MSE], {}, 1)
        mute = trainer()
        mute.fit = None  # type: ignore[method-assign, assignment]
        run = Run(MSE, 1, tuple(settings.items()))
        assert Runs(mute, PROBLEM, cache).best([run], 4).tolist() == [evaluation.reward]


def test_a_run_that_diverges_is_worth_nothing_and_says_when() -> None:
    def worth(text: str, settings: object, epoch: int) -> float:
        return math.nan if text == str(MSE.canonical()) and epoch == 5 else 0.5

    runs = Runs(PlannedTrainer(worth), Wishes(), None)
    pair = [Run(MSE, 0, ()), Run(BCE, 0, ())]
    assert runs.best(pair, 3).tolist() == [0.5, 0.5]
    assert runs.best(pair, 6).tolist() == [-math.inf, 0.5]
    entry = runs._entries[pair[0]]
    assert entry.reason == "non-finite gradient in epoch 5" and entry.complete
    assert len(entry.metrics["distance"]) == 4 and entry.seconds == 2
    assert runs.best(pair, 4).tolist() == [0.5, 0.5]  # up to then it did not


def test_weights_are_kept_of_the_last_runs_alone() -> None:
    planned = PlannedTrainer(lambda *_: 0.5)
    runs = Runs(planned, Wishes(), None)
    first, second = Run(MSE, 0, ()), Run(BCE, 0, ())
    runs.best([first, second], 2)
    runs.best([first], 4)
    runs.best([first, second], 6)
    assert [[epochs for _, _, epochs in fit] for fit in planned.fits] == [[2, 2], [2], [6], [2]]
    runs.best([second, second], 6)
    assert len(planned.fits) == 4


def test_an_entry_of_another_process_is_taken_with_its_epochs(tmp_path: Path) -> None:
    """The weights at hand are then of fewer epochs, and are not what to go on from."""
    run = Run(MSE, 0, ())
    with Cache(tmp_path / "cache.sqlite") as cache:
        planned = PlannedTrainer(lambda text, settings, epoch: epoch / 10)
        runs = Runs(planned, Wishes(), cache)
        runs.best([run], 2)
        Runs(PlannedTrainer(lambda text, settings, epoch: epoch / 10), Wishes(), cache).best([run], 4)
        assert runs.best([run], 4).tolist() == [0.4]
        assert runs.best([run], 6).tolist() == [0.6]
        assert [[epochs for _, _, epochs in fit] for fit in planned.fits] == [[2], [6]]


def test_a_loss_that_cannot_train_anything_is_worth_nothing() -> None:
    planned = PlannedTrainer(lambda *_: 0.5)
    values = Runs(planned, Wishes(), None).best([Run(BLIND, 0, ()), Run(MSE, 0, ())], 1)
    assert values.tolist() == [-math.inf, 0.5]
    assert np.isneginf(
        Runs(planned, Wishes(), None).best([Run(Expression.parse("exp(exp(exp(logit)))"), 0, ())], 1)
    )
