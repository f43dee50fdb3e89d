"""Losses that are no formulas, through everything: searched, cached, resumed, judged, drawn and written down.

The kind here mixes two formulas in a share that stands in its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from experiments.parts.verdict import found_table, loss_curves
from gploss.compute.kinds import LOSS_KINDS, Loss, LossKind, compiled
from gploss.compute.losses import LossKernel
from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss
from gploss.screening.screening import screen
from gploss.search.cache import Cache
from gploss.search.checkpoint import Checkpoint
from gploss.search.evaluation import Evaluation, Status
from gploss.search.result import SearchResult
from gploss.tasks import Task
from gploss.tasks.pointwise import LOSSES, POINTWISE
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.mf import MF
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.verdict.confirmation import confirm
from recmodels.verdict.rivals import Rival
from recmodels.verdict.tables import verdict_table
from tests.recmodels.training.cases import SPLIT

PARTS = (LOSSES["bce"].expression, LOSSES["mse"].expression)
PROTOCOL = replace(STANDARD, batch_size=64)


@dataclass(frozen=True)
class Mixture:
    """So much of BCE, the rest of MSE."""

    share: float
    kind = "mixture"
    complexity = 3

    @property
    def constants(self) -> Mapping[str, float]:
        return {"share": self.share}

    @property
    def family(self) -> str:
        return "mixture share"

    def with_constants(self, **values: float) -> Mixture:
        return replace(self, **values)

    def readable(self) -> str:
        return f"{self.share:.3g} of bce, the rest of mse"

    def __str__(self) -> str:
        return f"mixture {self.share!r}"

    @staticmethod
    def parse(text: str) -> Mixture:
        word, share = text.split()
        if word != "mixture":
            raise ValueError(f"no mixture: {text}")
        return Mixture(float(share))

    def formula(self) -> Expression:
        return Expression.parse(f"{self.share!r} * ({PARTS[0]}) + {1 - self.share!r} * ({PARTS[1]})")


class Mixtures:
    """Several mixtures, computed part by part."""

    def __init__(self, mixtures: Sequence[Mixture], task: Task, multipliers: npt.NDArray[np.float64]) -> None:
        self.task, self.mixtures, self.multipliers = task, tuple(mixtures), multipliers
        self.texts = [str(mixture) for mixture in mixtures]
        self.parts = Program.compile(PARTS, task)
        self.uses = self.parts.uses
        self.shares = np.array([[one.share, 1 - one.share] for one in mixtures]) * multipliers[:, None]

    def __len__(self) -> int:
        return len(self.mixtures)

    def scaled(self, multipliers: npt.NDArray[np.float64]) -> Mixtures:
        return Mixtures(self.mixtures, self.task, multipliers)

    def losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        shares = self.shares if rows is None else self.shares[rows]
        values, slopes = 0.0, 0.0
        for k in range(len(self.parts)):
            own, gradients = self.parts.losses(inputs, np.full(len(shares), k))
            values, slopes = values + shares[:, [k]] * own, slopes + shares[:, [k]] * gradients["score"]
        return values, {"score": slopes}  # type: ignore[dict-item, return-value]

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        return MixturesKernel(self.parts, torch.tensor(self.shares[list(rows)], dtype=torch.float32), device)


class MixturesKernel(LossKernel):
    def __init__(self, parts: Program, shares: torch.Tensor, device: torch.device) -> None:
        self.kernels = [parts.kernel([k] * len(shares), device) for k in range(len(parts))]
        self.shares = shares

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        slopes = [kernel.slopes(scores, inputs, weights).clone() for kernel in self.kernels]
        return sum(self.shares[:, [k]] * part for k, part in enumerate(slopes))  # type: ignore[return-value]

    def diverged(self) -> npt.NDArray[np.bool_]:
        return np.any([kernel.diverged() for kernel in self.kernels], axis=0)


def function(mixture: Mixture, scale: float, task: Task) -> Callable[..., torch.Tensor]:
    return ExpressionLoss(mixture.formula(), scale, task)


@pytest.fixture(autouse=True)
def kind() -> Iterator[None]:
    def compile_some(mixtures: Sequence[Mixture], task: Task) -> Mixtures:
        return Mixtures(mixtures, task, np.ones(len(mixtures)))

    LOSS_KINDS.register("mixture", LossKind(Mixture.parse, compile_some, function))
    yield
    LOSS_KINDS.unregister("mixture")


def problem() -> PointwiseProblem:
    return PointwiseProblem(SPLIT)


def trainer() -> StackedTrainer:
    return StackedTrainer(MF, PROTOCOL, device="cpu")


def result_of(evaluations: Sequence[Evaluation]) -> SearchResult:
    times = tuple(float(step) for step, _ in enumerate(evaluations))
    return SearchResult("mixing", 0, "budget", "auc", True, {}, {}, tuple(evaluations), times)


MIXED: list[Loss] = [PARTS[0], Mixture(0.25), PARTS[1], Mixture(0.75), Mixture(1.0)]


def test_kinds_side_by_side_are_computed_as_their_formulas() -> None:
    formulas = [loss.formula() if isinstance(loss, Mixture) else loss for loss in MIXED]
    together, alike = compiled(MIXED, POINTWISE), Program.compile(formulas, POINTWISE)
    rng = np.random.default_rng(0)
    inputs = {"score": rng.normal(size=(5, 40)), "label": rng.integers(0, 2, 40).astype(float)}
    assert together.uses == alike.uses and len(together) == 5
    bce, mse = alike.texts[0], alike.texts[2]
    assert list(together.texts) == [bce, "mixture 0.25", mse, "mixture 0.75", "mixture 1.0"]
    for rows in (None, np.array([4, 0, 3, 1, 1])):
        for scaled in (False, True):
            factors = np.arange(1.0, 6.0) if scaled else np.ones(5)
            found = together.scaled(factors).losses(inputs, rows)
            wanted = alike.scaled(factors).losses(inputs, rows)
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
            np.testing.assert_allclose(found[1]["score"], wanted[1]["score"], rtol=1e-9)
    scores = torch.tensor(inputs["score"], dtype=torch.float32)
    given = {"label": torch.tensor(inputs["label"], dtype=torch.float32)}
    cpu = torch.device("cpu")
    kernels = [losses.kernel([4, 0, 3, 1, 1], cpu) for losses in (together, alike)]
    slopes = [kernel.slopes(scores, given).clone() for kernel in kernels]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)
    scores[1, 3] = float("nan")
    for kernel in kernels:
        kernel.slopes(scores, given)
    assert kernels[0].diverged().tolist() == kernels[1].diverged().tolist() == [False, True, False, False, False]


def test_a_mixture_of_one_part_is_a_duplicate_of_it() -> None:
    screening = screen(MIXED)
    assert screening.fingerprints[4] == screening.fingerprints[0]
    assert len(set(screening.fingerprints)) == 4


def test_they_are_evaluated_cached_and_kept(tmp_path: Path) -> None:
    def evaluate() -> list[Evaluation]:
        with Cache(tmp_path / "cache.sqlite") as cache:
            return LossEvaluator(problem(), trainer(), epochs=2, cache=cache).evaluate(MIXED, {}, 9)

    evaluations, again = evaluate(), evaluate()
    assert [str(one.status) for one in evaluations] == ["trained"] * 4 + ["duplicate"]
    assert [one.loss for one in evaluations] == MIXED
    alone = LossEvaluator(problem(), trainer(), epochs=2).evaluate([MIXED[0]], {}, 9)
    assert evaluations[0].metrics == alone[0].metrics  # the kind beside it changes nothing
    assert all(one.cached for one in again[:4])
    assert [one.metrics for one in again] == [one.metrics for one in evaluations]

    with Checkpoint(tmp_path / "run.sqlite") as checkpoint:
        checkpoint.begin({})
        checkpoint.save(evaluations, [0.0] * 5, {})
    with Checkpoint(tmp_path / "run.sqlite") as checkpoint:
        checkpoint.begin({})
        saved = checkpoint.load()
    assert saved is not None and saved.evaluations == evaluations


def test_a_result_holds_them() -> None:
    evaluations = [
        Evaluation(Mixture(0.25), Status.TRAINED, reward=0.75, fingerprint="a", scale=2.0),
        Evaluation(PARTS[1], Status.TRAINED, reward=0.5, fingerprint="b", scale=1.0),
    ]
    result = result_of(evaluations)
    assert "0.25 of bce, the rest of mse" in repr(result) and "0.25 of bce" in result._repr_html_()
    assert result.evaluations["expression"][0] == "mixture 0.25"
    best = result.best
    assert best is not None and str(best.evaluation.loss) == "mixture 0.25"
    scores, labels = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    wanted = ExpressionLoss(Mixture(0.25).formula(), 2.0)(scores, labels)
    assert float(best.loss(scores, labels)) == float(wanted)
    with pytest.raises(TypeError, match=r"a mixture is no formula: 0\.25 of bce, the rest of mse"):
        _ = best.expression


def test_a_result_is_saved_and_read_while_its_kinds_are_known(tmp_path: Path) -> None:
    result = result_of([Evaluation(Mixture(0.25), Status.TRAINED, reward=0.75, fingerprint="a")])
    result.save(tmp_path / "result.json")
    assert SearchResult.load(tmp_path / "result.json") == result
    known = LOSS_KINDS["mixture"]
    LOSS_KINDS.unregister("mixture")
    try:
        with pytest.raises(ValueError, match="no kind of losses is named 'mixture'"):
            SearchResult.load(tmp_path / "result.json")
    finally:
        LOSS_KINDS.register("mixture", known)


def test_a_verdict_tunes_their_constants_and_compares_them(tmp_path: Path) -> None:
    rivals = [Rival("bce", "hand-made", PARTS[0]), Rival("mixed", "found", Mixture(0.5))]
    with Cache(tmp_path / "cache.sqlite") as cache:
        verdict = confirm(
            rivals, trainer(), problem(), epochs=2, tuning_seeds=1, fresh_seeds=2, resamples=20, cache=cache
        )
    table = verdict_table(verdict)
    mixed = table[table["found by"] == "found"].iloc[0]
    (tuned,) = [one.tuned for one in verdict.comparisons if one.tuned.group == "found"]
    assert isinstance(tuned.loss, Mixture) and tuned.loss.share != 0.5
    assert mixed["expression"] == str(tuned.loss) and mixed["formula"] == tuned.loss.readable()
    curves = loss_curves({"mixed": tuned.loss, "bce": PARTS[0]}, POINTWISE, scale_free=True)
    assert list(curves) == [f"mixed: {tuned.loss.readable()}", "bce"]
    assert found_table("mf", "toy", {"mixed": tuned.loss})["expression"].to_list() == [str(tuned.loss)]


def test_a_trainer_of_formulas_names_what_it_cannot_train() -> None:
    evaluator = LossEvaluator(problem(), FusedTrainer(MF, PROTOCOL), epochs=1)
    with pytest.raises(ValueError, match="the fused trainer knows formulas only"):
        evaluator.evaluate([Mixture(0.5)], {}, 1)


def test_a_kind_that_is_not_registered_is_named() -> None:
    LOSS_KINDS.unregister("mixture")
    try:
        with pytest.raises(LookupError, match="no kind of losses is named 'mixture'; choose from: formula"):
            compiled(MIXED, POINTWISE)
    finally:
        LOSS_KINDS.register("mixture", LossKind(Mixture.parse, lambda losses, task: None, function))  # type: ignore[arg-type, return-value]
