from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.search.evaluation import Evaluation, Status
from gploss.search.reward import BaselineFilter, Reward, parsimonious

PRED = Expression.parse("pred")
rewards = st.floats(-5, 5)


def trained(reward: float) -> Evaluation:
    return Evaluation(PRED, Status.TRAINED, reward=reward)


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1), st.integers(1, 10), st.booleans())
def test_the_reward_is_the_best_of_the_first_epochs(values: list[float], epochs: int, higher: bool) -> None:
    reward = Reward("x", higher_is_better=higher)
    first = np.array(values[:epochs])
    if np.isnan(first).all():
        with pytest.raises(ValueError, match="no finite value within"):
            reward.of({"x": values}, epochs)
    else:
        assert reward.of({"x": values}, epochs) == (np.nanmax(first) if higher else np.nanmin(first))


def test_a_reward_needs_its_metric_and_an_epoch() -> None:
    with pytest.raises(ValueError, match=r"no metric 'auc'.*\['gauc', 'rmse'\]"):
        Reward("auc").of({"rmse": [1.0], "gauc": [0.5]}, 1)
    with pytest.raises(ValueError, match="at least 1 epoch"):
        Reward("auc").of({"auc": [0.5]}, 0)
    with pytest.raises(ValueError, match="finite"):
        Reward("auc", failure=math.nan)


@given(rewards, rewards)
def test_higher_values_are_better_in_either_direction(left: float, right: float) -> None:
    auc, rmse = Reward("auc"), Reward("rmse", higher_is_better=False)
    assert (left > right) == (auc.value(trained(left)) > auc.value(trained(right)))
    assert (left > right) == (rmse.value(trained(left)) < rmse.value(trained(right)))


@pytest.mark.parametrize("status", [Status.REJECTED, Status.DIVERGED])
def test_one_policy_says_what_failure_is_worth(status: Status) -> None:
    failed = Evaluation(PRED, status, reason="non-finite")
    assert Reward("auc").value(failed) == 0.0
    assert Reward("auc", failure=-0.5).value(failed) == -0.5
    rmse = Reward("rmse", higher_is_better=False)
    assert rmse.value(failed) < rmse.value(trained(1.2))


def test_a_duplicate_is_worth_what_the_first_one_was() -> None:
    duplicate = Evaluation(PRED, Status.DUPLICATE, reward=0.7, duplicate_of="neg(neg(pred))")
    assert Reward("auc").value(duplicate) == 0.7


def test_parsimony_takes_the_weight_for_each_node() -> None:
    assert parsimonious(0.75, 10, 0.01) == pytest.approx(0.65)
    assert parsimonious(0.75, 10, 0.0) == 0.75


@given(st.lists(rewards, max_size=30), rewards | st.none(), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_the_filter_follows_the_papers_code(values: list[float], start: float | None, decay: float) -> None:
    reward_filter = BaselineFilter(start, decay)
    baseline, turned_down = start, 0
    for value in values:
        if baseline is None:
            baseline = value
        if value < baseline - 1e-5:
            expected = -1.0
            turned_down += 1
        else:
            expected = value
            baseline -= (1 - decay) * (baseline - value)
        assert reward_filter(value) == expected
        assert (reward_filter.baseline, reward_filter.turned_down) == (baseline, turned_down)


@given(st.lists(rewards), st.lists(rewards))
def test_a_filter_goes_on_from_its_state(before: list[float], after: list[float]) -> None:
    first, second = BaselineFilter(), BaselineFilter()
    for value in before:
        first(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [first(value) for value in after] == [second(value) for value in after]
    assert first.state_dict() == second.state_dict()


def test_a_filter_for_negative_values_has_its_own_worst() -> None:
    reward_filter = BaselineFilter(-0.9, turned_down_value=-10.0)
    assert [reward_filter(-1.1), reward_filter(-0.8)] == [-10.0, -0.8]
    assert reward_filter.describe() == {"start": -0.9, "decay": 0.99, "turned_down_value": -10.0}


@pytest.mark.parametrize("arguments", [{"start": math.nan}, {"decay": 1.5}, {"turned_down_value": -math.inf}])
def test_a_filter_refuses_arguments_that_make_no_sense(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        BaselineFilter(**arguments)
    with pytest.raises(ValueError, match="finite"):
        BaselineFilter()(math.nan)
