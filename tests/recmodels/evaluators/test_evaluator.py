"""Evaluators: what becomes of each loss, prefixes, what they never touch, searches that are killed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.screening import screen
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.searchers.random_search import RandomSearcher
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import TrainReport
from tests.recmodels.evaluators.cases import (
    BCE,
    HINGE,
    MSE,
    MSE_OTHERWISE,
    MSE_TWICE,
    NO_GRADIENT,
    NO_LABEL,
    NOT_FINITE,
    POOL,
    WRONG_WAY,
    FormulaTrainer,
    fake,
    plain,
    real,
    small,
)
from tests.recmodels.training.cases import PROBLEM, SPLIT, small_split


def test_each_status() -> None:
    expressions = [MSE, NO_LABEL, NO_GRADIENT, NOT_FINITE, MSE_TWICE, BCE, MSE]
    found = real(epochs=2).evaluate(expressions, {}, 10)
    statuses = [evaluation.status for evaluation in found]
    assert statuses == [
        Status.TRAINED,
        Status.REJECTED,
        Status.REJECTED,
        Status.REJECTED,
        Status.DUPLICATE,
        Status.TRAINED,
        Status.DUPLICATE,
    ]
    assert [evaluation.expression for evaluation in found] == expressions
    assert [found[k].reason for k in (1, 2, 3)] == ["no dependence on label", "zero gradient", "non-finite"]
    first = found[0]
    assert first.reward == max(first.metrics["auc"]) and len(first.metrics["auc"]) == 2
    assert first.candidate_epochs == 2 and first.seconds > 0 and not first.cached
    assert first.scale == pytest.approx(float(screen([MSE]).scales[0]))
    for k in (4, 6):
        assert found[k].duplicate_of == str(MSE)
        assert (found[k].reward, found[k].metrics) == (first.reward, first.metrics)
        assert found[k].fingerprint == first.fingerprint
        assert found[k].candidate_epochs == 0 and not found[k].charged
    assert found[4].scale == pytest.approx(2 * float(first.scale or 0))


def test_a_loss_that_diverges() -> None:
    evaluator = real(epochs=2, settings={"learning_rate": 1e38})
    (found,) = evaluator.evaluate([HINGE], {}, 1)
    assert found.status is Status.DIVERGED and found.charged
    assert found.reward is None and "epoch 1" in str(found.reason)
    (duplicate,) = evaluator.evaluate([HINGE], {str(found.fingerprint): found}, 1)
    assert duplicate.status is Status.DUPLICATE and duplicate.reward is None


def test_the_direction_is_checked_where_asked_for() -> None:
    assert real(epochs=1).evaluate([WRONG_WAY], {}, 1)[0].status is Status.TRAINED
    (found,) = real(epochs=1, check_direction=True).evaluate([WRONG_WAY], {}, 1)
    assert (found.status, found.reason) == (Status.REJECTED, "wrong direction")


def test_multiples_are_duplicates_only_where_losses_are_scale_free() -> None:
    statuses = [evaluation.status for evaluation in fake(protocol=PAPER).evaluate([MSE, MSE_TWICE], {}, 5)]
    assert Status.DUPLICATE not in statuses
    assert all(evaluation.scale is None for evaluation in fake(protocol=PAPER).evaluate([MSE], {}, 5))


def test_seen_before_is_a_duplicate_of_what_was_seen() -> None:
    evaluator = fake()
    (first,) = evaluator.evaluate([MSE_OTHERWISE], {}, 1)
    seen = {str(first.fingerprint): first}
    found = evaluator.evaluate([MSE, BCE, MSE_TWICE], seen, 1)
    assert [evaluation.status for evaluation in found][::2] == [Status.DUPLICATE] * 2
    assert found[0].duplicate_of == found[2].duplicate_of == str(MSE_OTHERWISE)
    assert seen == {str(first.fingerprint): first}, "seen is not changed"


def test_the_reward_is_the_best_value_in_the_metrics_direction() -> None:
    model = functools.partial(MF, embedding_size=8)
    trainer = StackedTrainer(model, STANDARD, device="cpu")
    evaluator = LossEvaluator(PointwiseProblem(SPLIT, ("logloss", "auc")), trainer, epochs=3)
    (found,) = evaluator.evaluate([BCE], {}, 1)
    assert evaluator.metric == "logloss" and not evaluator.higher_is_better
    assert found.reward == min(found.metrics["logloss"])
    assert found.metrics.keys() == {"logloss", "auc"}


def test_a_split_is_no_problem() -> None:
    with pytest.raises(TypeError, match=r"problem must be a Problem, such as PointwiseProblem\(split\), got Split"):
        LossEvaluator(SPLIT, FormulaTrainer())  # type: ignore[arg-type]


def test_epochs_are_checked() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fake(epochs=0)


def one_by_one(
    evaluator: LossEvaluator, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
) -> list[Evaluation]:
    """What the contract says, candidate by candidate."""
    known, found, charged = dict(seen), [], 0
    scale_free = evaluator.trainer.protocol.scale_free
    for expression in expressions:
        screening = screen([expression], scale_free=scale_free, check_direction=evaluator.sieve.check_direction)
        reason, fingerprint = screening.texts[0], screening.fingerprints[0]
        if reason is not None:
            found.append(Evaluation(expression, Status.REJECTED, reason=reason))
            continue
        if fingerprint in known:
            first = known[fingerprint]
            found.append(
                Evaluation(
                    expression,
                    Status.DUPLICATE,
                    reward=first.reward,
                    metrics=first.metrics,
                    fingerprint=fingerprint,
                    scale=float(screening.scales[0]) if scale_free else None,
                    duplicate_of=str(first.expression),
                )
            )
            continue
        if charged == limit:
            break
        (new,) = evaluator.evaluate([expression], {}, 1)
        charged += 1
        known[fingerprint] = new
        found.append(new)
    return found


@given(
    chosen=st.lists(st.sampled_from(POOL), max_size=25),
    earlier=st.lists(st.sampled_from(POOL), max_size=6),
    limit=st.integers(0, 12),
    check_direction=st.booleans(),
    protocol=st.sampled_from([STANDARD, PAPER]),
)
@settings(max_examples=60, deadline=None)
def test_a_prefix_is_what_a_plain_loop_gives(
    chosen: list[Expression], earlier: list[Expression], limit: int, check_direction: bool, protocol: Protocol
) -> None:
    evaluator = fake(protocol=protocol, epochs=4, check_direction=check_direction)
    past = one_by_one(evaluator, earlier, {}, 99)
    seen = {str(evaluation.fingerprint): evaluation for evaluation in past if evaluation.charged}
    expected = one_by_one(evaluator, chosen, seen, limit)
    found = evaluator.evaluate(chosen, seen, limit)
    assert plain(found) == plain(expected)
    assert sum(evaluation.charged for evaluation in found) <= limit


def test_nothing_is_trained_beyond_the_limit_or_twice() -> None:
    trainer = FormulaTrainer()
    evaluator = LossEvaluator(PROBLEM, trainer)
    found = evaluator.evaluate([MSE, NO_LABEL, MSE_TWICE, BCE, MSE, HINGE, MSE], {}, 2)
    assert len(found) == 5
    assert trainer.calls == [[str(MSE.canonical()), str(BCE.canonical())]]
    assert evaluator.evaluate([MSE], {}, 0) == []
    assert evaluator.evaluate([], {}, 3) == []
    assert len(trainer.calls) == 1


class Untouchable:
    """Fails at whatever is done to it."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the search asked for {name} of the test part")

    def __len__(self) -> int:
        raise AssertionError("the search asked for the length of the test part")


def test_the_test_part_is_never_touched(tmp_path: Path) -> None:
    split = Split(SPLIT.name, SPLIT.train, SPLIT.validation, SPLIT.test)
    object.__setattr__(split, "test", Untouchable())
    with pytest.raises(AssertionError, match="test part"):
        _ = split.test.labels
    with Cache(tmp_path / "cache") as cache:
        evaluator = real(split, epochs=1, cache=cache)
        found = evaluator.evaluate([MSE, BCE, NO_LABEL], {}, 9)
        result = RandomSearcher(Grammar.standard(), evaluator, seed=0).run(3, progress=False)
    assert plain(found) == plain(real(epochs=1).evaluate([MSE, BCE, NO_LABEL], {}, 9))
    assert len(result.records) >= 3


class FailingTrainer(StackedTrainer):
    """Breaks off in one of its calls."""

    fits_left: int | None = None

    def fit(self, *arguments: Any, **options: Any) -> TrainReport:
        if self.fits_left is not None:
            self.fits_left -= 1
            if self.fits_left < 0:
                raise OSError("the machine went away")
        return super().fit(*arguments, **options)


def searcher(fits_left: int | None = None, cache: Cache | None = None) -> RandomSearcher:
    trainer = FailingTrainer(small, STANDARD, device="cpu")
    trainer.fits_left = fits_left
    evaluator = LossEvaluator(PROBLEM, trainer, epochs=1, cache=cache)
    return RandomSearcher(Grammar.standard(), evaluator, seed=3, proposals_at_once=8)


@pytest.mark.parametrize("fits", [0, 1, 2])
@pytest.mark.parametrize("with_cache", [False, True])
def test_a_search_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, fits: int, with_cache: bool) -> None:
    whole = searcher().run(14, progress=False)
    checkpoint = tmp_path / "run"
    cache = Cache(tmp_path / "cache") if with_cache else None
    with pytest.raises(OSError, match="went away"):
        searcher(fits, cache).run(14, checkpoint=checkpoint, progress=False)
    resumed = searcher(None, cache).run(14, checkpoint=checkpoint, progress=False)
    clock = ["seconds", "elapsed", "cached"]
    assert resumed.evaluations.drop(columns=clock).equals(whole.evaluations.drop(columns=clock))
    assert resumed.counts == whole.counts or with_cache
    assert resumed.best is not None and whole.best is not None
    assert str(resumed.best.expression) == str(whole.best.expression)
    assert (whole.evaluations["status"].isin(["trained", "diverged"])).sum() == 14


def test_training_seeds() -> None:
    seeds = {training_seed(experiment, replicate) for experiment in range(20) for replicate in range(20)}
    assert len(seeds) == 400
    assert training_seed(3, 4) == training_seed(3, 4)


def test_another_dataset_gives_other_values() -> None:
    other = real(small_split(seed=9), epochs=1).evaluate([MSE], {}, 1)[0]
    assert other.metrics != real(epochs=1).evaluate([MSE], {}, 1)[0].metrics
