"""Tasks: what they refuse, and losses of a task with inputs of its own against automatic differentiation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.operators import OPERATORS
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.screening.screening import Reason, screen
from gploss.setting import Setting
from gploss.tasks import TASKS, Input, NamedLoss, Task
from gploss.tasks.pointwise import POINTWISE

parse = Expression.parse
PROBES = tuple(np.linspace(-2, 2, 16))

ROWS = (
    terminal(
        "gap", "tanh(left) - right", ("left", "right"), {"left": "1 - tanh(left) * tanh(left)", "right": "-1"}
    ),
    terminal("lift", "left * left * depth", ("left", "depth"), {"left": "2 * left * depth"}),
    terminal("far", "1 * right", ("right",), {"right": "1"}),
    terminal("deep", "abs(depth)", ("depth",)),
)

INPUTS = (
    Input("depth", PROBES[::-1], altered=tuple(np.linspace(-1, 3, 16))),
    Input("left", PROBES, differentiable=True),
    Input("right", np.cos(PROBES), differentiable=True),
)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """Two inputs from a model, one from the data, few operators."""
    few = ("add", "mul", "neg", "square", "exp")
    monkeypatch.setattr(OPERATORS, "_entries", {name: OPERATORS[name] for name in few})
    for row in ROWS:
        register_terminal(row)
    yield Task("pairs", INPUTS, ("gap", "lift", "far", "deep"), ("gap", "lift", "far", "deep", "1"), "gain")
    for row in ROWS:
        TERMINALS.unregister(row.name)


def points(count: int = 300) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 1, count) for name in ("depth", "left", "right")}


def by_torch(expression: Expression, given: dict[str, npt.NDArray[Any]]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and derivatives written out for torch: of terminals by hand, of operators by torch."""
    left, right = (torch.tensor(given[name], requires_grad=True) for name in ("left", "right"))
    depth = torch.tensor(given["depth"])
    values: dict[str, Any] = {
        "gap": torch.tanh(left) - right,
        "lift": left**2 * depth,
        "far": right,
        "deep": depth.abs(),
    }
    functions: dict[str, Any] = {
        "add": torch.add, "mul": torch.mul, "neg": torch.neg, "square": torch.square, "exp": torch.exp,
    }  # fmt: skip
    for node in expression.nodes():
        if node.operands:
            values[str(node)] = functions[node.head](*(values[str(operand)] for operand in node.operands))
        elif node.constant is not None:
            values[str(node)] = torch.full_like(left, node.constant)
    loss = values[str(expression)] + 0 * (left + right)
    return loss, list(torch.autograd.grad(loss.sum(), (left, right)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_with_several_inputs_equal_automatic_differentiation(pairs: Task, dtype: Any) -> None:
    grammar = Grammar.standard(pairs)
    rng = np.random.default_rng(1)
    drawn = [grammar.sample(rng, int(rng.integers(1, 5))) for _ in range(60)]
    expressions = [parse("gap * lift"), parse("exp(neg(gap)) * deep + square(far)"), *drawn]
    given = {name: column.astype(dtype) for name, column in points().items()}
    losses, gradients = Program.compile(expressions, pairs).losses(given)
    assert losses.dtype == dtype and list(gradients) == ["left", "right"]
    tolerance = {np.float32: 1e-3, np.float64: 1e-9}[dtype]
    for k, expression in enumerate(expressions):
        wide = {name: column.astype(np.float64) for name, column in given.items()}
        wanted, slopes = by_torch(expression, wide)
        calm = wanted.detach().abs().numpy() < 1e6
        assert calm.mean() > 0.5
        pairs_of = [(losses, wanted.detach()), (gradients["left"], slopes[0]), (gradients["right"], slopes[1])]
        for found, exact in pairs_of:
            size = np.abs(exact.numpy()[calm]).max() * tolerance + 1e-30
            np.testing.assert_allclose(found[k, calm], exact.numpy()[calm], rtol=tolerance, atol=size * 1e-2)


def test_what_no_loss_uses_may_be_missing(pairs: Task) -> None:
    program = Program.compile([parse("square(gap)")], pairs)
    given = points(5)
    assert program.uses == ("left", "right")
    full, _ = program.losses(given)
    del given["depth"]
    np.testing.assert_array_equal(program.losses(given)[0], full)
    with pytest.raises(ValueError, match="the losses use the input 'right', which is not there; give left, right"):
        program.losses({"left": given["left"]})
    with pytest.raises(ValueError, match="'pairs' has no input 'label'; it has depth, left, right"):
        program.losses({**given, "label": given["left"]})
    with pytest.raises(ValueError, match="uses 'pred', which the task 'pairs' does not have"):
        Program.compile([parse("pred")], pairs)


def test_screening_asks_for_the_required_input_over_all_gradients(pairs: Task) -> None:
    losses = [
        parse(text) for text in ("square(gap)", "lift + far", "deep", "deep * far", "exp(exp(exp(99 + far)))")
    ]
    screening = screen(losses, pairs)
    assert screening.reasons == [
        Reason.NO_DEPENDENCE, None, Reason.ZERO_GRADIENT, None, Reason.NON_FINITE,
    ]  # fmt: skip
    assert screening.texts == ["no dependence on depth", None, "zero gradient", None, "non-finite"]
    given = pairs.probes()
    slopes = [np.concatenate([column.numpy() for column in by_torch(loss, given)[1]]) for loss in losses[:2]]
    np.testing.assert_allclose(screening.scales[:2], [np.abs(slope).mean() for slope in slopes], rtol=1e-12)
    # a gradient that differs in the second input alone is another loss
    assert len(set(screen([parse("lift + far"), parse("lift + 2 * far")], pairs).fingerprints)) == 2
    with pytest.raises(ValueError, match="'pairs' has no check of the direction"):
        screen(losses, pairs, check_direction=True)


def test_a_trainer_of_one_score_refuses_two(pairs: Task) -> None:
    assert POINTWISE.score == "score"
    with pytest.raises(ValueError, match=r"'pairs' has several inputs that come from the model \(left, right\)"):
        _ = pairs.score


@pytest.mark.parametrize(
    ("inputs", "terminals", "message"),
    [
        ((INPUTS[1], INPUTS[1]), ("pred",), "an input occurs twice in left, left"),
        ((INPUTS[0],), ("label",), "no input is differentiable"),
        ((INPUTS[1], Input("label", (1.0,))), ("label",), "different numbers of probes"),
        ((INPUTS[1],), ("label",), r"terminal 'label' is made of 'label', which is none of the inputs \(left\)"),
        ((Input("label", PROBES, differentiable=True),), ("label",), "'label' needs a derivative with respect to"),
    ],
)
def test_a_task_that_does_not_fit_together(inputs: Any, terminals: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'bad': .*{message}"):
        Task("bad", inputs, terminals, terminals, "auc")
    with pytest.raises(LookupError, match="no terminal is named 'absent'"):
        Task("bad", INPUTS, ("absent",), (), "auc")


@pytest.mark.parametrize("probes", [(), (1.0, float("nan")), (float("inf"),)])
def test_probes_are_finite_numbers(probes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Input("a", probes)
    with pytest.raises(ValueError, match="2 altered values for 1 probes"):
        Input("a", (1.0,), altered=(1.0, 2.0))


def test_one_more_input(pairs: Task) -> None:
    register_terminal(terminal("colour", "1 * colour", ("colour",)))
    try:
        more = POINTWISE.with_input(Input("colour", np.linspace(0, 1, 64)), "colour")
        assert more.name == "pointwise+colour" and more != POINTWISE
        assert Grammar.standard(more).terminals == (*POINTWISE.leaves, "colour")
        assert "colour" not in Grammar.standard().terminals
        losses = [parse("square(label + neg(pred))"), parse("square(label + neg(pred)) * colour")]
        plain, weighted = screen(losses, more).fingerprints
        assert plain == screen(losses[:1]).fingerprints[0] != weighted
    finally:
        TERMINALS.unregister("colour")


def test_tasks_are_found_by_name() -> None:
    assert TASKS["pointwise"] is POINTWISE


def test_a_named_loss_declares_the_constants_that_its_formula_has() -> None:
    loss = parse("t=0.5; square(label - t * pred)")
    assert NamedLoss("own", loss, constants=(Setting("t", 0.5, 0.1, 1.0),)).constants[0].high == 1.0
    assert NamedLoss("own", loss).constants == ()
    with pytest.raises(ValueError, match=r"loss 'own': t is declared as 0\.4, its formula has 0\.5"):
        NamedLoss("own", loss, constants=(Setting("t", 0.4, 0.1, 1.0),))
    with pytest.raises(ValueError, match=r"loss 'own': u is declared as 0\.5, its formula does not have it"):
        NamedLoss("own", loss, constants=(Setting("u", 0.5, 0.1, 1.0),))
