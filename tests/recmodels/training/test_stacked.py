"""The stacked trainer: the contract, stacks that cannot be seen, devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gploss.compute.program import Program
from recmodels.models.base import ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.stacked.stack import Stack
from recmodels.training.stacked.trainer import STACK_SIZE, StackedTrainer
from recmodels.training.trainer import Member, Outcome, State
from tests.recmodels.training.cases import (
    ALL,
    PAPER_LONG,
    PROBLEM,
    STANDARD_LONG,
    assert_same,
    assert_same_states,
    member,
    members_of,
    mf_for,
    program_of,
)
from tests.recmodels.training.modules import MODULES, TWO_METRICS
from tests.recmodels.training.trainer_contract import TrainerContract


class TestStackedTrainer(TrainerContract):
    def trainer(
        self,
        protocol: Protocol,
        *,
        model: ModelFactory | None = None,
        group: int | None = None,
    ) -> StackedTrainer:
        size = STACK_SIZE if group is None else group
        return StackedTrainer(model or MF, protocol, device="cpu", stack_size=size)


DEEP: dict[str, ModelFactory] = {
    "usual": functools.partial(DeepModel, embedding_size=8),
    "odd": functools.partial(DeepModel, embedding_size=5, layers=(64,)),
    "odder": functools.partial(DeepModel, embedding_size=17, layers=(33, 1)),
}


def fit_deep(name: str, protocol: Protocol, members: Sequence[Member], size: int, **options: Any) -> Any:
    trainer = StackedTrainer(DEEP[name], protocol, device="cpu", stack_size=size)
    return trainer.fit(program_of(ALL, protocol), members, TWO_METRICS, keep="last", **options)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("batch_size", [128, 333, 2000])
def test_stack_sizes_cannot_be_seen_in_a_deep_model(name: str, batch_size: int) -> None:
    protocol = dataclasses.replace(STANDARD_LONG, batch_size=batch_size)
    members = members_of(7, protocol)
    reports = [fit_deep(name, protocol, members, size, epochs=1) for size in (1, 3, 32)]
    assert_same(reports[0], reports[1])
    assert_same(reports[0], reports[2])
    backwards = fit_deep(name, protocol, members[::-1], 4, epochs=1)
    assert_same(reports[0], backwards, range(6, -1, -1))


def test_members_that_stop_cannot_be_seen_in_a_deep_model() -> None:
    protocol = dataclasses.replace(STANDARD, learning_rate=0.3, patience=1)
    members = members_of(6, protocol)
    together = fit_deep("usual", protocol, members, 32, epochs=5)
    assert len(set(together.stopped_at.tolist())) > 1
    for k, one in enumerate(members):
        assert_same(fit_deep("usual", protocol, [one], 32, epochs=5), together, [k])


def test_threads_cannot_be_seen_in_a_deep_model() -> None:
    before = torch.get_num_threads()
    reports = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            reports.append(fit_deep("usual", STANDARD_LONG, members_of(3, STANDARD), 32, epochs=1))
    finally:
        torch.set_num_threads(before)
    assert_same(*reports)


def test_a_diverged_deep_model_leaves_its_neighbours_as_they_were() -> None:
    members = members_of(3, STANDARD)
    alone = fit_deep("usual", STANDARD_LONG, members, 32, epochs=2)
    poisoned = [members[0], member(0, 0, 1e38, 0.0), *members[1:]]
    together = fit_deep("usual", STANDARD_LONG, poisoned, 32, epochs=2)
    assert together.outcomes[1] is Outcome.DIVERGED
    assert_same(alone, together, [0, 2, 3])


@pytest.mark.parametrize("protocol", [STANDARD_LONG, PAPER_LONG], ids=lambda protocol: protocol.name)
def test_a_deep_model_goes_on_as_if_it_had_never_stopped(protocol: Protocol) -> None:
    members = members_of(3, protocol)
    at_once = fit_deep("usual", protocol, members, 32, epochs=3)
    first = fit_deep("usual", protocol, members, 32, epochs=1)
    second = fit_deep("usual", protocol, members, 32, epochs=2, start=first.states)
    assert_same_states(at_once.states, second.states)


def test_no_stack_is_larger_than_the_stack_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    original = Stack.__init__

    def counting(self: Stack, module: nn.Module, count: int, *rest: Any, **named: Any) -> None:
        counts.append(count)
        original(self, module, count, *rest, **named)

    trainer = StackedTrainer(mf_for(STANDARD), STANDARD, device="cpu", stack_size=4)
    trainer.plan(PROBLEM.batches(0, 0, {"batch_size": 128}))
    monkeypatch.setattr(Stack, "__init__", counting)
    report = trainer.fit(program_of(ALL, STANDARD), members_of(11, STANDARD, seeds=2), PROBLEM, 1, keep="last")
    assert sorted(counts) == [1, 2, 4, 4]
    counts.clear()
    assert report.states is not None
    trainer.predict(report.states, PROBLEM.rows("validation"))
    assert sorted(counts) == [1, 2, 4, 4]


def test_one_stack_lives_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    living: list[int] = []
    count = 0
    original = Stack.__init__

    def counting(self: Stack, *arguments: Any, **named: Any) -> None:
        nonlocal count
        original(self, *arguments, **named)
        count += 1
        living.append(count)

    def ending(self: Stack) -> None:
        nonlocal count
        count -= 1

    monkeypatch.setattr(Stack, "__init__", counting)
    monkeypatch.setattr(Stack, "__del__", ending, raising=False)
    trainer = StackedTrainer(mf_for(STANDARD), STANDARD, device="cpu", stack_size=2)
    trainer.fit(program_of(ALL, STANDARD), members_of(8, STANDARD), PROBLEM, 1)
    assert max(living) <= 2  # the next one is made before the last one's name is taken over


def test_the_stack_size_is_checked() -> None:
    with pytest.raises(ValueError, match="stack_size must be at least 1"):
        StackedTrainer(MF, STANDARD, device="cpu", stack_size=0)


@pytest.mark.parametrize("name", ["MF", "DeepModel", "UsedTwice"])
@pytest.mark.parametrize("protocol", [STANDARD_LONG, PAPER_LONG], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_gives_what_the_cpu_gives(device: str, name: str, protocol: Protocol) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device here")
    factory = (MODULES | {"MF": mf_for(protocol), "DeepModel": MODULES["DeepModel without dropout"]})[name]
    program, members = program_of(ALL, protocol), members_of(3, protocol, losses=2)
    first, second = (
        StackedTrainer(factory, protocol, device=which).fit(program, members, TWO_METRICS, 2, keep="last")
        for which in ("cpu", device)
    )
    np.testing.assert_allclose(first.metrics["auc"], second.metrics["auc"], atol=2e-3)
    np.testing.assert_allclose(first.metrics["logloss"], second.metrics["logloss"], rtol=1e-3)
    assert first.states is not None and second.states is not None
    for weight_name, weight in first.states.weights.items():
        assert second.states.weights[weight_name].device.type == "cpu"
        torch.testing.assert_close(second.states.weights[weight_name], weight, rtol=1e-2, atol=1e-3)


def test_states_take_and_join() -> None:
    trainer = StackedTrainer(mf_for(STANDARD), STANDARD, device="cpu")
    program: Program = program_of(ALL, STANDARD)
    states = trainer.fit(program, members_of(4, STANDARD), PROBLEM, 1, keep="last").states
    assert states is not None and len(states) == 4
    swapped = State.join([states.take([3, 1]), states.take([0])])
    assert len(swapped) == 3
    assert_same_states(swapped.take([0, 2]), states.take([3, 0]))
