from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gploss.language.export import torch_source, torch_values
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, Operator
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.loss_function import ExpressionLoss
from gploss.tasks import Input, Task
from gploss.tasks.pointwise import LOSSES, POINTWISE
from tests import reference
from tests.pointwise import OPERATORS_HERE, compiled, run
from tests.strategies import GRAMMARS, random_expressions

parse = Expression.parse
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def written(folder: Path, source: str, name: str = "pasted") -> ModuleType:
    """Save source code as a module, as a user would, and import it."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def many(folder: Path, losses: list[tuple[Expression, float]]) -> list[Function]:
    """Export losses into one module, a function each."""
    sources = [torch_source(expression, scale, f"loss_{k}") for k, (expression, scale) in enumerate(losses)]
    module = written(folder, "\n\n".join(sources))
    return [getattr(module, f"loss_{k}") for k in range(len(losses))]


def values_of(loss: Expression, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch_values(loss, {"score": score, "label": label}, POINTWISE)


def slope(function: Function, scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    score = torch.tensor(scores, requires_grad=True)
    value = function(score, torch.tensor(labels))
    gradient = np.zeros(len(scores))
    if value.requires_grad:
        (found,) = torch.autograd.grad(value, score)
        gradient = found.numpy()
    return value.item(), gradient


def test_exported_source_is_the_loss_that_was_trained(tmp_path: Path) -> None:
    """Source, ExpressionLoss and Program equal plain torch in float64, on a batch of the steady samples."""
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 1.5, 40), rng.integers(0, 2, 40).astype(float)
    expressions = [loss.expression for _, loss in LOSSES.items()]
    expressions += [
        expression for grammar in GRAMMARS.values() for expression in random_expressions(5, 80, grammar)
    ]
    expressions += [
        parse(text) for text in ("2.5", "label", "logit", "pred", "clamped(label)", "clamped(neg(pred))")
    ]
    scales = np.exp(rng.normal(0, 2, len(expressions)))
    functions = many(tmp_path, list(zip(expressions, scales.tolist(), strict=True)))
    program = compiled(expressions, 1 / scales)
    checked = 0
    for k, expression in enumerate(expressions):
        exact = reference.evaluate(expression, scores, labels)
        batch = exact.steady & (exact.largest < 1e12)
        if not batch.any():
            continue
        checked += 1
        mean = exact.losses[batch].mean() / scales[k]
        gradients = exact.gradients[batch] / scales[k] / batch.sum()
        size = np.abs(exact.losses[batch]).mean() / scales[k]
        losses, pulls = run(program, scores[batch], labels[batch], np.array([k]))
        found = [
            slope(functions[k], scores[batch], labels[batch]),
            slope(ExpressionLoss(expression, float(scales[k])), scores[batch], labels[batch]),
            (losses.mean(), pulls[0] / batch.sum()),
        ]
        for value, gradient in found:
            np.testing.assert_allclose(value, mean, rtol=1e-9, atol=1e-12 * size, err_msg=str(expression))
            np.testing.assert_allclose(gradient, gradients, rtol=1e-9, atol=0, err_msg=str(expression))
    assert checked > 0.9 * len(expressions)


@pytest.mark.parametrize("name", [row.name for row in OPERATORS_HERE])
@pytest.mark.parametrize("semantics", ["plain", "clamped"])
def test_torch_values_are_those_of_plain_torch(name: str, semantics: Any) -> None:
    operands = [parse("logit"), parse("label - 0.4 * pred")][: OPERATORS[name].arity]
    expression = Expression.apply(name, *operands).with_semantics(semantics)
    scores = np.random.default_rng(1).normal(0, 2, 100)
    labels = (scores > 0.3).astype(float)
    exact = reference.evaluate(expression, scores, labels)
    values = values_of(expression, torch.tensor(scores), torch.tensor(labels)).numpy()
    np.testing.assert_allclose(values[exact.steady], exact.losses[exact.steady], rtol=1e-12)
    assert exact.steady.mean() > 0.8


def test_torch_values_keep_the_scores_shape_and_precision() -> None:
    loss = parse("square(label - pred) + 0.5")
    score = torch.zeros(3, 4, dtype=torch.float32)
    for label in (torch.ones(3, 4), torch.ones(3, 4, dtype=torch.int64), torch.tensor(True)):
        values = values_of(loss, score, label)
        assert values.shape == (3, 4) and values.dtype == torch.float32
        assert bool((values == 0.75).all())
    assert values_of(parse("label"), score, torch.ones(3, 4)).shape == (3, 4)
    assert values_of(parse("2.5"), score, torch.tensor(1)).tolist() == [[2.5] * 4] * 3


def ways(folder: Path, loss: Expression) -> list[Function]:
    """The loss as an object, and as source code that was pasted."""
    return [ExpressionLoss(loss, 1.0), *many(folder, [(loss, 1.0)])]


SHAPES = [
    ((4, 1), (4,)),
    ((4,), (4, 1)),
    ((4,), (1, 4)),
    ((4, 1), (1, 4)),
    ((4,), (3,)),
    ((4,), (1,)),
    ((2, 3), (3,)),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_nothing_is_broadcast(tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    score, label = torch.zeros(shapes[0]), torch.ones(shapes[1])
    for function in ways(tmp_path, LOSSES["bce"].expression):
        with pytest.raises(ValueError, match="one shape"):
            function(score, label)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_scores_are_real_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    for function in ways(tmp_path, LOSSES["bce"].expression):
        with pytest.raises(TypeError, match="score must be of real numbers"):
            function(torch.ones(3).to(dtype), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(tmp_path: Path, dtype: torch.dtype) -> None:
    scores = torch.linspace(-8, 8, 200).to(dtype)
    label = (torch.arange(200) % 2).to(dtype)
    for function in ways(tmp_path, parse("relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit")):
        half, single = scores.clone().requires_grad_(), scores.float().requires_grad_()
        value = function(half, label)
        expected = function(single, label.float())
        assert value.dtype == torch.float32 and value.item() == expected.item()
        value.backward()
        expected.backward()
        assert half.grad is not None and single.grad is not None
        assert half.grad.dtype == dtype and torch.equal(half.grad, single.grad.to(dtype))


def test_the_pasted_function_takes_integer_labels_and_any_precision(tmp_path: Path) -> None:
    (function,) = many(tmp_path, [(LOSSES["bce"].expression, 1.0)])
    for dtype in (torch.float32, torch.float64):
        score = torch.tensor([0.5, -1.0], dtype=dtype)
        value = function(score, torch.tensor([1, 0]))
        assert value.dtype == dtype and value.shape == ()
        expected = torch.nn.functional.binary_cross_entropy_with_logits(score, torch.tensor([1, 0]).to(score))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_a_users_own_operator_is_exported_in_full(tmp_path: Path, softramp: Operator) -> None:
    loss = parse("softramp(logit) - label * logit")
    (function,) = many(tmp_path, [(loss, 2.0)])
    score, label = torch.randn(20, dtype=torch.float64), torch.ones(20)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(score, label.double()) / 2
    torch.testing.assert_close(function(score, label), expected)
    assert "gploss" not in torch_source(loss)


@pytest.mark.parametrize("semantics", ["plain", "clamped"])
def test_the_source_is_plain_torch(semantics: Any) -> None:
    for expression in random_expressions(6, 60, GRAMMARS["standard"]):
        source = torch_source(expression.with_semantics(semantics), 0.5, "my_loss")
        tree = ast.parse(source)
        assert [type(node) for node in tree.body] == [ast.Import, ast.FunctionDef]
        assert max(len(line) for line in source.splitlines() if " = " not in line) <= 110
        function = tree.body[1]
        assert isinstance(function, ast.FunctionDef) and function.name == "my_loss"
        assert "divided by 0.5" in " ".join((ast.get_docstring(function) or "").split())


def test_guards_clamps_and_scale_are_written_out() -> None:
    source = torch_source(parse("clamped(log(pred))"), 0.125)
    assert "1e-06" in source
    assert "torch.clamp(" in source and "1e-05" in source and "100000.0" in source
    assert source.rstrip().endswith(".mean() / 0.125")
    assert "clamp" not in torch_source(parse("log(pred)"))
    assert torch_source(parse("log(pred)")).rstrip().endswith(".mean()")


@pytest.mark.parametrize("name", ["my loss", "", "1", "lambda", "a.b", "f(x): pass #"])
def test_a_function_needs_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a Python function"):
        torch_source(parse("pred"), name=name)


@pytest.fixture
def pairs() -> Iterator[Task]:
    """Two inputs from a model and one from the data, named so that terminals and variables could hide them."""
    rows = (
        terminal("gap", "other - v3", ("v3", "other"), {"v3": "-1", "other": "1"}),
        terminal("depth", "log(1 + abs(depth))", ("depth",)),
    )
    for row in rows:
        register_terminal(row)
    inputs = (
        Input("other", (0.5, 1.0), differentiable=True),
        Input("depth", (1.0, 2.0)),
        Input("v3", (0.0, -1.0), differentiable=True),
    )
    yield Task("pairs", inputs, ("gap", "depth"), ("gap", "depth"), "gain")
    for row in rows:
        TERMINALS.unregister(row.name)


def test_a_loss_of_another_task_is_exported_with_its_inputs(tmp_path: Path, pairs: Task) -> None:
    loss = parse("square(gap * depth) + exp(neg(gap)) - depth")
    other, v3 = (torch.randn(9, dtype=torch.float64, requires_grad=True) for _ in range(2))
    depth = torch.arange(9)
    d = torch.log(1 + depth.double())
    wanted = (((other - v3) * d) ** 2 + torch.exp(v3 - other) - d).mean() / 0.5
    function = written(tmp_path, torch_source(loss, 0.5, "mine", pairs)).mine
    mine = ExpressionLoss(loss, 0.5, pairs)
    assert mine.arguments == ("other", "depth", "v3")
    for found in (function(other, depth, v3), mine(other, depth, v3), mine(other, v3=v3, depth=depth)):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        for slope_found, slope_wanted in zip(
            torch.autograd.grad(found, (other, v3)), torch.autograd.grad(wanted, (other, v3), retain_graph=True),
            strict=True,
        ):  # fmt: skip
            torch.testing.assert_close(slope_found, slope_wanted, rtol=1e-9, atol=0)
    # what a loss does not use is no parameter, but for what comes from the model
    assert torch_source(parse("square(gap)"), task=pairs).count("torch.Tensor") == 3
    for wrong in ({}, {"v3": v3}, {"depth": depth, "v3": v3, "label": v3}):
        with pytest.raises(TypeError, match=r"is called with \(other, depth, v3\), not with \(\.\.\."):
            mine(other, **wrong)
    with pytest.raises(TypeError, match="is called with"):
        mine(other, depth, v3, depth)
    with pytest.raises(ValueError, match="uses 'pred', which the task 'pairs' does not have"):
        torch_source(parse("pred"), task=pairs)
