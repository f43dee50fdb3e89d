"""Any module is trained as a plain torch loop trains it, or refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.models.deep_model import DeepModel
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked import trainer as stacked
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, Outcome
from tests.recmodels.training.cases import (
    ALL,
    LOSSES,
    PAPER_LONG,
    PROBLEM,
    SCHEMA,
    SPLIT,
    batches_of,
    member,
    members_of,
    program_of,
)
from tests.recmodels.training.modules import (
    MODULES,
    TWO_METRICS,
    Frozen,
    NotATensor,
    NothingToTrain,
    Squeezed,
    WrongShape,
)


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
            optimizer.zero_grad()
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


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            WrongShape,
            r"WrongShape must map a batch of 4 examples to scores of shape \(4,\), .* \(4, 1\)",
        ),
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
