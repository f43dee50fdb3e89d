"""Means over validation parts and seeds: what is averaged, what fails, what a duplicate gets, searches."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Status
from gploss.searchers.genetic import GeneticSearcher
from recmodels.data.interactions import DataError
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.splits import repeated_splits, rolling_splits
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.evaluators.repeated import RepeatedEvaluator
from recmodels.models.mf import MF
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from tests.recmodels.evaluators.cases import BCE, HINGE, MSE, MSE_TWICE, NO_LABEL, FormulaTrainer
from tests.recmodels.training.cases import PROBLEM, SPLIT


def evaluators(count: int = 3, **options: Any) -> list[LossEvaluator]:
    trainer = StackedTrainer(functools.partial(MF, embedding_size=4), STANDARD, device="cpu")
    splits = repeated_splits(SPLIT, count, seed=0)
    return [
        LossEvaluator(PointwiseProblem(part), trainer, **{"epochs": 2, "seed": training_seed(0, k), **options})
        for k, part in enumerate(splits)
    ]


def test_rewards_are_those_of_the_mean_curve() -> None:
    own = evaluators()
    found = RepeatedEvaluator(own).evaluate([MSE, NO_LABEL, BCE], {}, 5)
    assert [one.status for one in found] == [Status.TRAINED, Status.REJECTED, Status.TRAINED]
    for k, loss in ((0, MSE), (2, BCE)):
        curves = [one.evaluate([loss], {}, 1)[0].metrics["auc"] for one in own]
        assert len({tuple(curve) for curve in curves}) == 3
        np.testing.assert_allclose(found[k].metrics["auc"], np.mean(curves, axis=0))
        assert found[k].reward == max(found[k].metrics["auc"])
        assert found[k].candidate_epochs == 6 and found[k].seconds > 0


def test_duplicates_get_the_mean_too() -> None:
    evaluator = RepeatedEvaluator(evaluators())
    first, twice = evaluator.evaluate([MSE, MSE_TWICE], {}, 5)
    assert twice.status is Status.DUPLICATE and twice.reward == first.reward and twice.metrics == first.metrics
    assert first.fingerprint is not None
    (later,) = evaluator.evaluate([MSE_TWICE], {first.fingerprint: first}, 5)
    assert later.reward == first.reward


def test_a_loss_that_diverges_everywhere_has_diverged() -> None:
    plans = [LossEvaluator(PROBLEM, FormulaTrainer(), epochs=8) for _ in range(2)]
    losses = [Expression.parse(f"square(label - {k} * pred)") for k in range(2, 40)]
    alone = plans[0].evaluate(losses, {}, 100)
    together = RepeatedEvaluator(plans).evaluate(losses, {}, 100)
    assert {one.status for one in alone} == {Status.TRAINED, Status.DIVERGED}
    assert [one.status for one in together] == [one.status for one in alone]
    assert all(one.reward is None and one.reason for one in together if one.status is Status.DIVERGED)


def test_one_bad_run_of_several_is_enough() -> None:
    good, bad = evaluators(2)
    bad.settings["learning_rate"] = 1e30
    (found,) = RepeatedEvaluator([good, bad]).evaluate([HINGE], {}, 1)
    assert found.status is Status.DIVERGED and found.reason is not None and found.candidate_epochs == 4


def test_a_search_can_be_resumed_and_repeats(tmp_path: Any) -> None:
    def run(budget: int, checkpoint: Any) -> list[str]:
        searcher = GeneticSearcher(Grammar.standard(), RepeatedEvaluator(evaluators(2)), seed=1, population_size=6)
        result = searcher.run(budget, checkpoint=checkpoint, progress=False)
        return [f"{one.expression} {one.status} {one.reward}" for one in result.records]

    whole = run(20, None)
    run(10, tmp_path / "run.sqlite")
    assert run(20, tmp_path / "run.sqlite") == whole


def test_what_has_no_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="no evaluator"):
        RepeatedEvaluator([])
    with pytest.raises(ValueError, match="different tasks, metrics or epochs"):
        RepeatedEvaluator([*evaluators(1), *evaluators(1, epochs=3)])


# The splits.


def test_repeated_splits_share_the_test_part_and_no_row_is_lost() -> None:
    splits = repeated_splits(SPLIT, 4, share=0.2, seed=3)
    assert splits[0] is SPLIT
    whole = SPLIT.train.followed_by(SPLIT.validation)
    rows = sorted(zip(whole.users, whole.items, whole.labels, strict=True))
    assert len(rows) == len(SPLIT.train) + len(SPLIT.validation)
    for split in splits[1:]:
        assert split.test == SPLIT.test
        both = split.train.followed_by(split.validation)
        assert sorted(zip(both.users, both.items, both.labels, strict=True)) == rows
        assert len(split.validation) == pytest.approx(0.2 * len(rows), rel=0.25)
    assert len({split.content_hash for split in splits}) == 4
    assert [s.content_hash for s in repeated_splits(SPLIT, 4, share=0.2, seed=3)] == [
        s.content_hash for s in splits
    ]
    assert repeated_splits(SPLIT, 2, share=0.2, seed=4)[1].content_hash != splits[1].content_hash


def test_rolling_splits_step_back_in_time() -> None:
    splits = rolling_splits(SPLIT, 3)
    assert splits[0] is SPLIT
    assert rolling_splits(SPLIT, 3)[2].content_hash == splits[2].content_hash
    for later, earlier in itertools.pairwise(splits):
        assert earlier.test == SPLIT.test
        # what is validated on comes from the end of the later split's train part, user by user, and nothing is lost
        assert len(earlier.train) + len(earlier.validation) == len(later.train)
        both = earlier.train.followed_by(earlier.validation)
        for user in np.unique(later.train.users):
            own, joined = (part.take(part.users == user) for part in (later.train, both))
            assert own == joined
            ending = earlier.validation.take(earlier.validation.users == user)
            assert not len(ending) or (ending.labels[0] == 1 and ending.labels[1:].sum() == 0)


@pytest.mark.parametrize(("count", "share"), [(2, 0.0), (2, 1.0)])
def test_splits_that_cannot_be_drawn_are_refused(count: int, share: float) -> None:
    with pytest.raises(DataError, match="cannot be drawn"):
        repeated_splits(SPLIT, count, share=share, seed=0)


def test_no_split_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        repeated_splits(SPLIT, 0, seed=0)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        rolling_splits(SPLIT, 0)


def test_too_many_steps_back_are_refused() -> None:
    with pytest.raises(DataError):
        rolling_splits(SPLIT, 200)


def test_rows_of_other_tables_cannot_be_joined() -> None:
    other = SPLIT.validation
    wider = type(other)(other.users, other.items, other.labels, other.n_users + 1, other.n_items, other.timestamps)
    with pytest.raises(DataError, match="cannot be joined"):
        SPLIT.train.followed_by(wider)
