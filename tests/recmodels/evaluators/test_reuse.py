"""Results that are cached: the same with and without, and for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.screening import screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import Evaluation, Status
from recmodels.evaluators.evaluator import LossEvaluator
from tests.recmodels.evaluators.cases import BCE, HINGE, MSE, MSE_TWICE, POOL, FormulaTrainer, fake, plain, real
from tests.recmodels.training.cases import PROBLEM


@pytest.fixture(scope="module")
def proposals() -> list[Expression]:
    rng = np.random.default_rng(7)
    return [Grammar.standard().sample(rng, int(size)) for size in rng.integers(1, 6, 40)]


def run_in_rounds(evaluator: LossEvaluator, proposals: Sequence[Expression]) -> list[Evaluation]:
    """Evaluate like a search: in rounds, telling what was seen."""
    seen: dict[str, Evaluation] = {}
    found: list[Evaluation] = []
    for first in range(0, len(proposals), 10):
        new = evaluator.evaluate(proposals[first : first + 10], seen, 100)
        seen |= {str(evaluation.fingerprint): evaluation for evaluation in new if evaluation.charged}
        found += new
    return found


def test_a_run_with_a_cache_equals_one_without(proposals: list[Expression], tmp_path: Path) -> None:
    without = run_in_rounds(real(epochs=2), proposals)
    with Cache(tmp_path / "cache") as cache:
        # Other programs of the same functions come first, in another order: an exact cache must not serve those.
        run_in_rounds(real(epochs=2, cache=cache), list(reversed(proposals))[:20])
        first = run_in_rounds(real(epochs=2, cache=cache), proposals)
        second = run_in_rounds(real(epochs=2, cache=cache), proposals)
    assert plain(first) == plain(without)
    assert plain(second) == plain(without)
    assert all(evaluation.cached for evaluation in second if evaluation.charged)
    charged = [evaluation for evaluation in without if evaluation.charged]
    assert len(charged) > 5 and not any(evaluation.cached for evaluation in without)
    stored = [evaluation.seconds for evaluation in second if evaluation.charged]
    assert all(seconds > 0 for seconds in stored), "a hit is charged at its stored seconds"


def test_fingerprint_reuse_serves_the_representative() -> None:
    with Cache(":memory:") as cache:
        (representative,) = real(epochs=2, cache=cache).evaluate([MSE], {}, 1)
        (exact,) = real(epochs=2, cache=cache).evaluate([MSE_TWICE], {}, 1)
        assert not exact.cached
    with Cache(":memory:") as cache:
        real(epochs=2, cache=cache).evaluate([MSE], {}, 1)
        evaluator = real(epochs=2, cache=cache, reuse="fingerprint")
        (served,) = evaluator.evaluate([MSE_TWICE], {}, 1)
    assert served.cached and served.expression is MSE_TWICE
    assert served.metrics == representative.metrics and served.reward == representative.reward


@pytest.mark.parametrize("reuse", ["exact", "fingerprint"])
def test_entries_of_more_epochs_serve_fewer(reuse: Any) -> None:
    trainer = FormulaTrainer()
    expressions = [expression for expression in POOL if screen([expression]).reasons[0] is None]
    with Cache(":memory:") as cache:
        LossEvaluator(PROBLEM, trainer, epochs=6, cache=cache).evaluate(expressions, {}, 99)
        trainer.calls.clear()
        for epochs in range(1, 7):
            served = LossEvaluator(PROBLEM, trainer, epochs=epochs, cache=cache, reuse=reuse).evaluate(
                expressions, {}, 99
            )
            assert trainer.calls == []
            fresh = fake(epochs=epochs).evaluate(expressions, {}, 99)
            assert plain(served) == plain(fresh)
        statuses = [[e.status for e in fake(epochs=epochs).evaluate(expressions, {}, 99)] for epochs in (1, 6)]
        assert statuses[0].count(Status.DIVERGED) < statuses[1].count(Status.DIVERGED), "some diverge late"


def test_more_epochs_are_trained_anew_unless_the_run_ended_by_itself() -> None:
    trainer = FormulaTrainer()
    expressions = [expression for expression in POOL if screen([expression]).reasons[0] is None]
    with Cache(":memory:") as cache:
        first = LossEvaluator(PROBLEM, trainer, epochs=2, cache=cache).evaluate(expressions, {}, 99)
        ended = {
            str(e.expression.canonical())
            for e in first
            if e.charged and (e.status is Status.DIVERGED or len(e.metrics["auc"]) < 2)
        }
        charged = {str(e.expression.canonical()) for e in first if e.charged}
        trainer.calls.clear()
        longer = LossEvaluator(PROBLEM, trainer, epochs=5, cache=cache).evaluate(expressions, {}, 99)
    assert ended and set(trainer.calls[0]) == charged - ended
    assert plain(longer) == plain(fake(epochs=5).evaluate(expressions, {}, 99))


def test_the_real_trainers_entries_serve_fewer_epochs() -> None:
    expressions = [MSE, BCE, HINGE]
    with Cache(":memory:") as cache:
        real(epochs=4, cache=cache).evaluate(expressions, {}, 9)
        served = real(epochs=2, cache=cache).evaluate(expressions, {}, 9)
    assert all(evaluation.cached for evaluation in served)
    assert plain(served) == plain(real(epochs=2).evaluate(expressions, {}, 9))


def test_entries_keep_what_a_diverged_run_had() -> None:
    with Cache(":memory:") as cache:
        evaluator = fake(epochs=7, cache=cache)
        evaluator.evaluate(POOL, {}, 99)
        entries = list(cache.entries(evaluator.key))
    assert {entry.status for entry in entries} == {"trained", "diverged"}
    for entry in entries:
        assert isinstance(entry, CacheEntry)
        length = len(entry.metrics["auc"])
        assert np.isfinite(entry.metrics["auc"]).all()
        assert entry.complete == (length < 7) or entry.status == "diverged"
        if entry.status == "diverged":
            assert entry.reason == f"non-finite in epoch {length + 1}"
