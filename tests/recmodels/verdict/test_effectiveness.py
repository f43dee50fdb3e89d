"""Losses judged on test: the epoch is chosen on validation, and figures that are kept are those computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.search.cache import Cache
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.metrics import Targets, evaluate
from recmodels.models.mf import MF
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member
from recmodels.verdict.effectiveness import effectiveness

SEEDS = (3, 4)
METRICS_ON_TEST = ("auc", "f1", "accuracy")
EXPRESSIONS = [LOSSES["bce"].expression, LOSSES["mse"].expression]


@pytest.fixture(scope="module")
def problem() -> PointwiseProblem:
    rng = np.random.default_rng(1)
    taste = rng.normal(size=(20, 3)) @ rng.normal(size=(3, 15))

    def part(rows: int) -> Interactions:
        users, items = rng.integers(20, size=rows), rng.integers(15, size=rows)
        return Interactions(users, items, taste[users, items] > 0, 20, 15)

    return PointwiseProblem(Split("tiny", part(300), part(80), part(80)), METRICS_ON_TEST)


def trainer(patience: int = 2) -> StackedTrainer:
    return StackedTrainer(MF, replace(STANDARD, patience=patience), device="cpu")


def test_figures_are_those_of_the_best_epoch_on_validation(problem: PointwiseProblem) -> None:
    effects = effectiveness(EXPRESSIONS, trainer(), problem, epochs=6, seeds=SEEDS)
    program = screen(EXPRESSIONS).losses
    for row, effect in enumerate(effects):
        assert effect.loss is EXPRESSIONS[row]
        for place, seed in enumerate(SEEDS):
            report = trainer().fit(program, [Member(row, seed)], problem, 6, keep="best")
            column = report.metrics["auc"][0]
            assert effect.validation[place] == np.nanmax(column)
            assert effect.best_epoch[place] == np.nanargmax(column) + 1
            assert effect.epochs[place] == report.stopped_at[0]
            assert report.states is not None
            scores = torch.from_numpy(trainer().predict(report.states, problem.rows("test")))
            expected = evaluate(METRICS_ON_TEST, scores, Targets(problem.split.test.labels))
            assert {name: float(values[place]) for name, values in effect.test.items()} == {
                name: float(values[0]) for name, values in expected.items()
            }


def test_goes_on_where_it_was_cut_off(
    problem: PointwiseProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = effectiveness(EXPRESSIONS, trainer(), problem, epochs=4, seeds=SEEDS)
    with Cache(tmp_path / "cache.sqlite") as cache:
        effectiveness(EXPRESSIONS[:1], trainer(), problem, epochs=4, seeds=SEEDS, cache=cache)
        whole = effectiveness(EXPRESSIONS, trainer(), problem, epochs=4, seeds=SEEDS, cache=cache)
        # what is known is not trained again, and other epochs are something else
        shorter = effectiveness(EXPRESSIONS, trainer(), problem, epochs=1, seeds=SEEDS, cache=cache)
        monkeypatch.setattr(StackedTrainer, "fit", None)
        again = effectiveness(EXPRESSIONS, trainer(), problem, epochs=4, seeds=SEEDS, cache=cache)
    for results in (whole, again):
        for one, other in zip(results, plain, strict=True):
            np.testing.assert_equal(vars(one), vars(other))
    assert all((effect.epochs == 1).all() for effect in shorter)


def test_a_model_that_diverges_at_once_has_no_figures(problem: PointwiseProblem) -> None:
    steep = Expression.parse("exp(exp(logit * 1e9)) * label")
    with np.errstate(all="ignore"):
        (effect, fine) = effectiveness([steep, LOSSES["bce"].expression], trainer(), problem, epochs=2, seeds=[1])
    assert np.isnan(effect.validation).all() and effect.best_epoch.tolist() == [0]
    assert all(np.isnan(values).all() for values in effect.test.values())
    assert np.isfinite(fine.validation).all()
