"""Alternating search on a trainer that only adds numbers: rounds, steps, fresh samples, resuming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.screening import Reason
from gploss.search.budget import Budget
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.search.record import Progress as RunProgress
from gploss.search.result import SearchResult
from gploss.search.reward import BaselineFilter
from gploss.search.run import StopSearch
from gploss.search.searcher import AskTellSearcher
from gploss.searchers.genetic import GeneticSearcher
from gploss.searchers.random_search import RandomSearcher
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Rows, Schema
from recmodels.evaluators.alternating import AlternatingEvaluator
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.base import Batch
from recmodels.models.mf import MF
from recmodels.training.problem import Problem
from recmodels.training.protocol import PAPER, STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import EpochsDone, Keep, Member, Outcome, State, Trainer, TrainReport
from rl.searcher import RLSearcher
from tests.pointwise import run

GOOD, BETTER, BAD = "neg(label * pred)", "neg(label * logit)", "label * pred"


class Silent(torch.nn.Module):
    """A model that has learnt nothing."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> torch.Tensor:
        return torch.zeros(len(batch.user))


class CountingTrainer(Trainer):
    """A model is one number, its AUC; an epoch adds what the loss's pull towards the labels is worth.

    Args:
        bonus: added to each epoch's gain, to tell two trainers apart.
    """

    name = "counting"

    def __init__(self, bonus: float = 0.0) -> None:
        self.model = Silent
        self.protocol = PAPER
        self.bonus = bonus
        self.trained = 0

    def fit(
        self,
        losses: Program,
        members: Sequence[Member],
        problem: Problem,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: EpochsDone | None = None,
    ) -> TrainReport:
        self.trained += len(members)
        rows = np.array([member.loss for member in members])
        _, gradients = run(losses, np.array([0.3, -0.2]), np.array([1.0, 0.0]), rows)
        gain = np.clip(0.01 * (gradients[:, 1] - gradients[:, 0]), -0.05, 0.05) + self.bonus
        before = np.full(len(members), 0.5) if start is None else start.weights["auc"].numpy().ravel()
        auc = np.broadcast_to(before, len(members))[:, None] + gain[:, None] * np.arange(1, epochs + 1)
        past = 0 if start is None else int(start.epochs[0])
        states = State({"auc": torch.from_numpy(auc[:, -1:].copy())}, {}, np.full(len(members), past + epochs))
        count = len(members)
        outcomes, none = [Outcome.TRAINED] * count, [None] * count
        seconds = np.full(count, 0.5)
        return TrainReport({"auc": auc}, outcomes, none, np.full(count, epochs), seconds, states)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        raise NotImplementedError

    def describe(self, schema: Schema) -> dict[str, JSON]:
        return {"trainer": self.name, "bonus": self.bonus, "device": "none"}


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)

    def part(rows: int) -> Interactions:
        return Interactions(rng.integers(9, size=rows), rng.integers(7, size=rows), np.arange(rows) % 2, 9, 7)

    return Split("tiny", part(60), part(20), part(20))


def inner(split: Split, cache: Cache | None = None) -> LossEvaluator:
    return LossEvaluator(PointwiseProblem(split), CountingTrainer(), epochs=1, cache=cache)


def losses(*texts: str) -> list[Expression]:
    return [Expression.parse(text) for text in texts]


def offer(evaluator: AlternatingEvaluator, *texts: str) -> list[Evaluation]:
    return evaluator.evaluate(losses(*texts), {}, len(texts))


def test_best_of_the_round_trains_the_recommender(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=3)
    assert evaluator.start is None and evaluator.start_value == 0.5
    first, best, worst = offer(evaluator, GOOD, BETTER, BAD)
    assert worst.reward < 0.5 < first.reward < best.reward  # type: ignore[operator]
    assert evaluator.advance() == pytest.approx(best.reward)
    assert evaluator.start is not None and evaluator.start.epochs.tolist() == [1]
    (step,) = evaluator.history
    assert (step.samples, step.trained, step.start, step.loss) == (3, 3, 0.5, str(best.expression))
    assert step.reward == best.reward and step.end == evaluator.start_value


def test_samples_start_from_the_present_weights_and_are_new_in_each_round(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=2)
    before = offer(evaluator, GOOD, BETTER)
    evaluator.advance()
    after = offer(evaluator, GOOD, BETTER)
    assert [one.status for one in after] == [Status.TRAINED] * 2
    gain = before[1].reward - 0.5  # type: ignore[operator]
    assert [one.reward for one in after] == pytest.approx([one.reward + gain for one in before])  # type: ignore[operator]


def test_round_is_not_over_before_its_samples_are_told(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=3)
    offer(evaluator, GOOD, BETTER)
    assert evaluator.advance() is None and not evaluator.history
    offer(evaluator, BAD)
    assert evaluator.advance() is not None and len(evaluator.history) == 1


def test_what_is_filtered_is_not_trained(split: Split) -> None:
    samples = inner(split)
    evaluator = AlternatingEvaluator(samples, samples_per_round=10)
    first, again, flat, blind = offer(evaluator, GOOD, f"identity({GOOD})", "label", "pred")
    assert again.status is Status.DUPLICATE and again.reward == first.reward
    assert (flat.reason, blind.reason) == ("zero gradient", "no dependence on label")
    (once_more,) = offer(evaluator, GOOD)
    assert once_more.status is Status.DUPLICATE
    assert samples.trainer.trained == 1  # type: ignore[attr-defined]


def test_fresh_samples_are_tried_before_the_weights_stay(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=2, fresh_samples=3)
    offer(evaluator, BAD, f"{BAD} * 2")
    assert evaluator.advance() is None, "no loss will do, so fresh ones are wanted"
    offer(evaluator, f"{BAD} * 3")
    assert evaluator.advance() is None
    (fresh,) = offer(evaluator, GOOD)
    assert evaluator.advance() == pytest.approx(fresh.reward)
    assert evaluator.history[0].samples == 4


def test_weights_stay_when_nothing_will_do(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=1, fresh_samples=1)
    offer(evaluator, GOOD)
    evaluator.advance()
    kept, value = evaluator.start, evaluator.start_value
    assert kept is not None
    for text in (BAD, f"{BAD} * 2"):
        offer(evaluator, text)
        last = evaluator.advance()
    assert last == value and evaluator.history[1].loss is None
    assert evaluator.start is not None and evaluator.start.weights == kept.weights
    # so that the next round has other batches
    assert evaluator.start.epochs.tolist() == [2] and evaluator.start.content_hash != kept.content_hash


def test_a_step_that_falls_below_the_start_is_not_taken(split: Split) -> None:
    evaluator = AlternatingEvaluator(
        inner(split), step_trainer=CountingTrainer(bonus=-0.004), samples_per_round=1, fresh_samples=5
    )
    (small,) = offer(evaluator, GOOD)
    assert 0.5 < small.reward < 0.504  # type: ignore[operator]
    assert evaluator.advance() is None, "with the step's regulariser this loss would lower the AUC"
    offer(evaluator, BETTER)
    assert evaluator.advance() == pytest.approx(evaluator.history[0].reward - 0.004)  # type: ignore[operator]


def test_ends_with_its_rounds(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=40, rounds=3)
    searcher = RandomSearcher(Grammar.standard(), evaluator)
    result = searcher.run(Budget(candidates=1000), progress=False)
    assert result.stopped == "budget" and len(evaluator.history) == 3
    assert sum(step.samples for step in evaluator.history) == len(result.records)


def test_reward_filter_begins_each_round_at_its_start(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=20, rounds=2)
    reward_filter = BaselineFilter(start=evaluator.start_value)
    searcher = RLSearcher(Grammar.standard(), evaluator, reward_filter=reward_filter, proposals_at_once=10)
    searcher.run(Budget(candidates=1000), progress=False)
    assert searcher.reward_filter is not None
    assert searcher.reward_filter.baseline == evaluator.start_value == evaluator.history[-1].end


def test_genetic_survivors_are_evaluated_anew_and_judged_by_their_gain(split: Split) -> None:
    evaluator = AlternatingEvaluator(inner(split), samples_per_round=40, rounds=1)
    searcher = GeneticSearcher(Grammar.standard(), evaluator, population_size=8, proposals_at_once=20)
    searcher.run(Budget(candidates=1000), progress=False)
    assert evaluator.start_value > 0.5
    survivors = [one.text for one in searcher.population]
    asked = searcher.ask(10)
    assert [str(one) for one in asked[: len(survivors)]] == survivors
    answered = evaluator.evaluate(asked, {}, 10)
    searcher.tell(answered)
    gains = {str(one.expression): one.reward - evaluator.start_value for one in answered if one.reward is not None}
    assert searcher.population and not searcher._outdated
    for one in searcher.population:
        assert one.fitness.values[0] == pytest.approx(gains[one.text])


def searcher_of(kind: str, split: Split, cache: Cache | None = None) -> AskTellSearcher:
    evaluator = AlternatingEvaluator(inner(split, cache), samples_per_round=20, fresh_samples=20, rounds=4)
    grammar = Grammar.paper()
    if kind == "genetic":
        return GeneticSearcher(grammar, evaluator, proposals_at_once=10, population_size=6)
    if kind == "rl":
        reward_filter = BaselineFilter(start=evaluator.start_value)
        return RLSearcher(grammar, evaluator, proposals_at_once=10, reward_filter=reward_filter)
    return RandomSearcher(grammar, evaluator, proposals_at_once=10)


def told(result: SearchResult) -> list[Evaluation]:
    return [replace(record, cached=False) for record in result.records]


@pytest.mark.parametrize("kind", ["rl", "genetic", "random"])
def test_resumed_run_equals_an_unbroken_one(kind: str, split: Split, tmp_path: Path) -> None:
    budget = Budget(candidates=1000)
    whole = searcher_of(kind, split)
    expected = whole.run(budget, progress=False)

    def stop(searcher: object, new: Sequence[Evaluation], progress: RunProgress) -> None:
        raise StopSearch

    for _ in range(100):  # a new process each time, as far as the run can tell
        broken = searcher_of(kind, split)
        result = broken.run(budget, checkpoint=tmp_path / "run.sqlite", callbacks=[stop], progress=False)
        if result.stopped == "budget":
            break
    assert told(result) == told(expected)
    one, other = broken.evaluator, whole.evaluator
    assert isinstance(one, AlternatingEvaluator) and isinstance(other, AlternatingEvaluator)
    assert one.history == other.history and len(one.history) == 4
    assert one.start is not None and other.start is not None
    assert one.start.content_hash == other.start.content_hash


def test_cache_holds_what_candidates_started_from(split: Split, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache.sqlite") as cache:
        first = searcher_of("random", split, cache).run(Budget(candidates=1000), progress=False)
        again = searcher_of("random", split, cache).run(Budget(candidates=1000), progress=False)
    plain = searcher_of("random", split).run(Budget(candidates=1000), progress=False)
    assert not any(record.cached for record in first.records)
    assert all(record.cached for record in again.records if record.charged)
    assert told(first) == told(again) == told(plain)


def test_hash_of_a_state_depends_on_all_of_it() -> None:
    base = State({"a": torch.zeros(1, 2)}, {"a": torch.ones(1, 2)}, np.array([3]))
    others = [
        State({"a": torch.ones(1, 2)}, base.optimizer, base.epochs),
        State({"b": torch.zeros(1, 2)}, base.optimizer, base.epochs),
        State({"a": torch.zeros(1, 2, dtype=torch.float64)}, base.optimizer, base.epochs),
        State(base.weights, {}, base.epochs),
        State(base.weights, base.optimizer, np.array([4])),
    ]
    assert len({state.content_hash for state in [base, *others]}) == 6
    assert State(dict(base.weights), dict(base.optimizer), np.array([3])).content_hash == base.content_hash


@pytest.mark.parametrize("protocol", [PAPER, STANDARD])
def test_works_with_a_real_trainer(protocol: object, split: Split) -> None:
    """A search that is killed goes on from the same weights and accumulators."""
    assert protocol in (PAPER, STANDARD)
    chosen = PAPER if protocol is PAPER else STANDARD

    def evaluator() -> AlternatingEvaluator:
        trainer = StackedTrainer(MF, chosen, device="cpu")
        return AlternatingEvaluator(
            LossEvaluator(PointwiseProblem(split), trainer, epochs=1), samples_per_round=2, fresh_samples=0
        )

    one = evaluator()
    batch = [LOSSES["bce"].expression, LOSSES["mse"].expression]
    one.evaluate(batch, {}, 2)
    one.advance()
    two = evaluator()
    two.load_state_dict(one.state_dict())
    assert one.evaluate(batch, {}, 2)[0].metrics == two.evaluate(batch, {}, 2)[0].metrics
    assert one.advance() == two.advance()
    if one.start is not None:
        warm = LossEvaluator(
            PointwiseProblem(split), StackedTrainer(MF, chosen, device="cpu"), epochs=1, start=one.start
        )
        assert AlternatingEvaluator(warm).start_value == pytest.approx(one.start_value)


@pytest.mark.parametrize("options", [{"samples_per_round": 0}, {"fresh_samples": -1}, {"rounds": 0}])
def test_refuses_senseless_numbers(options: dict[str, int], split: Split) -> None:
    with pytest.raises(ValueError, match="at least"):
        AlternatingEvaluator(inner(split), **options)  # type: ignore[arg-type]


def test_evaluator_without_parts_of_its_filter(split: Split) -> None:
    texts = (GOOD, f"identity({GOOD})", "label", "pred")

    def statuses(**options: object) -> list[Status]:
        evaluator = LossEvaluator(PointwiseProblem(split), CountingTrainer(), epochs=1, **options)  # type: ignore[arg-type]
        return [one.status for one in evaluator.evaluate(losses(*texts), {}, 4)]

    trained, duplicate, rejected = Status.TRAINED, Status.DUPLICATE, Status.REJECTED
    assert statuses() == [trained, duplicate, rejected, rejected]
    assert statuses(recognise_duplicates=False) == [trained, trained, rejected, rejected]
    assert statuses(allow=[Reason.ZERO_GRADIENT]) == [trained, duplicate, trained, rejected]
    assert statuses(allow=[Reason.NO_DEPENDENCE]) == [trained, duplicate, rejected, trained]
    with pytest.raises(ValueError, match="not finite"):
        statuses(allow=[Reason.NON_FINITE])


def test_limit_holds_where_duplicates_are_not_recognised(split: Split) -> None:
    evaluator = LossEvaluator(PointwiseProblem(split), CountingTrainer(), epochs=1, recognise_duplicates=False)
    assert len(evaluator.evaluate(losses(GOOD, GOOD, "label", GOOD), {}, 2)) == 3
