from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation, Status
from gploss.search.searcher import SEARCHERS
from rl.searcher import RLSearcher

SMALL = replace(Grammar.paper(), name="small", max_size=4, max_depth=4)


def product_of_both(expression: Expression) -> float:
    """A cheap reward: a third each for a product at the root, for pred and for label."""
    wishes = [expression.head == "mul", "pred" in expression.terminals, "label" in expression.terminals]
    return sum(wishes) / 3


class SyntheticEvaluator:
    """Rewards without training; formulas without pred are rejected."""

    epochs = 1
    metric = "auc"
    higher_is_better = True

    def __init__(self, reward: Callable[[Expression], float] = product_of_both) -> None:
        self.reward = reward

    def evaluate(
        self, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
    ) -> list[Evaluation]:
        evaluations: list[Evaluation] = []
        known = dict(seen)
        for expression in expressions:
            evaluation = self.one(expression, known)
            if evaluation.charged and limit == 0:
                break
            if evaluation.charged:
                limit -= 1
                known[str(evaluation.fingerprint)] = evaluation
            evaluations.append(evaluation)
        return evaluations

    def one(self, expression: Expression, known: Mapping[str, Evaluation]) -> Evaluation:
        if "pred" not in expression.terminals:
            return Evaluation(expression, Status.REJECTED, reason="zero gradient")
        fingerprint = str(expression.canonical())
        reward = self.reward(expression)
        if fingerprint in known:
            first = known[fingerprint]
            return Evaluation(
                expression,
                Status.DUPLICATE,
                reward=first.reward,
                metrics=first.metrics,
                fingerprint=fingerprint,
                duplicate_of=str(first.expression),
            )
        return Evaluation(
            expression,
            Status.TRAINED,
            reward=reward,
            metrics={"auc": [reward]},
            fingerprint=fingerprint,
            candidate_epochs=1,
        )

    def describe(self) -> dict[str, JSON]:
        return {"evaluator": "synthetic"}


def trained(expression: Expression, reward: float) -> Evaluation:
    return Evaluation(
        expression, Status.TRAINED, reward=reward, metrics={"auc": [reward]}, fingerprint=str(expression)
    )


def make(grammar: Grammar = SMALL, seed: int = 0, **settings: Any) -> RLSearcher:
    return RLSearcher(grammar, SyntheticEvaluator(), seed=seed, **settings)


def rounds(searcher: RLSearcher, sizes: Sequence[int]) -> list[list[Expression]]:
    """Ask and tell in rounds of these sizes."""
    asked = []
    for size in sizes:
        asked.append(searcher.ask(size))
        searcher.tell([trained(expression, product_of_both(expression)) for expression in asked[-1]])
    return asked


def weights(searcher: RLSearcher) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in searcher.controller.parameters()])


def test_it_is_registered() -> None:
    assert SEARCHERS["rl"] is RLSearcher


@settings(max_examples=25, deadline=None)
@given(
    max_size=st.integers(1, 12),
    max_depth=st.integers(1, 6),
    constants=st.booleans(),
    operators=st.lists(st.sampled_from(Grammar.standard().operators), min_size=1, unique=True).map(tuple),
    seed=st.integers(0, 100),
)
def test_every_proposal_is_in_the_grammar(
    max_size: int, max_depth: int, constants: bool, operators: tuple[str, ...], seed: int
) -> None:
    grammar = Grammar("any", operators, ("pred", "label", "1"), constants, "plain", max_size, max_depth)
    for expression in make(grammar, seed).ask(20):
        grammar.check(expression)
        assert 1 <= expression.size <= max_size


def test_constants_are_on_offer_where_the_grammar_has_them() -> None:
    standard = {node for expression in make(Grammar.standard()).ask(300) for node in expression.nodes()}
    assert {node.constant for node in standard if node.constant is not None} == {0.5, 1.0, 2.0}
    paper = {node for expression in make(Grammar.paper()).ask(300) for node in expression.nodes()}
    assert {node.constant for node in paper if node.constant is not None} == {1.0}


def test_the_expression_is_the_last_step_and_what_it_reaches() -> None:
    searcher = make()
    add, mul, neg = (SMALL.operators.index(name) for name in ("add", "mul", "neg"))
    row = np.array([[neg, 1, -1], [mul, 0, 1], [neg, 1, -1], [add, 4, 0]])
    # the first and the third step are not reached
    assert searcher._expression(row) is SMALL.parse("clamped(add(mul(pred, label), pred))")
    shared = np.array([[mul, 0, 1], [neg, 3, -1], [add, 3, 4], [mul, 5, 3]])
    assert searcher._expression(shared).size == 4


def test_samples_collect_until_there_are_enough_for_an_update() -> None:
    searcher = make()
    before = weights(searcher)
    rounds(searcher, [9])
    assert torch.equal(weights(searcher), before)
    rounds(searcher, [1])
    assert not torch.equal(weights(searcher), before)


def test_grouping_of_evaluations_does_not_matter() -> None:
    whole, parts = make(), make()
    asked = whole.ask(25)
    assert parts.ask(25) == asked
    evaluations = [trained(expression, product_of_both(expression)) for expression in asked]
    whole.tell(evaluations)
    for start in range(0, 25, 7):
        parts.tell(evaluations[start : start + 7])
    assert torch.equal(weights(whole), weights(parts))
    assert whole.baseline == parts.baseline
    assert whole.ask(10) == parts.ask(10)


def test_failures_and_duplicates_are_samples() -> None:
    searcher = make()
    before = weights(searcher)
    evaluations: list[Evaluation] = []
    for i, expression in enumerate(searcher.ask(10)):
        if i % 2:
            evaluations.append(Evaluation(expression, Status.REJECTED, reason="zero gradient"))
        else:
            evaluations.append(Evaluation(expression, Status.DUPLICATE, reward=0.7, duplicate_of="pred"))
    searcher.tell(evaluations)
    assert not torch.equal(weights(searcher), before)
    assert searcher.baseline is not None
    assert 0.0 < searcher.baseline < 0.75


def test_evaluations_never_asked_for_move_the_baseline_only() -> None:
    searcher = make()
    before, state = weights(searcher), searcher.state_dict()["state"]
    known = SMALL.parse("clamped(neg(mul(label, log(pred))))")
    searcher.tell([trained(known, 0.8)] * 20)
    assert torch.equal(weights(searcher), before)
    assert searcher.baseline == pytest.approx(0.8)
    searcher.tell([trained(known, 0.7)])
    assert searcher.baseline == pytest.approx(0.799)
    after = searcher.state_dict()["state"]
    assert np.array_equal(after["generator"], state["generator"])
    assert len(after["samples"]) == 0


def test_an_evaluation_answers_one_proposal_only() -> None:
    searcher = make()
    asked = searcher.ask(9)
    searcher.tell([trained(expression, 0.5) for expression in asked])
    assert not searcher.state_dict()["state"]["pending"].size
    searcher.tell([trained(asked[0], 0.5)])
    assert len(searcher.state_dict()["state"]["samples"]) == 9


@pytest.mark.parametrize("told", [0, 4, 10, 17, 30])
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(told: int) -> None:
    searcher = make(Grammar.standard(), seed=3)
    rounds(searcher, [13, 20])
    asked = searcher.ask(30)
    evaluations = [trained(expression, product_of_both(expression)) for expression in asked]
    searcher.tell(evaluations[:told])
    state = searcher.state_dict()
    copy = make(Grammar.standard(), seed=99)
    copy.load_state_dict(state)
    for some in (searcher, copy):
        some.tell(evaluations[told:])
    assert rounds(searcher, [11, 30]) == rounds(copy, [11, 30])
    assert searcher.baseline == copy.baseline
    assert torch.equal(weights(searcher), weights(copy))


def test_a_state_is_json_and_arrays_and_does_not_change_later() -> None:
    searcher = make()
    rounds(searcher, [14])

    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            return [leaf for part in value.values() for leaf in leaves(part)]
        if isinstance(value, list):
            return [leaf for part in value for leaf in leaves(part)]
        return [value]

    before = leaves(searcher.state_dict())
    assert all(leaf is None or isinstance(leaf, str | int | float | np.ndarray) for leaf in before)
    copies = [np.array(leaf) for leaf in before]
    rounds(searcher, [25])
    assert all(np.array_equal(leaf, copy) for leaf, copy in zip(before, copies, strict=True))


def test_a_fresh_state_can_be_loaded_over_a_used_one() -> None:
    fresh, used = make(seed=1), make(seed=2)
    rounds(used, [25])
    used.load_state_dict(fresh.state_dict())
    assert rounds(used, [20, 10]) == rounds(fresh, [20, 10])


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="another size"):
        make(hidden_size=32).load_state_dict(make().state_dict())


def test_proposals_depend_on_the_seed_alone() -> None:
    first = rounds(make(seed=5), [20, 20])
    torch.rand(5)
    assert rounds(make(seed=5), [20, 20]) == first
    assert rounds(make(seed=6), [20, 20]) != first


def test_global_random_states_are_left_alone() -> None:
    def states() -> tuple[object, ...]:
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), str(numpy_state)

    before = states()
    searcher = make()
    rounds(searcher, [30])
    searcher.load_state_dict(searcher.state_dict())
    assert states() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"samples_per_update": 0}, "samples_per_update must be at least 1, got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"entropy_weight": float("nan")}, "entropy_weight must be finite, got nan"),
        ({"baseline_decay": 1.5}, r"baseline_decay must lie between 0 and 1, got 1\.5"),
        ({"gradient_norm": -1}, "gradient_norm must be above 0, got -1"),
        ({"constants": [0.5, "e"]}, "each of constants must be a number, got 'e'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make(**settings)


def test_numbers_of_numpy_are_like_those_of_python() -> None:
    numbers = {"learning_rate": 0.25, "entropy_weight": 0.5, "baseline_decay": 0.75, "gradient_norm": 4.0}
    of_numpy = make(constants=np.array([0.5, 2.0]), **{name: np.float32(one) for name, one in numbers.items()})
    assert of_numpy.settings() == make(**numbers).settings()


@pytest.mark.parametrize("centred", [False, True])
def test_it_learns(centred: bool) -> None:
    searcher = make(centred=centred)
    rewards = [product_of_both(expression) for asked in rounds(searcher, [100] * 35) for expression in asked]
    assert np.mean(rewards[-500:]) > np.mean(rewards[:500]) + 0.25


def test_a_run_that_stops_and_goes_on_equals_one_that_does_not(tmp_path: Path) -> None:
    whole = make(Grammar.standard()).run(budget=60, progress=False)
    make(Grammar.standard()).run(budget=25, checkpoint=tmp_path / "state", progress=False)
    resumed = make(Grammar.standard()).run(budget=60, checkpoint=tmp_path / "state", progress=False)
    columns = ["step", "expression", "status", "reward", "duplicate_of"]
    assert resumed.evaluations[columns].equals(whole.evaluations[columns])
    assert whole.counts["trained"] == 60
    assert whole.counts["duplicates"] > 0
    assert whole.best is not None
