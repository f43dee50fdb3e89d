"""The stacked trainer: the contract, any module against a plain torch loop, memory, devices."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from gploss.compute.program import Program
from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked import trainer as stacked
from recmodels.training.stacked.stack import Stack
from recmodels.training.stacked.trainer import STACK_SIZE, StackedTrainer
from recmodels.training.trainer import Member, Outcome, State
from tests.recmodels.training.trainer_contract import (
    ALL,
    LOSSES,
    PAPER_LONG,
    PROBLEM,
    SCHEMA,
    SPLIT,
    STANDARD_LONG,
    TrainerContract,
    assert_same,
    assert_same_states,
    batches_of,
    member,
    members_of,
    mf_for,
    program_of,
)

TWO_METRICS = PointwiseProblem(SPLIT, ("auc", "logloss"))


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


# Any module: each of these looks its tables up in another way.


class DotProduct(nn.Module):
    """Base of the models below: rows of two tables, multiplied."""

    def __init__(self, n_users: int, n_items: int, **options: Any) -> None:
        super().__init__()
        self.user = nn.Embedding(n_users, 6, **options)
        self.item = nn.Embedding(n_items, 6, **options)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) * self.item(batch.item)).sum(-1)
        return scores


class UsedTwice(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.user(batch.user).sum(-1)
        return scores


class Tied(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.other = nn.Embedding(n_users, 6)
        self.other.weight = self.user.weight

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.other(batch.item % 40).tanh().sum(-1)
        return scores


class OneTableUnderTwoNames(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.again = self.user

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.again(batch.user) * self.item(batch.item)).sum(-1)
        return scores


class DerivedIds(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user // 2) * self.item(batch.item)).sum(-1)
        return scores


class SwappedIds(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.item(batch.user) * self.user(batch.item % 40)).sum(-1)
        return scores


class KeywordArgument(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(input=batch.user) * self.item(batch.item)).sum(-1)
        return scores


class WeightReadToo(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.user.weight.square().sum(-1).mean()
        return scores


class LookedUpByFunction(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (nn.functional.embedding(batch.user, self.user.weight) * self.item(batch.item)).sum(-1)
        return scores


class LookedUpBothWays(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + nn.functional.embedding(batch.user, self.user.weight).mean(-1)
        return scores


class AsksForTheDevice(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + torch.ones(1, device=self.user.weight.device)
        return scores


class TwiceInTraining(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores + self.item(batch.item).sum(-1) if self.training else scores


class ScaledTable(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = 3 * super().forward(ids)
        return scores


class OwnTable(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.user = ScaledTable(n_users, 6)


class Hooked(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.user.register_forward_hook(lambda module, arguments, rows: rows * 0.5)


class BareParameters(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.randn(n_users, 6))
        self.items = nn.Parameter(torch.randn(n_items, 6))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.users[batch.user] * self.items[batch.item]).sum(-1)
        return scores


class NoTables(nn.Module):
    """Linear layers on features that are buffers, one layer used twice, and batch norm without a scale."""

    user_features: Tensor
    item_features: Tensor

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.register_buffer("user_features", torch.randn(n_users, 5))
        self.register_buffer("item_features", torch.randn(n_items, 5))
        self.shared = nn.Linear(5, 7, bias=False)
        self.norm = nn.BatchNorm1d(7, affine=False)
        self.output = nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 1))

    def forward(self, batch: Batch) -> Tensor:
        joined = self.shared(self.user_features[batch.user]) * self.shared(self.item_features[batch.item])
        scores: Tensor = self.output(self.norm(joined)).squeeze(-1)
        return scores


class Frozen(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.item.weight.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) * self.scale.sum()
        return scores


class UnusedParts(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.never = nn.Embedding(5, 4)
        self.idle = nn.Linear(3, 3)


class Squeezed(DotProduct):
    """Breaks on batches of one row, as many people's models do."""

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) * self.item(batch.item)).sum(-1, keepdim=True).squeeze()
        return scores


class WithDropout(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        rows = nn.functional.dropout(self.user(batch.user), 0.3, self.training)
        scores: Tensor = (rows * self.item(batch.item)).sum(-1)
        return scores


class ThreeDimensions(DotProduct):
    """A linear layer on (B, 2, 6), as in attention."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.mix = nn.Linear(6, 3)

    def forward(self, batch: Batch) -> Tensor:
        pair = torch.stack([self.user(batch.user), self.item(batch.item)], dim=1)
        scores: Tensor = self.mix(pair).prod(1).sum(-1)
        return scores


MODULES: dict[str, ModelFactory] = {
    kind.__name__: kind
    for kind in (
        DotProduct,
        UsedTwice,
        Tied,
        OneTableUnderTwoNames,
        DerivedIds,
        SwappedIds,
        KeywordArgument,
        WeightReadToo,
        LookedUpByFunction,
        LookedUpBothWays,
        AsksForTheDevice,
        TwiceInTraining,
        OwnTable,
        Hooked,
        BareParameters,
        NoTables,
        Frozen,
        UnusedParts,
        Squeezed,
        WithDropout,
        ThreeDimensions,
    )
}
MODULES["padding_idx"] = functools.partial(DotProduct, padding_idx=3)
MODULES["max_norm"] = functools.partial(DotProduct, max_norm=1.5)
MODULES["scale_grad_by_freq"] = functools.partial(DotProduct, scale_grad_by_freq=True)
MODULES["DeepModel without dropout"] = functools.partial(DeepModel, embedding_size=8, dropout=0.0)
MODULES["DeepModel"] = functools.partial(DeepModel, embedding_size=8, initialization="paper")
MODULES["DeepModel of odd sizes"] = functools.partial(DeepModel, embedding_size=5, layers=(7, 3))


def plain_loop(
    factory: ModelFactory, loss: Callable[[Tensor, Tensor], Tensor], member: Member, protocol: Protocol, epochs: int
) -> nn.Module:
    """Train one module as torch's own documentation would, in float64: SGD, values clipped."""
    train = SPLIT.train
    module = build_model(factory, SCHEMA, member.seed).double().train()
    rate, decay = member.settings["learning_rate"], member.settings["weight_decay"]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate, weight_decay=decay)
    for epoch in range(epochs):
        batches = batches_of(member.seed, epoch, len(train), protocol.batch_size)
        seeds = np.random.SeedSequence((member.seed, 2, epoch)).generate_state(len(batches), np.uint64)
        for rows, seed in zip(batches, seeds, strict=True):
            torch.manual_seed(int(seed >> np.uint64(1)))
            scores = module(Batch(torch.tensor(train.users[rows]), torch.tensor(train.items[rows])))
            for parameter in trained:  # decay also where there is no gradient
                parameter.grad = torch.zeros_like(parameter)
            loss(scores, torch.tensor(train.labels[rows]).double()).mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_value_(trained, protocol.gradient_clip or np.inf)
            optimizer.step()
    return module.eval()


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # max_norm: slow, not wrong
@pytest.mark.parametrize("factory", MODULES.values(), ids=MODULES.keys())
def test_any_module_trains_as_in_a_plain_torch_loop(factory: ModelFactory) -> None:
    protocol = dataclasses.replace(PAPER_LONG, weight_decay=0.01, learning_rate=0.05)
    members = [member(0, 1, 0.05, 0.01), member(1, 1, 0.03, 0.02), member(0, 2, 0.05, 0.01)]
    program = program_of(ALL, protocol)
    trainer = StackedTrainer(factory, protocol, device="cpu")
    report = trainer.fit(program, members, TWO_METRICS, 2, keep="last")
    assert report.states is not None
    validation = Batch(torch.tensor(SPLIT.validation.users), torch.tensor(SPLIT.validation.items))
    for k, one in enumerate(members):
        expected = plain_loop(factory, LOSSES[ALL[one.loss]][1], one, protocol, epochs=2)
        found = {name: weight[k] for name, weight in report.states.weights.items()}
        named = dict(expected.named_parameters()) | dict(expected.named_buffers())
        assert found.keys() == named.keys()
        for name, weight in named.items():
            difference = (found[name].double() - weight.detach()).norm()
            assert float(difference) <= 1e-5 * float(weight.detach().double().norm()) + 1e-7, name
        with torch.no_grad():
            scores = expected(validation)
        auc = roc_auc_score(SPLIT.validation.labels, scores)
        assert report.metrics["auc"][k, 1] == pytest.approx(auc, abs=5e-5)
        predicted = torch.tensor(trainer.predict(report.states, PROBLEM.rows("validation"))[k]).double()
        torch.testing.assert_close(predicted, scores, rtol=1e-4, atol=1e-4)


def test_tables_are_handled_by_rows_only_where_nothing_is_lost() -> None:
    expected = {
        "DotProduct": {"user.weight": "user", "item.weight": "item"},
        "UsedTwice": {"item.weight": "item"},
        "Tied": {"item.weight": "item"},
        "OneTableUnderTwoNames": {"item.weight": "item"},
        "DerivedIds": {"item.weight": "item"},
        "SwappedIds": {"item.weight": "user"},
        "KeywordArgument": {"user.weight": "user", "item.weight": "item"},
        "WeightReadToo": {"item.weight": "item"},
        "LookedUpByFunction": {"item.weight": "item"},
        "LookedUpBothWays": {"item.weight": "item"},
        "AsksForTheDevice": {"user.weight": "user", "item.weight": "item"},
        "TwiceInTraining": {"user.weight": "user"},
        "OwnTable": {"item.weight": "item"},
        "Hooked": {"item.weight": "item"},
        "Frozen": {"user.weight": "user"},
        "padding_idx": {},
        "max_norm": {},
        "scale_grad_by_freq": {},
        "DeepModel": {"user_embedding.weight": "user", "item_embedding.weight": "item"},
    }
    for name, fields in expected.items():
        stack = StackedTrainer(MODULES[name], PAPER, device="cpu").new_stack(SCHEMA, 0, 2)
        assert stack.fields == fields, name
        assert stack.tables.keys() == fields.keys()


def test_frozen_parameters_stay_but_go_into_states() -> None:
    report = StackedTrainer(Frozen, PAPER_LONG, device="cpu").fit(
        program_of(ALL, PAPER), members_of(2, PAPER), PROBLEM, 1, keep="last"
    )
    initial = build_model(Frozen, SCHEMA, 0).state_dict()["item.weight"]
    assert report.states is not None
    assert torch.equal(report.states.weights["item.weight"][1], initial)


def test_the_users_module_is_left_as_it_was() -> None:
    module = DeepModel(40, 60, embedding_size=4)
    module.hidden[1].eval()  # a part in another mode than the whole
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    trainer = StackedTrainer(lambda n_users, n_items: module, STANDARD, device="cpu")
    report = trainer.fit(program_of(ALL, STANDARD), members_of(2, STANDARD), PROBLEM, 1, keep="last")
    assert report.states is not None
    trainer.predict(report.states, PROBLEM.rows("validation"))
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(type(part).__module__.startswith(("torch.", "recmodels.models")) for part in module.modules())
    assert not any(part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


class WrongShape(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).unsqueeze(-1)


class NotATensor(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        return [super().forward(batch)]  # type: ignore[return-value]


class NothingToTrain(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Tensor:
        return batch.user.float()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (WrongShape, r"WrongShape must map a batch of 4 examples to scores of shape \(4,\), .* \(4, 1\)"),
        (NotATensor, r"NotATensor must map .* returned list"),
        (NothingToTrain, "NothingToTrain has no parameter to train"),
    ],
)
def test_modules_that_cannot_be_trained(factory: ModelFactory, message: str) -> None:
    trainer = StackedTrainer(factory, STANDARD, device="cpu")
    with pytest.raises(ValueError, match=message):
        trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), PROBLEM, 1)


def test_a_last_scoring_batch_of_one_row_is_avoided() -> None:
    rows = np.arange(stacked.SCORING_BATCH + 1) % len(SPLIT.validation)
    problem = PointwiseProblem(dataclasses.replace(SPLIT, validation=SPLIT.validation.take(rows)))
    trainer = StackedTrainer(Squeezed, STANDARD, device="cpu")
    report = trainer.fit(program_of(ALL, STANDARD), members_of(2, STANDARD), problem, 1)
    assert report.outcomes == [Outcome.TRAINED] * 2


# Batching is invisible for deep models too.

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


# Memory.


def test_no_stack_is_larger_than_the_stack_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    original = Stack.__init__

    def counting(self: Stack, module: nn.Module, count: int, *rest: Any) -> None:
        counts.append(count)
        original(self, module, count, *rest)

    monkeypatch.setattr(Stack, "__init__", counting)
    trainer = StackedTrainer(mf_for(STANDARD), STANDARD, device="cpu", stack_size=4)
    report = trainer.fit(program_of(ALL, STANDARD), members_of(11, STANDARD, seeds=2), PROBLEM, 1, keep="last")
    assert sorted(counts) == [1, 2, 4, 4]
    counts.clear()
    assert report.states is not None
    trainer.predict(report.states, PROBLEM.rows("validation"))
    assert sorted(counts) == [3, 4, 4]


def test_one_stack_lives_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    living: list[int] = []
    count = 0
    original = Stack.__init__

    def counting(self: Stack, *arguments: Any) -> None:
        nonlocal count
        original(self, *arguments)
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


# Devices.


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
