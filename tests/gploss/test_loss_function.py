from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss, Loss
from gploss.screening.screening import screen
from gploss.tasks.pointwise import LOSSES, log_min, max_ratio, sum_ratio
from tests.strategies import any_expressions

EPS = 1e-6


def batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    score = torch.randn(500, generator=generator, dtype=torch.float64) * 2
    label = (torch.rand(500, generator=generator) < 0.5).double()
    return score.to(dtype), label.to(dtype)


def published(name: str, score: torch.Tensor, label: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    """The losses as their papers and torch have them."""
    p = torch.sigmoid(score)
    smaller = torch.minimum(label, p)
    match name:
        case "bce":
            return functional.binary_cross_entropy_with_logits(score, label)
        case "mse":
            return functional.mse_loss(p, label)
        case "hinge":
            return torch.clamp(1 - (2 * label - 1) * score, min=0).mean()
        case "hinge_embedding":  # AutoLossGen's call: targets 1 - 2 y
            return functional.hinge_embedding_loss(score, 1 - 2 * label)
        case "focal":  # gamma = 2, no weights of classes
            hit = torch.where(label == 1, p, 1 - p)
            return (-((1 - hit) ** 2) * hit.log()).mean()
        case "maxr":
            return torch.maximum((label + eps) / (p + eps), (p + eps) / (label + eps)).mean()
        case "sumr":
            return ((label + p + eps) / (label * p + eps)).mean()
        case "logmin":
            return (torch.log(1 / (smaller + eps)) * (smaller + label + p)).mean()
    raise AssertionError(name)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_as_published(name: str) -> None:
    score, label = batch()
    score.requires_grad_()
    expected = published(name, score, label)
    found = ExpressionLoss(LOSSES[name].expression, scale=1.0)(score, label)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # the guards of 1e-6
    (wanted,) = torch.autograd.grad(expected, score)
    (gradient,) = torch.autograd.grad(found, score)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("smoothing", [1e-6, 1e-4, 1e-3, 0.1])
def test_published_ratios_take_their_smoothing(smoothing: float) -> None:
    score, label = batch()
    for name, make in (("maxr", max_ratio), ("sumr", sum_ratio), ("logmin", log_min)):
        found = ExpressionLoss(make(smoothing), scale=1.0)(score, label)
        torch.testing.assert_close(found, published(name, score, label, smoothing), rtol=1e-5, atol=0)
    assert max_ratio(EPS) is LOSSES["maxr"].expression


@pytest.mark.parametrize("name", LOSSES)
def test_losses_hold_in_single_precision_on_confident_scores(name: str) -> None:
    score = torch.linspace(-25, 25, 101).repeat(2).requires_grad_()
    label = torch.tensor([0.0, 1.0]).repeat_interleave(101)
    value = ExpressionLoss(LOSSES[name].expression)(score, label)
    (gradient,) = torch.autograd.grad(value, score)
    assert bool(value.isfinite()) and bool(gradient.isfinite().all())


def test_by_default_a_loss_is_divided_by_its_own_scale() -> None:
    score, label = batch()
    for expression in (loss.expression for _, loss in LOSSES.items()):
        scale = float(screen([expression]).scales[0])
        loss = ExpressionLoss(expression)
        assert loss.scale == scale
        torch.testing.assert_close(loss(score, label) * scale, ExpressionLoss(expression, 1.0)(score, label))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("pred", "no dependence on label"), ("label", "zero gradient"), ("exp(exp(9 + logit))", "non-finite")],
)
def test_what_cannot_be_a_loss_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be a loss: {reason}"):
        ExpressionLoss(Expression.parse(text))
    ExpressionLoss(Expression.parse(text), scale=2.0)  # as you like


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive_and_finite(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive"):
        ExpressionLoss(LOSSES["bce"].expression, scale)


def test_a_loss_meets_the_protocol_and_trains() -> None:
    loss = ExpressionLoss(LOSSES["bce"].expression)
    assert isinstance(loss, Loss)
    score, label = torch.zeros(50, requires_grad=True), torch.ones(50)
    optimizer = torch.optim.SGD([score], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(loss(score, label))
        optimizer.step()
    assert float(score.detach().min()) > 0.2
    assert loss.latex() == LOSSES["bce"].expression.latex()
    assert loss.source("mine").startswith("import torch\n\n\ndef mine(")
    assert str(loss) == "relu(s) + log(1 + exp(-abs(s))) - y * s"
    copy = pickle.loads(pickle.dumps(loss))  # noqa: S301 - our own bytes
    assert copy.expression is loss.expression and copy.scale == loss.scale


@given(any_expressions(), st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False))
def test_a_saved_loss_comes_back(
    tmp_path_factory: pytest.TempPathFactory, expression: Expression, scale: float
) -> None:
    path = tmp_path_factory.mktemp("saved") / "loss.json"
    ExpressionLoss(expression, scale).save(path)
    loaded = ExpressionLoss.load(str(path))
    assert loaded.expression is expression
    assert loaded.scale == scale
    assert json.loads(path.read_text())["expression"] == str(expression)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        '"text"',
        "{}",
        '{"expression": "pred"}',
        '{"expression": "pred", "scale": null}',
        '{"expression": "pred", "scale": 0}',
        '{"expression": "pred", "scale": NaN}',
        '{"expression": "prod", "scale": 1}',
        '{"expression": 3, "scale": 1}',
        '{"expression": "foo(pred)", "scale": 1}',
        b"\xff\xfe\x00",
    ],
)
def test_a_file_that_holds_no_loss(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "loss.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"loss\.json holds no saved loss"):
        ExpressionLoss.load(path)
    with pytest.raises(FileNotFoundError):
        ExpressionLoss.load(tmp_path / "absent.json")
