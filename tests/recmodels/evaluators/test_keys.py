"""Keys of results: all that training sees is in them, and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from gploss.environment import numbers_depend_on
from gploss.screening.screening import screen
from gploss.search.cache import Cache
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators import evaluator as module
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.metrics import METRICS, Metric
from recmodels.models.base import Batch
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.choice import choose_trainer
from recmodels.training.problem import Problem
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, State
from tests.recmodels.evaluators.cases import MSE, real, small
from tests.recmodels.training.cases import PROBLEM, SPLIT
from tests.typed import typed


def _other_train() -> Split:
    return Split(SPLIT.name, SPLIT.train.take(np.arange(len(SPLIT.train))[::-1]), SPLIT.validation, SPLIT.test)


def _other_validation() -> Split:
    return Split(SPLIT.name, SPLIT.train, SPLIT.test, SPLIT.test)


def _with_model(model: Any, problem: Problem = PROBLEM) -> LossEvaluator:
    return LossEvaluator(problem, StackedTrainer(model, STANDARD, device="cpu"))


def _with_more_ids() -> Split:
    def more(part: Interactions) -> Interactions:
        return Interactions(part.users, part.items, part.labels, part.n_users + 1, part.n_items + 1)

    return Split(SPLIT.name, *(more(part) for part in SPLIT.parts().values()))


def _with_other_probes() -> Task:
    score, *others = POINTWISE.inputs
    moved = dataclasses.replace(score, probes=[value / 2 for value in score.probes])
    return dataclasses.replace(POINTWISE, inputs=(moved, *others))


class RenamedProblem(PointwiseProblem):
    """The same, in a user's own file."""


def _with_protocol(**change: Any) -> LossEvaluator:
    # the candidates' settings are given, so that the protocol's own are the only difference
    own = {"learning_rate": 0.1, "weight_decay": 2e-4, "batch_size": 512}
    return real(protocol=dataclasses.replace(STANDARD, **change), settings=own)


class RenamedTrainer(StackedTrainer):
    name = "renamed"


class OtherMF(MF):
    pass


def _scaled(n_users: int, n_items: int) -> torch.nn.Module:
    model = MF(n_users, n_items, 8)
    model.temperature = 2.0  # type: ignore[assignment]
    return model


@functools.cache
def _start(epochs: int) -> State:
    trainer = StackedTrainer(small, STANDARD, device="cpu")
    program = screen([MSE]).losses
    report = trainer.fit(program, [Member(0, 0)], PROBLEM, epochs, keep="last")
    assert report.states is not None
    return report.states


KEYS: dict[str, Callable[[], LossEvaluator]] = {
    "start": lambda: real(start=_start(1)),
    "another start": lambda: real(start=_start(2)),
    "train": lambda: real(_other_train()),
    "validation": lambda: real(_other_validation()),
    "seed": lambda: real(seed=1),
    "learning rate": lambda: real(settings={"learning_rate": 0.2}),
    "weight decay": lambda: real(settings={"weight_decay": 1e-3}),
    "members' batch size": lambda: real(settings={"batch_size": 256}),
    "metrics": lambda: _with_model(small, PointwiseProblem(SPLIT, ("auc", "rmse"))),
    "first metric": lambda: _with_model(small, PointwiseProblem(SPLIT, ("rmse", "auc"))),
    "columns": lambda: real(_with_more_ids()),
    "probes": lambda: _with_model(small, PointwiseProblem(SPLIT, task=_with_other_probes())),
    "task": lambda: _with_model(small, PointwiseProblem(SPLIT, task=dataclasses.replace(POINTWISE, name="mine"))),
    "source": lambda: _with_model(small, RenamedProblem(SPLIT)),
    "trainer": lambda: LossEvaluator(PROBLEM, RenamedTrainer(small, STANDARD, device="cpu")),
    "model class": lambda: _with_model(functools.partial(OtherMF, embedding_size=8, initialization="standard")),
    "model arguments": lambda: _with_model(functools.partial(MF, embedding_size=9, initialization="standard")),
    "model without arguments": lambda: _with_model(lambda *sizes: MF(sizes[0], sizes[1], 8)),
    "model attribute": lambda: _with_model(_scaled),
    "model initialization": lambda: _with_model(functools.partial(MF, embedding_size=8, initialization="paper")),
    "deep model": lambda: _with_model(DeepModel),
    "dropout": lambda: _with_model(functools.partial(DeepModel, dropout=0.3)),
    "protocol name": lambda: _with_protocol(name="mine"),
    "optimizer": lambda: _with_protocol(optimizer="sgd"),
    "protocol rate": lambda: _with_protocol(learning_rate=0.3),
    "protocol decay": lambda: _with_protocol(weight_decay=0.3),
    "batch size": lambda: _with_protocol(batch_size=256),
    "clipping": lambda: _with_protocol(gradient_clip=1.0),
    "loss decay": lambda: _with_protocol(optimizer="sgd", loss_decay=1e-4),
    "accumulators": lambda: _with_protocol(initial_accumulator=1e-5),
    "initialization": lambda: _with_protocol(initialization="paper"),
    "scale": lambda: _with_protocol(scale_free=False),
    "patience": lambda: _with_protocol(patience=4),
}


def test_everything_that_training_sees_changes_the_key() -> None:
    keys = {name: make().key for name, make in KEYS.items()} | {"base": real().key}
    assert len({key.hash for key in keys.values()}) == len(keys)
    assert len({key.canonical_json for key in keys.values()}) == len(keys)
    assert real().key == real().key


@pytest.mark.parametrize("name", KEYS)
def test_nothing_is_served_under_another_key(name: str) -> None:
    with Cache(":memory:") as cache:
        base = real(epochs=1, cache=cache, reuse="fingerprint")
        (first,) = base.evaluate([MSE], {}, 1)
        other = KEYS[name]()
        other.cache, other.reuse, other.epochs = cache, "fingerprint", 1
        (found,) = other.evaluate([MSE], {}, 1)
        assert not found.cached
        assert base.evaluate([MSE], {}, 1)[0].cached
        assert base.evaluate([MSE], {}, 1)[0].metrics == first.metrics


def test_no_field_of_the_key_is_left_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    base = _leaves(real().key.fields)
    changed: set[str] = set()
    for make in KEYS.values():
        own = _leaves(make().key.fields)
        changed |= {name for name in base.keys() | own.keys() if base.get(name) != own.get(name)}
    with monkeypatch.context() as patch:
        patch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
        patch.setattr(module, "numbers_depend_on", lambda: dict.fromkeys(numbers_depend_on(), "other"))
        patch.setitem(METRICS._entries, "auc", Metric("auc", lambda own: METRICS["gauc"].function(own), True))
        evaluator = real()
        evaluator.trainer.device = torch.device("cuda")  # type: ignore[attr-defined]
        own = _leaves(evaluator._key_fields())
        changed |= {name for name in base if base[name] != own.get(name)}
    assert base.keys() == changed & base.keys()


def _leaves(fields: Any, path: str = "") -> dict[str, str]:
    if not isinstance(fields, Mapping):
        return {path: json.dumps(fields)}
    found: dict[str, str] = {}
    for name, value in fields.items():
        found |= _leaves(value, f"{path}.{name}" if path else str(name))
    return found


def test_what_training_does_not_see_leaves_the_key_alone() -> None:
    renamed = Split("another name", SPLIT.train, SPLIT.validation, SPLIT.test)
    base = real().key
    assert real(renamed).key == base
    assert real(epochs=9).key == base
    assert real(check_direction=True).key == base
    assert real(reuse="fingerprint").key == base
    chunked = StackedTrainer(small, STANDARD, device="cpu", stack_size=3)
    assert LossEvaluator(PROBLEM, chunked).key == base


def test_other_settings_give_the_evaluator_that_would_have_been_made_with_them() -> None:
    base, settings = real(), {"learning_rate": 0.3}
    other, made = base.with_settings(5, settings), real(seed=5, settings=settings)
    assert other.key == made.key and other.describe() == made.describe()
    assert base.key == real().key
    assert other.evaluate([MSE], {}, 1)[0].reward == made.evaluate([MSE], {}, 1)[0].reward
    with pytest.raises(ValueError, match="is learning_rate meant"):
        base.with_settings(5, {"learning_rat": 0.3})


def test_settings_that_do_not_change_the_key_are_recorded_nevertheless() -> None:
    texts = {
        json.dumps(evaluator.describe(), sort_keys=True)
        for evaluator in (real(), real(epochs=9), real(check_direction=True), real(reuse="fingerprint"))
    }
    assert len(texts) == 4


def test_an_edited_metric_of_the_users_own_is_another_one() -> None:
    def evaluator(source: str) -> LossEvaluator:
        METRICS.register("mine", Metric("mine", typed(source)["mine"], True))
        try:
            return _with_model(small, PointwiseProblem(SPLIT, ("mine",)))
        finally:
            METRICS.unregister("mine")

    source = "def part(x):\n    return x.double()\ndef mine(own):\n    return part(own.scores.mean(-1))"
    base = evaluator(source)
    assert evaluator(source.replace("return", '"""Say so."""; return')).key == base.key
    assert evaluator(source.replace("x.double()", "x.double() * 2")).key != base.key


def test_an_edited_trainer_or_problem_of_the_users_own_is_another_one() -> None:
    def evaluator(source: str) -> LossEvaluator:
        names = typed(source, trainer=StackedTrainer, problem=PointwiseProblem)
        return LossEvaluator(names["Own"](SPLIT), names["Trains"](small, STANDARD, device="cpu"))

    source = """
def rows(count): return count
class Own(problem):
    def batches(self, *given): return super().batches(*given, rows(2))
class Trains(trainer):
    def fit(self, *given, **named): return super().fit(*given, **named)
"""
    base = evaluator(source)
    assert evaluator(source.replace("return count", "return count  # all")).key == base.key
    for old, new in (("return count", "return count - 1"), ("super().fit", "trainer.fit")):
        assert evaluator(source.replace(old, new)).key != base.key


def test_a_copy_of_mf_that_is_edited_under_an_evaluator_is_trained_as_it_is_now() -> None:
    class Copy(MF):
        factor = 1.0

        def forward(self, batch: Batch) -> torch.Tensor:
            return super().forward(batch) * self.factor

    def made(cache: Cache | None) -> LossEvaluator:
        return LossEvaluator(PROBLEM, choose_trainer(Copy, STANDARD, device="cpu"), epochs=1, cache=cache)

    with Cache(":memory:") as cache:
        evaluator = made(cache)
        assert evaluator.key.fields["trainer"] == "fused"
        evaluator.evaluate([MSE], {}, 1)
        Copy.factor = 3.0
        with pytest.warns(UserWarning, match="has the weights of MF, but is another one"):
            (edited,) = evaluator.evaluate([MSE], {}, 1)
        assert not edited.cached and evaluator.key.fields["trainer"] == "stacked"
        with pytest.warns(UserWarning, match="has the weights of MF"):
            assert made(None).evaluate([MSE], {}, 1)[0].metrics == edited.metrics


def test_code_that_is_edited_under_an_evaluator_is_seen() -> None:
    names = typed(
        """
def helper(u, i): return (u * i).sum(-1)
class Net(torch.nn.Module):
    def __init__(self, n_users, n_items):
        super().__init__()
        self.u, self.i = torch.nn.Embedding(n_users, 4), torch.nn.Embedding(n_items, 4)
    def forward(self, batch): return helper(self.u(batch.user), self.i(batch.item))
""",
        torch=torch,
    )
    with Cache(":memory:") as cache:
        evaluator = LossEvaluator(
            PROBLEM, StackedTrainer(names["Net"], STANDARD, device="cpu"), epochs=1, cache=cache
        )
        (first,) = evaluator.evaluate([MSE], {}, 1)
        assert evaluator.evaluate([MSE], {}, 1)[0].cached
        names["helper"] = lambda u, i: -(u - i).square().sum(-1)
        (second,) = evaluator.evaluate([MSE], {}, 1)
        assert not second.cached and second.reward != first.reward
        described = evaluator.describe()
        before = METRICS["auc"]
        METRICS._entries["auc"] = Metric("auc", lambda own: METRICS["gauc"].function(own), True)
        try:
            assert evaluator.describe() != described
        finally:
            METRICS._entries["auc"] = before
