"""Losses of every fate, and evaluators of them, one of which trains by formula."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Rows, Schema
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.mf import MF
from recmodels.training.problem import Problem
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import EpochsDone, Keep, Member, Outcome, State, Trainer, TrainReport
from tests.recmodels.training.cases import PROBLEM, SPLIT

MSE = Expression.parse("square(label - pred)")
MSE_TWICE = Expression.parse("add(square(label - pred), square(label - pred))")  # the same, scale-free
MSE_OTHERWISE = Expression.parse("square(pred - label)")
BCE = Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))")
HINGE = Expression.parse("relu(1 - (2 * label - 1) * logit)")
NO_LABEL = Expression.parse("square(pred)")
NO_GRADIENT = Expression.parse("square(label)")
NOT_FINITE = Expression.parse("exp(exp(exp(exp(square(logit + 3)))))")
WRONG_WAY = Expression.parse("neg(square(label - pred))")


class FormulaTrainer(Trainer):
    """Trains nothing: values follow from the text of a loss, and some diverge."""

    name = "formula"

    def __init__(self, protocol: Protocol = STANDARD) -> None:
        self.protocol = protocol
        self.calls: list[list[str]] = []

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
        texts = [str(losses.expressions[member.loss]) for member in members]
        self.calls.append(texts)
        numbers = [int(blake2b(text.encode(), digest_size=4).hexdigest(), 16) for text in texts]
        values = np.array([[(number % 1000 + e) / 2000 for e in range(epochs)] for number in numbers])
        stopped = np.full(len(members), epochs)
        outcomes = [Outcome.TRAINED] * len(members)
        for k, number in enumerate(numbers):
            if number % 4 == 0 and number % 7 < epochs:  # diverges in epoch 1 to 7
                outcomes[k] = Outcome.DIVERGED
                stopped[k] = number % 7 + 1
                values[k, number % 7 :] = np.nan
            elif number % 4 == 1 and number % 5 < epochs:  # stops early
                stopped[k] = number % 5 + 1
                values[k, number % 5 + 1 :] = np.nan
        reasons = [
            f"non-finite in epoch {s}" if o is Outcome.DIVERGED else None
            for o, s in zip(outcomes, stopped, strict=True)
        ]
        return TrainReport(
            dict.fromkeys(problem.metrics, values), outcomes, reasons, stopped, np.ones(len(members))
        )

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        raise AssertionError("a search predicts nothing")

    def describe(self, schema: Schema) -> dict[str, JSON]:
        return {"trainer": self.name, "protocol": self.protocol.describe()}


def fake(**options: Any) -> LossEvaluator:
    return LossEvaluator(PROBLEM, FormulaTrainer(options.pop("protocol", STANDARD)), **options)


def real(split: Split = SPLIT, protocol: Protocol = STANDARD, **options: Any) -> LossEvaluator:
    model = functools.partial(MF, embedding_size=8, initialization=protocol.initialization)
    return LossEvaluator(PointwiseProblem(split), StackedTrainer(model, protocol, device="cpu"), **options)


def plain(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations without what a cache or a clock may change."""
    return [evaluation.to_json() | {"cached": None, "seconds": None} for evaluation in evaluations]


POOL = [
    *(Grammar.standard().sample(np.random.default_rng(k), 1 + k % 4) for k in range(60)),
    *(MSE, MSE_TWICE, MSE_OTHERWISE, BCE, HINGE, NO_LABEL, NOT_FINITE, WRONG_WAY),
]
small = functools.partial(MF, embedding_size=8, initialization="standard")
