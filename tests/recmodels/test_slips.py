"""Slips of the pen: each is refused where it is made, by its name; numpy's numbers are none."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import recmodels
from gploss import LOSSES, POINTWISE, Expression, Input, NamedLoss, Reason, register_operator, screen, unary
from recmodels import MF, STANDARD, LossEvaluator, Member, Noise, PointwiseProblem, Schema, StackedTrainer
from recmodels.training.choice import choose_trainer
from recmodels.training.trainer import choose_device
from tests.recmodels.training.cases import PROBLEM, SPLIT

MSE = Expression.parse("square(label - pred)")
FRAME = pd.DataFrame({"user": [0, 1] * 20, "item": range(40), "rating": [1, 5, 5, 1] * 10})
RIVALS = recmodels.rivals_of(["bce"], POINTWISE)


@functools.cache
def trainer() -> recmodels.Trainer:
    return choose_trainer(MF, STANDARD, device="cpu")


def evaluator(**options: Any) -> LossEvaluator:
    return LossEvaluator(options.pop("problem", PROBLEM), options.pop("trainer", trainer()), **options)


def from_frame(model: Any = MF, **options: Any) -> LossEvaluator:
    return LossEvaluator.from_frame(FRAME, model, **{"epochs": 1, "data": {"split": "at_random"}} | options)


def confirm(**options: Any) -> object:
    arguments = {"rivals": RIVALS, "trainer": trainer(), "problem": PROBLEM, "epochs": 1} | options
    return recmodels.confirm(**arguments)


class PairModel(torch.nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.u, self.i = torch.nn.Embedding(n_users, 4), torch.nn.Embedding(n_items, 4)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.u(user) * self.i(item)).sum(-1)


#: What is done, and words of the message.
SLIPS: dict[str, tuple[Callable[[], object], str]] = {
    "text for metrics": (lambda: from_frame(metrics="auc"), r"metrics=\['auc'\]"),
    "no metrics": (lambda: PointwiseProblem(SPLIT, []), "metrics must be a list of names, at least one"),
    "a metric twice": (lambda: PointwiseProblem(SPLIT, ["auc", "auc"]), "each once"),
    "a frame for a split": (lambda: PointwiseProblem(FRAME), "split must be a Split"),  # type: ignore[arg-type]
    "a name for a task": (lambda: PointwiseProblem(SPLIT, task="pointwise"), "task must be a Task"),  # type: ignore[arg-type]
    "inputs that are no functions": (lambda: PointwiseProblem(SPLIT, inputs={"weight": 3}), "functions of inputs"),  # type: ignore[dict-item]
    "a module for its class": (lambda: from_frame(PairModel(2, 40)), "an instance of PairModel: give the class"),
    "a name for a model": (lambda: from_frame("mf"), r"model must be .* give MODELS\['mf'\]"),
    "a model that needs more": (lambda: from_frame(lambda a, b, c: MF(a, b)), r"model .*\(a, b, c\).*partial"),
    "a model that takes nothing": (lambda: from_frame(lambda: MF(2, 40)), r"model must be .*\(\) cannot be"),
    "a dictionary for a model": (lambda: from_frame(dict), "does not tell what it is called with"),
    "forward(user, item)": (lambda: from_frame(PairModel), r"PairModel is called with one Batch.*batch\.user"),
    "a name for a protocol": (lambda: from_frame(protocol="standard"), "protocol must be a Protocol"),
    "a number for a device": (lambda: from_frame(device=0), "device must be a text: 'auto'"),
    "text for options": (lambda: from_frame(data="at_random"), "data must be a dictionary"),
    "a path for a cache": (lambda: evaluator(cache="a.sqlite"), r"cache must be a Cache, such as Cache\("),
    "epochs 2.0": (lambda: evaluator(epochs=2.0), r"epochs must be a whole number, got 2\.0"),
    "epochs True": (lambda: evaluator(epochs=True), "epochs must be a whole number, got True"),
    "no seed": (lambda: evaluator(seed=None), "seed must be a whole number, got None"),
    "seed -1": (lambda: evaluator(seed=-1), "seed must be at least 0, got -1"),
    "a huge seed": (lambda: evaluator(seed=2**64), "seed must be at most"),
    "seed 0.5 later": (lambda: evaluator().with_settings(0.5, {}), "seed must be a whole number"),  # type: ignore[arg-type]
    "another reuse": (lambda: evaluator(reuse="all"), "reuse must be 'exact' or 'fingerprint', got 'all'"),
    "text for a reason": (lambda: evaluator(allow=["zero gradient"]), "each of allow must be a Reason"),
    "text for True": (lambda: evaluator(check_direction="no"), "check_direction must be True or False, got 'no'"),
    "a module for a start": (lambda: evaluator(start=MF(2, 2)), "start must be a State"),
    "a list of settings": (lambda: evaluator(settings=[("learning_rate", 0.1)]), "settings must be a dictionary"),
    "text for a rate": (lambda: evaluator(settings={"learning_rate": "0.1"}), "learning_rate must be a number"),
    "a class for a trainer": (lambda: evaluator(trainer=StackedTrainer), "trainer must be a Trainer"),
    "a named loss": (lambda: evaluator().evaluate([LOSSES["bce"]], {}, 1), "each of losses must be a loss"),  # type: ignore[list-item]
    "one loss": (lambda: evaluator().evaluate(MSE, {}, 1), "losses must be a list, got a single one"),  # type: ignore[arg-type]
    "a name for the screening's task": (lambda: screen([MSE], "pointwise"), "task must be a Task"),  # type: ignore[arg-type]
    "one evaluator": (lambda: recmodels.RepeatedEvaluator(evaluator()), "evaluators must be a list"),  # type: ignore[arg-type]
    "half a sample": (
        lambda: recmodels.AlternatingEvaluator(evaluator(), samples_per_round=1.5),  # type: ignore[arg-type]
        "samples_per_round must be a whole number",
    ),
    "texts for rivals": (lambda: confirm(rivals=["bce"]), "each of rivals must be a Rival"),
    "a split to confirm": (lambda: confirm(problem=SPLIT), "problem must be a Problem"),
    "no fresh seeds": (lambda: confirm(fresh_seeds=0), "fresh_seeds must be at least 1"),
    "no resamples": (lambda: confirm(resamples=0), "resamples must be at least 1"),
    "finalists '1'": (lambda: confirm(finalists="1"), "finalists must be a whole number"),
    "one problem to tune on": (lambda: confirm(tuning_problems=PROBLEM), "problems must be a list"),
    "no problem to tune on": (lambda: confirm(tuning_problems=[]), "no problem to tune on"),
    "a path to confirm with": (lambda: confirm(cache="a.sqlite"), "cache must be a Cache"),
    "how many seeds": (
        lambda: recmodels.effectiveness([MSE], trainer(), PROBLEM, epochs=1, seeds=3),  # type: ignore[arg-type]
        "seeds must be a list of seeds, got 3",
    ),
    "one text for rivals": (lambda: recmodels.rivals_of("bce", POINTWISE), r"write texts=\['bce'\]"),
    "a number for a member": (lambda: trainer().fit(screen([MSE]).losses, [0], PROBLEM, 1), "must be a Member"),  # type: ignore[list-item]
    "half a seed": (lambda: trainer().fit(screen([MSE]).losses, [Member(0, 0.5)], PROBLEM, 1), "seed of a member"),  # type: ignore[arg-type]
    "text for noise": (lambda: Noise("flip=0.1"), "train must be Flips"),  # type: ignore[arg-type]
    "two and a half splits": (
        lambda: recmodels.repeated_splits(SPLIT, 2.5, seed=0),
        "count must be a whole number",
    ),  # type: ignore[arg-type]
    "text for a size": (lambda: Schema({"user": "3"}), "ids of column 'user' must be a whole number"),  # type: ignore[dict-item]
    "functions for formulas": (lambda: register_operator(unary("a", len, len)), "formula must be text"),  # type: ignore[arg-type]
    "text for a loss": (lambda: NamedLoss("a", "square(pred)"), "expression must be an Expression"),  # type: ignore[arg-type]
    "a number for probes": (lambda: Input("count", 3), "probes must be a list of numbers"),  # type: ignore[arg-type]
    "a number for a formula": (lambda: Expression.parse(3), "an expression must be text"),  # type: ignore[arg-type]
    "text for an operand": (lambda: Expression.apply("square", "label"), "an operand of square"),  # type: ignore[arg-type]
    "text for a protocol's rate": (
        lambda: dataclasses.replace(STANDARD, learning_rate="0.1"),  # type: ignore[arg-type]
        "learning_rate must be a number",
    ),
    "half a batch": (
        lambda: dataclasses.replace(STANDARD, batch_size=0.5),  # type: ignore[arg-type]
        "batch_size must be a whole number",
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_refused_by_name(name: str) -> None:
    call, words = SLIPS[name]
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_as_good_as_pythons() -> None:
    rate = 0.125
    protocol = dataclasses.replace(
        STANDARD, learning_rate=np.float32(rate), batch_size=np.int64(64), patience=np.int8(2)
    )
    made = LossEvaluator(
        PROBLEM,
        choose_trainer(MF, protocol, device=torch.device("cpu")),  # type: ignore[arg-type]
        epochs=np.int64(2),
        seed=np.uint16(3),
        settings={"learning_rate": np.float32(rate)},
        allow={Reason.ZERO_GRADIENT},
        check_direction=np.True_,
    )
    same = LossEvaluator(
        PROBLEM,
        choose_trainer(
            MF, dataclasses.replace(STANDARD, learning_rate=rate, batch_size=64, patience=2), device="cpu"
        ),
        epochs=2,
        seed=3,
        settings={"learning_rate": rate},
        allow=[Reason.ZERO_GRADIENT],
        check_direction=True,
    )
    assert made.describe() == same.describe()
    assert made.evaluate([MSE], {}, 1)[0].reward == same.evaluate([MSE], {}, 1)[0].reward


def test_a_device_of_torch_is_a_device() -> None:
    assert choose_device(torch.device("cpu")) == torch.device("cpu")  # type: ignore[arg-type]
