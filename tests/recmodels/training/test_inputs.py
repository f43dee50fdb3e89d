"""Weights of examples, and inputs of a user's own, as both trainers of the CPU train with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gploss.language.expression import Expression
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.screening.screening import screen
from gploss.tasks import Input, Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.problem import Problem
from recmodels.training.protocol import Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import State, Trainer
from tests.recmodels.training.cases import (
    ALL,
    PAPER_LONG,
    PROBLEM,
    PROTOCOLS,
    SPLIT,
    member,
    mf_for,
    program_of,
    reference_training,
)

TRAINERS: dict[str, Callable[..., Trainer]] = {
    "fused": FusedTrainer,
    "stacked": functools.partial(StackedTrainer, device="cpu"),
}
each_trainer = pytest.mark.parametrize("make", TRAINERS.values(), ids=TRAINERS.keys())


def weighted(weights: npt.ArrayLike) -> Split:
    ones = {part: replace(rows, weights=np.ones(len(rows))) for part, rows in SPLIT.parts().items()}
    return Split("weighted", replace(SPLIT.train, weights=weights), ones["validation"], ones["test"])  # type: ignore[arg-type]


def train(make: Callable[..., Trainer], text: str, problem: Problem, protocol: Protocol = PAPER_LONG) -> State:
    program = screen([Expression.parse(text)], problem.task, scale_free=protocol.scale_free).losses
    trainer = make(mf_for(protocol), protocol)
    report = trainer.fit(program, [member(0, 1, 0.3, 0.001)], problem, 2, keep="last")
    assert report.states is not None
    return report.states


def assert_near(first: State, second: State) -> None:
    for name, weight in first.weights.items():
        assert float((weight - second.weights[name]).norm() / weight.norm()) < 1e-5, name


@each_trainer
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_weights_multiply_each_examples_loss(make: Callable[..., Trainer], protocol: Protocol) -> None:
    split = weighted(np.random.default_rng(0).exponential(size=len(SPLIT.train)) * 7)
    members = [member(row, 3, protocol.learning_rate, protocol.weight_decay) for row in (0, 2)]
    program = program_of(ALL, protocol)
    trainer = make(mf_for(protocol), protocol)
    report = trainer.fit(program, members, PointwiseProblem(split), 1, keep="last")
    assert report.states is not None
    for k, one in enumerate(members):
        multiplier = float(program.multipliers[one.loss])
        expected = reference_training(ALL[one.loss], multiplier, one, protocol, split.train)
        for name, weight in expected.items():
            found = report.states.weights[name][k].double()
            assert float((found - weight).norm() / weight.norm()) < 1e-5, name


@each_trainer
def test_a_loss_can_weigh_by_itself(make: Callable[..., Trainer]) -> None:
    weights = np.random.default_rng(0).exponential(size=len(SPLIT.train))
    mean = weights.mean()

    def own(rows: Interactions, train: Interactions) -> npt.NDArray[Any]:
        return weights / mean if rows is train else np.ones(len(rows))

    by_data = train(make, "square(label - pred)", PointwiseProblem(weighted(weights)))
    by_loss = train(make, "weight * square(label - pred)", PointwiseProblem(SPLIT, inputs={"weight": own}))
    assert_near(by_data, by_loss)


@each_trainer
def test_equal_weights_are_none(make: Callable[..., Trainer]) -> None:
    text = "square(label - pred)"
    assert_near(
        train(make, text, PointwiseProblem(weighted(np.full(len(SPLIT.train), 3.0)))), train(make, text, PROBLEM)
    )


@pytest.fixture
def rarity() -> Iterator[Task]:
    """A task with an input and a terminal of a user's own: how rare the item is."""
    register_terminal(terminal("rarity", "1 / (1 + rare)", ("rare",)))
    yield POINTWISE.with_input(Input("rare", tuple(np.linspace(0.1, 3, len(POINTWISE.inputs[0].probes)))), "rarity")
    TERMINALS.unregister("rarity")


def counts(rows: Interactions, train: Interactions) -> npt.NDArray[Any]:
    return np.bincount(train.items, minlength=train.n_items)[rows.items] / 50


@each_trainer
def test_an_input_of_a_users_own_is_trained_with(make: Callable[..., Trainer], rarity: Task) -> None:
    problem = PointwiseProblem(SPLIT, task=rarity, inputs={"rare": counts})
    by_input = train(make, "rarity * square(label - pred)", problem)
    factors = 1 / (1 + counts(SPLIT.train, SPLIT.train))
    by_weights = train(make, f"{factors.mean():.9f} * square(label - pred)", PointwiseProblem(weighted(factors)))
    assert_near(by_input, by_weights)


@each_trainer
def test_an_input_that_is_not_there_is_told_before_training(make: Callable[..., Trainer], rarity: Task) -> None:
    with pytest.raises(DataError, match="losses read the input 'rare', which the train part lacks; it has label"):
        train(make, "rarity * square(label - pred)", PointwiseProblem(SPLIT, task=rarity))
