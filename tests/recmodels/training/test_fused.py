"""The fused trainer: the contract, agreement with the stacked trainer, Adam, threads, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gploss.language.expression import Expression
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.fused import trainer as fused
from recmodels.training.fused.orders import Orders
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, Outcome, TrainReport
from tests.pointwise import compiled
from tests.recmodels.training.cases import (
    ALL,
    LOSSES,
    PAPER_LONG,
    PROBLEM,
    PROTOCOLS,
    SCHEMA,
    SPLIT,
    STANDARD_LONG,
    assert_same,
    batches_of,
    member,
    members_of,
    mf_for,
    program_of,
    reference_scores,
)
from tests.recmodels.training.trainer_contract import TrainerContract

ADAM = dataclasses.replace(STANDARD_LONG, name="adam", optimizer="adam", learning_rate=0.01, weight_decay=1e-3)


class TestFusedTrainer(TrainerContract):
    def trainer(
        self,
        protocol: Protocol,
        *,
        model: ModelFactory | None = None,
        group: int | None = None,
    ) -> FusedTrainer:
        return FusedTrainer(model or MF, protocol, n_jobs=group)


def fit(
    protocol: Protocol, members: Sequence[Member], *, n_jobs: int = 1, epochs: int = 2, **options: Any
) -> TrainReport:
    trainer = FusedTrainer(mf_for(protocol), protocol, n_jobs=n_jobs)
    return trainer.fit(program_of(ALL, protocol), members, PROBLEM, epochs, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_it_agrees_with_the_stacked_trainer_and_takes_its_states(protocol: Protocol) -> None:
    members = members_of(5, protocol, seeds=2)
    program = program_of(ALL, protocol)
    arguments = (program, members, PROBLEM)
    stacked = StackedTrainer(mf_for(protocol), protocol, device="cpu")
    trainer = FusedTrainer(mf_for(protocol), protocol)
    first = trainer.fit(*arguments, 1, keep="last")
    other_first = stacked.fit(*arguments, 1, keep="last")
    assert first.states is not None and other_first.states is not None
    second = trainer.fit(*arguments, 1, start=other_first.states, keep="last")
    other_second = stacked.fit(*arguments, 1, start=first.states, keep="last")
    for mine, other in ((first, other_first), (second, other_second)):
        assert mine.states is not None and other.states is not None
        np.testing.assert_allclose(mine.metrics["auc"], other.metrics["auc"], atol=5e-5)
        for name, weight in other.states.weights.items():
            assert mine.states.weights[name].shape == weight.shape
            assert float((mine.states.weights[name] - weight).norm() / weight.norm()) < 2e-5, name
        assert mine.states.optimizer.keys() == other.states.optimizer.keys()
        for name, accumulator in other.states.optimizer.items():
            torch.testing.assert_close(mine.states.optimizer[name], accumulator, rtol=1e-3, atol=1e-8)
    test = PROBLEM.rows("test")
    np.testing.assert_allclose(
        trainer.predict(first.states, test), stacked.predict(first.states, test), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("size", [1, 16, 20])
def test_vectors_of_any_length_are_trained(size: int) -> None:
    model = functools.partial(MF, embedding_size=size)
    arguments = (program_of(ALL, STANDARD), members_of(3, STANDARD), PROBLEM, 2)
    mine = FusedTrainer(model, STANDARD_LONG).fit(*arguments, keep="last")
    other = StackedTrainer(model, STANDARD_LONG, device="cpu").fit(*arguments, keep="last")
    assert mine.states is not None and other.states is not None
    for name, weight in other.states.weights.items():
        assert float((mine.states.weights[name] - weight).norm() / weight.norm()) < 1e-5, name


def adam_reference(loss: str, multiplier: float, member: Member, epochs: int) -> dict[str, torch.Tensor]:
    """Plain loops in float64; each row counts its own steps."""
    train = SPLIT.train
    module = build_model(mf_for(ADAM), SCHEMA, member.seed)
    weights = {name: weight.detach().double() for name, weight in module.named_parameters()}
    first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    steps = {name: torch.zeros(weight.shape[:1]).double() for name, weight in weights.items()}
    rate, decay = member.settings["learning_rate"], member.settings["weight_decay"]
    for epoch in range(epochs):
        for rows in batches_of(member.seed, epoch, len(train), ADAM.batch_size):
            users, items = torch.tensor(train.users[rows]), torch.tensor(train.items[rows])
            leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
            values = LOSSES[loss][1](
                reference_scores(leaves, users, items), torch.tensor(train.labels[rows]).double()
            )
            gradients = torch.autograd.grad(multiplier * values.mean(), list(leaves.values()))
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                touched = {"user": users.unique(), "item": items.unique()}.get(name[:4], ...)
                own = gradient[touched] + decay * weight[touched]
                steps[name][touched] += 1
                t = steps[name][touched].reshape(-1, *[1] * (weight.ndim - 1)) if weight.ndim else steps[name]
                first[name][touched] = 0.9 * first[name][touched] + 0.1 * own
                second[name][touched] = 0.999 * second[name][touched] + 0.001 * own**2
                root = (second[name][touched] / (1 - 0.999**t)).sqrt()
                weight[touched] -= rate * (first[name][touched] / (1 - 0.9**t)) / (root + 1e-8)
    return weights


@pytest.mark.parametrize("loss", LOSSES)
def test_adam_equals_a_plain_float64_loop(loss: str) -> None:
    own = member(ALL.index(loss), 3, ADAM.learning_rate, ADAM.weight_decay)
    report = fit(ADAM, [own], keep="last")
    expected = adam_reference(loss, float(program_of(ALL, ADAM).multipliers[own.loss]), own, epochs=2)
    assert report.states is not None
    for name, weight in expected.items():
        found = report.states.weights[name][0].double()
        assert float((found - weight).norm() / weight.norm()) < 1e-5, name


def test_adam_goes_on_where_it_stopped() -> None:
    members = members_of(3, ADAM, seeds=2)
    whole = fit(ADAM, members, epochs=3, keep="last")
    half = fit(ADAM, members, epochs=1, keep="last")
    rest = fit(ADAM, members, epochs=2, start=half.states, keep="last")
    np.testing.assert_array_equal(whole.metrics["auc"][:, 1:], rest.metrics["auc"])
    assert whole.states is not None and rest.states is not None
    for name, tensor in whole.states.optimizer.items():
        assert torch.equal(tensor, rest.states.optimizer[name])


def test_adam_is_not_for_the_stacked_trainer() -> None:
    trainer = StackedTrainer(mf_for(ADAM), ADAM, device="cpu")
    with pytest.raises(ValueError, match="fused"):
        trainer.fit(program_of(ALL, ADAM), members_of(1, ADAM), PROBLEM, 1)


@pytest.mark.parametrize("protocol", [STANDARD, PAPER, ADAM], ids=lambda protocol: protocol.name)
def test_threads_and_neighbours_cannot_be_seen(protocol: Protocol) -> None:
    members = members_of(12, protocol, seeds=3)
    members[4] = member(members[4].loss, members[4].seed, 1e38, 0.0)
    one = fit(protocol, members, epochs=5, keep="last")
    assert one.outcomes[4] is Outcome.DIVERGED
    for n_jobs in (2, 5, 40):
        assert_same(one, fit(protocol, members, epochs=5, keep="last", n_jobs=n_jobs))
    alone = fit(protocol, [members[7]], epochs=5, keep="last")
    assert_same(alone, one, [7])


def test_epochs_measured_together_or_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    members = members_of(4, PAPER_LONG)
    together = fit(PAPER_LONG, members, epochs=5)
    monkeypatch.setattr(fused, "_SCORES_AT_A_TIME", 2 * len(SPLIT.validation))
    assert_same(together, fit(PAPER_LONG, members, epochs=5))
    monkeypatch.setattr(fused, "_SCORES_AT_A_TIME", 1)
    assert_same(together, fit(PAPER_LONG, members, epochs=5))


def test_an_error_in_one_member_ends_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Orders, epoch: int) -> None:
        raise MemoryError("too little")

    monkeypatch.setattr(Orders, "of", fail)
    monkeypatch.setattr(FusedTrainer, "prepare", lambda self, losses, layout: None)
    with pytest.raises(MemoryError, match="too little"):
        fit(PAPER, members_of(9, PAPER), n_jobs=2)


def test_a_trainer_can_be_sent_to_another_process() -> None:
    trainer = FusedTrainer(mf_for(PAPER), PAPER)
    arguments = (program_of(ALL, PAPER), members_of(2, PAPER), PROBLEM, 2)
    report = trainer.fit(*arguments)
    assert_same(report, pickle.loads(pickle.dumps(trainer)).fit(*arguments))  # noqa: S301


def test_progress_adds_up_to_all_epochs() -> None:
    done: list[int] = []
    fit(
        dataclasses.replace(STANDARD, patience=1), members_of(5, STANDARD), epochs=4, n_jobs=2, progress=done.append
    )
    assert sum(done) == 5 * 4


def test_denormals_are_flushed_in_training_only() -> None:
    tiny = member(0, 0, 1e-3, 0.0)
    program = compiled([Expression.parse("mul(logit, 1e-37)")])
    trainer = FusedTrainer(mf_for(PAPER_LONG), dataclasses.replace(PAPER_LONG, batch_size=2), n_jobs=1)
    start = trainer.fit(program, [tiny], PROBLEM, 1, keep="last").states
    assert start is not None
    weights = {name: torch.zeros_like(weight) for name, weight in start.weights.items()}
    zero = dataclasses.replace(start, weights=weights)
    report = trainer.fit(program, [tiny], PROBLEM, 1, start=zero, keep="last")
    assert report.states is not None
    assert not report.states.weights["user_bias.weight"].any()  # steps of 5e-41
    assert np.float32(1e-30) * np.float32(1e-10) > 0  # this thread counts in denormals as before


class MoreThanMF(MF):
    def forward(self, batch: Batch) -> torch.Tensor:
        return 2 * super().forward(batch)


def frozen(n_users: int, n_items: int) -> MF:
    model = MF(n_users, n_items)
    model.global_bias.requires_grad_(False)
    return model


def never_called(n_users: int, n_items: int) -> MF:
    raise AssertionError("with numbers that are not the data's")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (DeepModel, "DeepModel has other weights"),
        (MoreThanMF, "is not trained to the same values"),
        (frozen, "global_bias is not to be trained"),
    ],
)
def test_other_models_are_refused(model: ModelFactory, reason: str) -> None:
    trainer = FusedTrainer(model, STANDARD)
    with pytest.raises(ValueError, match=rf"\(MF\).*{reason}.*StackedTrainer"):
        trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), PROBLEM, 1)


def test_a_trainer_is_made_without_a_call_of_the_factory() -> None:
    FusedTrainer(never_called, STANDARD)


@pytest.mark.parametrize(("options", "message"), [({"device": "cuda"}, "CPU"), ({"n_jobs": 0}, "n_jobs")])
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedTrainer(MF, STANDARD, **options)


def test_states_of_another_optimizer_are_refused() -> None:
    start = fit(PAPER, members_of(2, PAPER), keep="last").states
    with pytest.raises(ValueError, match="optimizer"):
        fit(STANDARD, members_of(2, STANDARD), start=start)


def test_a_trainer_can_be_copied() -> None:
    assert copy.deepcopy(FusedTrainer(MF, PAPER)).protocol is not None
