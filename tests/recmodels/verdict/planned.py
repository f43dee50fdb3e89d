"""A problem without labels and a trainer whose results are planned, for tests of what a verdict does with them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.rows import Rows, Schema
from recmodels.training.problem import Judge, Part, Problem
from recmodels.training.protocol import STANDARD
from recmodels.training.trainer import EpochsDone, Keep, Member, Outcome, State, Trainer, TrainReport
from recmodels.verdict.rivals import HAND_MADE, Rival

BCE = Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))")
MSE = Expression.parse("square(label - pred)")
CUBE = Expression.parse("abs(label - pred) * square(label - pred)")
HINGE = Expression.parse("relu(1 - (2 * label - 1) * logit)")
WRONG_WAY = Expression.parse("neg(square(label - pred))")
BLIND = Expression.parse("square(pred)")

N_SHOPS, ROWS = 30, 240
SHOPS = np.arange(ROWS) % N_SHOPS
WANTED = np.random.default_rng(5).normal(size=ROWS).astype(np.float32)


class Wishes(Problem):
    """Each row wants a number; less distance is better, and nearness, which nobody chooses by, is its reverse.

    Args:
        grouped: whether rows belong to shops.
    """

    name = "wishes"
    task = POINTWISE
    metrics: Mapping[str, bool] = {"distance": False, "nearness": True}

    def __init__(self, *, grouped: bool = True) -> None:
        self.grouped = grouped
        self.looked_at: list[Part] = []

    def rows(self, part: Part) -> Rows:
        self.looked_at.append(part)
        return Rows(Schema({"shop": N_SHOPS}), {"shop": SHOPS}, {"label": (WANTED > 0), "wanted": WANTED})

    def groups(self, part: Part) -> npt.NDArray[np.int64] | None:
        return SHOPS if self.grouped else None

    def judge_of(self, rows: Rows, groups: Any, device: torch.device | str = "cpu") -> Judge:
        wanted = torch.tensor(rows.inputs["wanted"].tolist(), dtype=torch.float64)

        def judge(scores: torch.Tensor) -> dict[str, torch.Tensor]:
            distance = (scores - wanted).abs().mean(dim=1)
            return {"distance": distance, "nearness": 1 / (1 + distance)}

        return judge


#: What a loss is worth on validation with some settings after some epochs: more is better, NaN diverges.
Worth = Callable[[str, Mapping[str, float], int], float]


def text_of(expression: Expression) -> str:
    return str(expression.canonical())


def hand_made(*expressions: Expression) -> list[Rival]:
    return [Rival(f"hand {k}", HAND_MADE, expression) for k, expression in enumerate(expressions)]


def peak_at(rate: float, decay: float) -> Worth:
    """The best settings lie so many doublings from the default."""

    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        away = abs(math.log2(settings["learning_rate"] / STANDARD.learning_rate) - rate)
        away += abs(math.log2(settings["weight_decay"] / STANDARD.weight_decay) - decay)
        return -0.1 - 0.01 * away - 0.05 / epoch

    return worth


class PlannedTrainer(Trainer):
    """Says how good each loss is, on validation and on test.

    Args:
        worth: on validation, of (text of the loss, settings, epoch).
        noise: by text of a loss, how far its scores on test are from what is wanted.
    """

    name = "planned"

    def __init__(self, worth: Worth, noise: Mapping[str, float] | None = None) -> None:
        self.protocol = dataclasses.replace(STANDARD, patience=None)
        self.worth = worth
        self.noise = noise or {}
        self.fits: list[list[tuple[str, Member, int]]] = []

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
        before = [0] * len(members) if start is None else start.epochs.tolist()
        texts = [str(losses.texts[member.loss]) for member in members]
        self.fits.append([(text, member, epochs) for text, member in zip(texts, members, strict=True)])
        values = np.array(
            [
                [self.worth(text, member.settings, behind + e + 1) for e in range(epochs)]
                for text, member, behind in zip(texts, members, before, strict=True)
            ]
        )
        lost = np.isnan(values).any(axis=1)
        stopped = np.where(lost, np.isnan(values).argmax(axis=1) + 1, epochs)
        plan = [[self.noise.get(text, 1.0), float(m.seed)] for text, m in zip(texts, members, strict=True)]
        states = State({"plan": torch.tensor(plan, dtype=torch.float64)}, {}, np.array(before) + stopped)
        return TrainReport(
            {"distance": -values, "nearness": values},
            [Outcome.DIVERGED if own else Outcome.TRAINED for own in lost],
            [f"non-finite gradient in epoch {at}" if own else None for own, at in zip(lost, stopped, strict=True)],
            stopped,
            np.ones(len(members)),
            states if keep != "none" else None,
        )

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """All losses meet the same luck, on which their own noise is a factor."""
        scores = []
        for noise, seed in states.weights["plan"].tolist():
            luck = np.random.default_rng(int(seed)).normal(size=len(rows))
            scores.append(rows.inputs["wanted"] + noise * luck)
        return np.array(scores, np.float32)

    def describe(self, schema: Schema) -> dict[str, JSON]:
        return {"trainer": self.name}

    @property
    def trained(self) -> int:
        """Epochs of all members together."""
        return sum(epochs for fit in self.fits for _, _, epochs in fit)
