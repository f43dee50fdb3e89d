"""Losses that are no formulas: whatever has text, inputs, values and a kernel can be trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gploss.compute.losses import Losses, LossKernel
from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.screening.fingerprint import fingerprints
from gploss.screening.probes import probe
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import Interactions
from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.mf import MF
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import PAPER
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Outcome, TrainReport
from tests.recmodels.training.cases import SPLIT, member

TEXTS = ("square(label - pred)", "weight * exp(neg(logit) * (2 * label - 1))")
SHARES = (0.75, 0.25)


class Mixture:
    """One loss: the weighted mean of two formulas."""

    task: Task = POINTWISE
    texts = ("a mixture",)

    def __init__(self, texts: Sequence[str] = TEXTS) -> None:
        self.parts = Program.compile([Expression.parse(text) for text in texts], POINTWISE, np.array(SHARES))
        self.uses = self.parts.uses

    def __len__(self) -> int:
        return 1

    def losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        values, gradients = self.parts.losses(inputs)
        count = 1 if rows is None else len(rows)
        return np.tile(values.sum(0), (count, 1)), {"score": np.tile(gradients["score"].sum(0), (count, 1))}

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        return MixtureKernel(self.parts, len(rows), device)


class MixtureKernel(LossKernel):
    """Sums the slopes of both parts."""

    def __init__(self, parts: Program, count: int, device: torch.device) -> None:
        self.kernels = [parts.kernel([k] * count, device) for k in range(len(parts))]

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.stack([kernel.slopes(scores, inputs, weights) for kernel in self.kernels]).sum(0)

    def diverged(self) -> npt.NDArray[np.bool_]:
        return np.any([kernel.diverged() for kernel in self.kernels], axis=0)


def formula() -> Losses:
    """The same as a formula."""
    terms = (f"{share} * ({text})" for share, text in zip(SHARES, TEXTS, strict=True))
    return Program.compile([Expression.parse(" + ".join(terms))], POINTWISE)


def shades(rows: Interactions, train: Interactions) -> npt.NDArray[Any]:
    return 0.5 + rows.items / rows.n_items


def train(losses: Losses) -> TrainReport:
    problem = PointwiseProblem(SPLIT, inputs={"weight": shades})
    trainer = StackedTrainer(partial(MF, embedding_size=8), PAPER, device="cpu")
    return trainer.fit(losses, [member(0, 1, 0.3, 0.001)] * 2, problem, 2, keep="last")


def test_a_mixture_trains_as_the_formula_of_its_sum() -> None:
    mixed, summed = train(Mixture()), train(formula())
    assert mixed.states is not None and summed.states is not None
    assert mixed.outcomes == summed.outcomes == [Outcome.TRAINED] * 2
    for name, weight in summed.states.weights.items():
        assert float((mixed.states.weights[name] - weight).norm() / weight.norm()) < 1e-5, name
    np.testing.assert_allclose(mixed.metrics["auc"], summed.metrics["auc"], atol=1e-4)


def test_a_mixture_has_the_fingerprint_of_the_formula_of_its_sum() -> None:
    for scale_free in (True, False):
        mixed, summed = (fingerprints(probe(losses), scale_free=scale_free) for losses in (Mixture(), formula()))
        assert mixed == summed
    other = Mixture(("square(label - pred)", "exp(neg(logit) * (2 * label - 1))"))
    assert fingerprints(probe(other), scale_free=True) != fingerprints(probe(formula()), scale_free=True)


def test_what_diverges_in_one_part_diverges() -> None:
    report = train(Mixture(("square(label - pred)", "exp(exp(exp(exp(9 + logit)))) * label")))
    assert report.outcomes == [Outcome.DIVERGED] * 2


def test_trainers_that_interpret_formulas_say_so() -> None:
    trainer = FusedTrainer(partial(MF, embedding_size=8), PAPER)
    with pytest.raises(ValueError, match="fused trainer knows formulas only, not Mixture; use StackedTrainer"):
        trainer.fit(Mixture(), [member(0, 1, 0.3, 0.001)], PointwiseProblem(SPLIT), 1)
