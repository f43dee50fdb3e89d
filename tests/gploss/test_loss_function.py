from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss, LossFunction
from gploss.screening.screening import screen
from gploss.tasks.pointwise import LOSSES
from tests.strategies import any_expressions


def batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    score = torch.randn(500, generator=generator, dtype=torch.float64) * 2
    label = (torch.rand(500, generator=generator) < 0.5).double()
    return score.to(dtype), label.to(dtype)


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
    with pytest.raises(ValueError, match=r"scale must be (finite|above 0)"):
        ExpressionLoss(LOSSES["bce"].expression, scale)


def test_a_loss_meets_the_protocol_and_trains() -> None:
    loss = ExpressionLoss(LOSSES["bce"].expression)
    assert isinstance(loss, LossFunction)
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
