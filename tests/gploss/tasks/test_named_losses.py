"""The losses that are known by name, against torch in float64 written from their papers, at any score."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gploss.loss_function import ExpressionLoss
from gploss.screening.screening import screen
from gploss.tasks import TASKS
from gploss.tasks.pointwise import LOSSES, log_min, max_ratio, sum_ratio
from tests.pointwise import compiled, run

EPS = 1e-6

#: Close together between -40 and 40, where probabilities end, and far out; on no kink.
SCORES = np.concatenate([np.linspace(-1000, 1000, 402), np.linspace(-40, 40, 800)])


def likely(score: Tensor, label: Tensor) -> Tensor:
    """Log-probability of the label."""
    return functional.logsigmoid((2 * label - 1) * score)


def wrong(score: Tensor, label: Tensor) -> Tensor:
    """Probability of the other label."""
    return torch.sigmoid((1 - 2 * label) * score)


def bce(score: Tensor, label: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(score, label, reduction="none")


def symmetric_ce(score: Tensor, label: Tensor) -> Tensor:
    reverse = -wrong(score, label) * -4  # log 0 stands for -4
    return bce(score, label) + 1.0 * reverse


def bootstrap(score: Tensor, label: Tensor, beta: float = 0.95) -> Tensor:
    target = beta * label + (1 - beta) * torch.sigmoid(score)
    rest = beta * (1 - label) + (1 - beta) * torch.sigmoid(-score)
    return -target * functional.logsigmoid(score) - rest * functional.logsigmoid(-score)


def forward_bce(score: Tensor, label: Tensor, rho_0: float = 0.1, rho_1: float = 0.1) -> Tensor:
    p, q = torch.sigmoid(score), torch.sigmoid(-score)
    seen = torch.where(label == 1, (1 - rho_1) * p + rho_0 * q, rho_1 * p + (1 - rho_0) * q)
    return -seen.log()


def asymmetric(score: Tensor, label: Tensor, gamma: float = 4.0, margin: float = 0.05) -> Tensor:
    shifted = (torch.sigmoid(score) - margin).clamp(min=0)
    negative = -(shifted**gamma) * (1 - shifted).log()
    return torch.where(label == 1, -functional.logsigmoid(score), negative)


def offset_bce(score: Tensor, label: Tensor) -> Tensor:
    return bce(score - 1.0, label)


def weighted_bce(score: Tensor, label: Tensor) -> Tensor:
    weight = torch.tensor(2.0, dtype=score.dtype)
    return functional.binary_cross_entropy_with_logits(score, label, reduction="none", pos_weight=weight)


def max_ratio_of(score: Tensor, label: Tensor, eps: float = EPS) -> Tensor:
    p = torch.sigmoid(score)
    return torch.maximum((label + eps) / (p + eps), (p + eps) / (label + eps))


def sum_ratio_of(score: Tensor, label: Tensor, eps: float = EPS) -> Tensor:
    p = torch.sigmoid(score)
    return (label + p + eps) / (label * p + eps)


def log_min_of(score: Tensor, label: Tensor, eps: float = EPS) -> Tensor:
    p = torch.sigmoid(score)
    smaller = torch.minimum(label, p)
    return torch.log(1 / (smaller + eps)) * (smaller + label + p)


EXACT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "mse": lambda s, y: wrong(s, y) ** 2,
    "hinge": lambda s, y: (1 - (2 * y - 1) * s).clamp(min=0),
    "focal": lambda s, y: -(wrong(s, y) ** 2) * likely(s, y),
    # AutoLossGen's call: targets 1 - 2 y
    "hinge_embedding": lambda s, y: functional.hinge_embedding_loss(s, 1 - 2 * y, reduction="none"),
    "maxr": max_ratio_of,
    "sumr": sum_ratio_of,
    "logmin": log_min_of,
    "smoothed_bce": lambda s, y: bce(s, 0.9 * y + 0.05),
    "weighted_bce": weighted_bce,
    "offset_bce": offset_bce,
    "symmetric_ce": symmetric_ce,
    "generalized_ce": lambda s, y: (1 - torch.exp(0.7 * likely(s, y))) / 0.7,
    "bootstrap": bootstrap,
    "mae": wrong,
    "forward_bce": forward_bce,
    "asymmetric": asymmetric,
    "exponential": lambda s, y: torch.exp(-0.5 * (2 * y - 1) * s),
    "cubic": lambda s, y: (1 - (2 * y - 1) * s).clamp(min=0) ** 3,
}

#: Not in the logit: as their authors call them, with their smoothing, which float32 rounds away.
AS_PUBLISHED = ("maxr", "sumr", "logmin")


def exact(name: str, label: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Loss and gradient at every score."""
    score = torch.tensor(SCORES, requires_grad=True)
    value = EXACT[name](score, torch.full_like(score, label))
    (gradient,) = torch.autograd.grad(value.sum(), score)
    return value.detach().numpy(), gradient.numpy()


def pasted(name: str, folder: Path) -> Callable[[Tensor, Tensor], Tensor]:
    path = folder / f"{name}.py"
    path.write_text(ExpressionLoss(LOSSES[name].expression, scale=1.0).source())
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[Tensor, Tensor], Tensor] = module.loss
    return function


def test_every_named_loss_has_an_exact_one_and_a_source() -> None:
    assert list(EXACT) == list(LOSSES)
    assert all(loss.source and loss.name == name for name, loss in LOSSES.items())
    for _, loss in LOSSES.items():
        assert {setting.name for setting in loss.constants} == set(loss.expression.constants)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_right_at_any_score(name: str, dtype: type[np.floating], label: float) -> None:
    value, gradient = exact(name, label)
    held = np.abs(SCORES) < (5 if dtype is np.float32 else 700) if name in AS_PUBLISHED else np.abs(value) < 1e37
    scores, labels = SCORES.astype(dtype), np.full(len(SCORES), label, dtype)
    (found,), (slope,) = run(compiled([LOSSES[name].expression]), scores, labels)
    near = 2e-5 if dtype is np.float32 else 2e-6  # the guards of log and inv: 1e-6
    np.testing.assert_allclose(found[held], value[held], rtol=near, atol=10 * near)
    np.testing.assert_allclose(slope[held], gradient[held], rtol=50 * near, atol=near)
    if name != "exponential" and name not in AS_PUBLISHED:
        assert held.all() and np.isfinite(found).all() and np.isfinite(slope).all()
    else:
        assert not np.isnan(found).any()


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in (*AS_PUBLISHED, "exponential")])
def test_what_is_exported_is_right_at_any_score(name: str, tmp_path: Path) -> None:
    function = pasted(name, tmp_path)
    loss = ExpressionLoss(LOSSES[name].expression, scale=1.0)
    for label in (0.0, 1.0):
        wanted, slope = exact(name, label)
        for dtype, near in ((torch.float32, 2e-5), (torch.float64, 2e-6)):
            score = torch.tensor(SCORES, dtype=dtype, requires_grad=True)
            labels = torch.full_like(score, label)
            for call in (function, loss):
                mean = call(score, labels)
                (gradient,) = torch.autograd.grad(mean, score)
                np.testing.assert_allclose(float(mean.detach()), wanted.mean(), rtol=near, atol=near)
                np.testing.assert_allclose(gradient.numpy() * len(SCORES), slope, rtol=50 * near, atol=near)


def test_focal_costs_most_where_the_model_is_most_wrong() -> None:
    """Written with log(1 - pred) it was 0, with gradient 0, from score 17 on."""
    scores = np.array([10.0, 15.0, 17.0, 20.0, 100.0], np.float32)
    (value,), (slope,) = run(compiled([LOSSES["focal"].expression]), scores, np.zeros(5, np.float32))
    np.testing.assert_allclose(value, scores, rtol=1e-3)
    np.testing.assert_allclose(slope, 1, rtol=2e-3)


def test_what_overflows_is_infinite_and_nothing_else() -> None:
    scores = np.array([-200.0, -170.0, 200.0], np.float32)
    (value,), (slope,) = run(compiled([LOSSES["exponential"].expression]), scores, np.ones(3, np.float32))
    assert value[0] == np.inf and slope[0] == -np.inf
    assert np.isfinite(value[1:]).all() and np.isfinite(slope[1:]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_value_in_the_declared_range_trains(name: str) -> None:
    loss = LOSSES[name]
    for setting in loss.constants:
        for value in (setting.low, setting.default, setting.high):
            moved = loss.expression.with_constants(**{setting.name: value})
            assert screen([moved]).reasons == [None], f"{setting.name} = {value}"


@pytest.mark.parametrize("smoothing", [1e-6, 1e-4, 1e-3, 0.1])
def test_published_ratios_take_their_smoothing(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(4)
    score = torch.randn(500, generator=generator, dtype=torch.float64) * 2
    label = (torch.rand(500, generator=generator) < 0.5).double()
    for make, expected in ((max_ratio, max_ratio_of), (sum_ratio, sum_ratio_of), (log_min, log_min_of)):
        found = ExpressionLoss(make(smoothing), scale=1.0)(score, label)
        torch.testing.assert_close(found, expected(score, label, smoothing).mean(), rtol=1e-5, atol=0)
    assert max_ratio(EPS) is LOSSES["maxr"].expression


def test_losses_are_drawn_for_either_label() -> None:
    views = TASKS["pointwise"].views
    assert {name: set(view["label"].tolist()) for name, view in views.items()} == {
        "the label is 1": {1.0},
        "the label is 0": {0.0},
    }
    for view in views.values():
        assert view["score"].min() == -6 and view["score"].max() == 6
