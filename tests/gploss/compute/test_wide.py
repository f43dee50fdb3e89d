"""Losses with inputs of m values an example: against torch in float64, whatever stands where no value is."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.language.formula import TORCH
from gploss.language.operators import OPERATORS, OperatorError, register_operator
from gploss.language.reductions import Reduction, reduction
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.loss_function import ExpressionLoss
from gploss.screening.screening import Reason, screen
from gploss.tasks import Input, Task
from gploss.tasks.pointwise import POINTWISE

Floats = npt.NDArray[Any]
REDUCTIONS = [name for name, row in OPERATORS.items() if isinstance(row, Reduction)]
ELEMENTWISE = ("add", "mul", "max", "min", "neg", "sigmoid", "tanh", "relu", "abs", "softplus", "log", "square")

ROWS = (
    terminal("pos", "ahead", ("ahead",), {"ahead": "1"}),
    terminal("other", "behind", ("behind",), {"behind": "1"}),
    terminal("gap", "behind - ahead * share", ("behind", "ahead", "share"), {"behind": "1", "ahead": "-share"}),
    terminal("share_of", "share", ("share",)),
    terminal("rarity", "1 / (1 + abs(count))", ("count",)),
)

#: Of a user's own; registered for all tests of this file, so that kernels are compiled once.
ROOTED = reduction("rooted", "x * x", "sqrt(total + EPS)", "x / value")


@pytest.fixture(autouse=True)
def pairs() -> Iterator[Task]:
    """A score, m scores to compare it with, a number of the example, and one of each of the m."""
    for row in ROWS:
        register_terminal(row)
    register_operator(ROOTED)
    yield Task(
        name="pairs",
        inputs=(
            Input("ahead", [0.5, -1.0, 2.0, 0.25], differentiable=True),
            Input("behind", [[0.2, 0.3, -1.0], [1.0], [-0.5, 0.75], [0.1]], differentiable=True, wide=True),
            Input("share", [0.5, 1.0, 1.5, 2.0]),
            Input("count", [[1.0, 2.0, 0.0], [4.0], [1.0, 3.0], [2.0]], wide=True),
        ),
        terminals=tuple(row.name for row in ROWS),
        leaves=("pos", "other"),
        metric="none",
    )
    OPERATORS.unregister("rooted")
    for row in ROWS:
        TERMINALS.unregister(row.name)


def expected(
    expression: Expression, inputs: dict[str, torch.Tensor], present: torch.Tensor
) -> tuple[torch.Tensor, bool]:
    """The loss of each example by torch, and whether it is wide at the root."""
    rows = {row.name: row for row in ROWS}
    values: dict[Expression, torch.Tensor] = {}
    for node in expression.canonical().nodes():
        if node.constant is not None:
            values[node] = torch.full((len(present), 1), node.constant, dtype=torch.float64)
        elif not node.operands:
            values[node] = rows[node.head].value.compute(TORCH, **inputs)
        else:
            operator = OPERATORS[node.head]
            operands = [values[operand] for operand in node.operands]
            if isinstance(operator, Reduction):
                values[node] = operator.compute(operands[0].expand_as(present.double()), present)
            else:
                values[node] = operator.value.compute(
                    TORCH, **dict(zip(operator.operand_names, torch.broadcast_tensors(*operands), strict=True))
                )
    root = values[expression.canonical()]
    wide = root.shape[1] == present.shape[1] > 1
    if wide:
        root = torch.where(present, root, 0.0).sum(1, keepdim=True) / present.sum(1, keepdim=True)
    return root[:, 0], wide


def drawn(rng: np.random.Generator, n: int, m: int) -> tuple[dict[str, Floats], npt.NDArray[np.bool_]]:
    inputs = {
        "ahead": rng.normal(size=n),
        "behind": rng.normal(size=(n, m)),
        "share": rng.random(n),
        "count": rng.integers(0, 9, (n, m)).astype(float),
    }
    present = rng.random((n, m)) < 0.7
    present[np.arange(n), rng.integers(0, m, n)] = True
    return inputs, present


def formulas() -> st.SearchStrategy[Expression]:
    leaves = st.sampled_from(["pos", "other", "gap", "share_of", "rarity", "0.5", "2"]).map(Expression.leaf)

    def grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        one = st.sampled_from([*REDUCTIONS, *ELEMENTWISE])
        return st.tuples(one, inner, inner).map(
            lambda parts: Expression.apply(parts[0], *parts[1 : 1 + OPERATORS[parts[0]].arity])
        )

    return st.recursive(leaves, grown, max_leaves=6).filter(
        lambda formula: bool({"pos", "other", "gap"} & formula.terminals)
    )


@settings(deadline=None, max_examples=150)
@given(formulas(), st.integers(1, 9), st.sampled_from([1, 2, 7, 300]), st.integers(0, 99))
def test_value_and_gradient_are_torchs(formula: Expression, n: int, m: int, seed: int) -> None:
    task = Task(
        "pairs",
        (
            Input("ahead", [0.0], differentiable=True),
            Input("behind", [[0.0]], differentiable=True, wide=True),
            Input("share", [0.0]),
            Input("count", [[0.0]], wide=True),
        ),
        tuple(row.name for row in ROWS),
        ("pos",),
        "none",
    )
    inputs, present = drawn(np.random.default_rng(seed), n, m)
    (values,), gradients = Program.compile([formula], task).losses(inputs, present=present)
    tensors = {
        name: torch.tensor(column if column.ndim == 2 else column[:, None], dtype=torch.float64)
        for name, column in inputs.items()
    }
    for name in ("ahead", "behind"):
        tensors[name].requires_grad_()
    wanted, _ = expected(formula, tensors, torch.tensor(present))
    np.testing.assert_allclose(values, wanted.detach().numpy(), rtol=1e-9, atol=1e-12)
    slopes = (
        torch.autograd.grad(wanted.sum(), [tensors["ahead"], tensors["behind"]], materialize_grads=True)
        if wanted.requires_grad
        else [torch.zeros(n, 1), torch.zeros(n, m)]
    )
    kinks = {"max", "min", "relu", "abs", "largest"} & {node.head for node in formula.canonical().nodes()}
    if not kinks:  # where operands are equal, torch's subgradients are others
        np.testing.assert_allclose(gradients["ahead"][0], slopes[0][:, 0].numpy(), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(gradients["behind"][0], slopes[1].numpy(), rtol=1e-8, atol=1e-10)


TEXTS = (
    "softplus(other - pos)",
    "logsumexp(gap / 0.2)",
    "square(1 - pos) + mean(square(other) * rarity)",
    "relu(1 - pos + largest(other))",
    "sum(other * pos) + logmeanexp(other)",
    "clamped(logsumexp(other - pos))",
    "share_of * pos + mean(pos)",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("nothing", [1e9, -1e9, np.nan, np.inf])
def test_what_is_not_there_changes_no_bit(text: str, nothing: float, pairs: Task) -> None:
    program = Program.compile([Expression.parse(text)], pairs)
    inputs, present = drawn(np.random.default_rng(0), 40, 6)
    plain = program.losses(inputs, present=present)
    filled = {name: np.where(present, c, nothing) if c.ndim == 2 else c for name, c in inputs.items()}
    found = program.losses(filled, present=present)
    np.testing.assert_array_equal(found[0], plain[0], strict=True)
    for name in ("ahead", "behind"):
        np.testing.assert_array_equal(found[1][name], plain[1][name], strict=True)
    assert not found[1]["behind"][0][~present].any()


@pytest.mark.parametrize("text", TEXTS)
def test_fewer_values_are_the_same_as_values_that_are_not_there(text: str, pairs: Task) -> None:
    program = Program.compile([Expression.parse(text)], pairs)
    inputs, _ = drawn(np.random.default_rng(0), 40, 6)
    present = np.tile(np.arange(6) < 4, (40, 1))
    narrow = {name: c[:, :4] if c.ndim == 2 else c for name, c in inputs.items()}
    more, fewer = program.losses(inputs, present=present), program.losses(narrow)
    np.testing.assert_array_equal(more[0], fewer[0])
    np.testing.assert_array_equal(more[1]["behind"][:, :, :4], fewer[1]["behind"])


def test_members_have_losses_and_scores_of_their_own(pairs: Task) -> None:
    program = Program.compile([Expression.parse(text) for text in TEXTS], pairs).scaled(np.arange(1.0, 8.0))
    rng = np.random.default_rng(1)
    inputs, present = drawn(rng, 300, 5)
    own = inputs | {"ahead": rng.normal(size=(3, 300)), "behind": rng.normal(size=(3, 300, 5))}
    rows = np.array([4, 0, 4])
    values, gradients = program.losses(own, rows, present)
    assert values.shape == (3, 300) and gradients["behind"].shape == (3, 300, 5)
    for member, row in enumerate(rows.tolist()):
        alone = {name: column[member] if name in ("ahead", "behind") else column for name, column in own.items()}
        single = program.losses(alone, np.array([row]), present)
        np.testing.assert_array_equal(values[member], single[0][0])
        np.testing.assert_array_equal(gradients["ahead"][member], single[1]["ahead"][0])
        np.testing.assert_array_equal(gradients["behind"][member], single[1]["behind"][0])
    unscaled = program.scaled(np.ones(7)).losses(own, rows, present)
    np.testing.assert_allclose(values, unscaled[0] * np.array([[5.0], [1.0], [5.0]]), rtol=1e-12)


def test_singles_are_computed_in_singles(pairs: Task) -> None:
    program = Program.compile([Expression.parse(text) for text in TEXTS], pairs)
    inputs, present = drawn(np.random.default_rng(2), 50, 5)
    singles = {name: column.astype(np.float32) for name, column in inputs.items()}
    exact, found = program.losses(inputs, present=present), program.losses(singles, present=present)
    assert found[0].dtype == found[1]["behind"].dtype == np.float32
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1]["behind"], exact[1]["behind"], rtol=1e-3, atol=1e-5)


def test_losses_are_screened_and_recognised(pairs: Task) -> None:
    texts = [
        "softplus(other - pos)", "mean(softplus(other - pos))", "2 * softplus(other - pos)", "square(other) - pos",
        "share_of", "logsumexp(other - pos)", "logsumexp(other) - pos", "exp(exp(exp(exp(9 + other))))",
    ]  # fmt: skip
    screening = screen([Expression.parse(text) for text in texts], pairs)
    names = screening.fingerprints
    assert names[0] == names[1] == names[2] and names[5] == names[6]
    assert len({names[0], names[3], names[5]}) == 3
    assert screening.reasons[4] is Reason.ZERO_GRADIENT and screening.reasons[7] is Reason.NON_FINITE
    values, gradients = screening.losses.losses(pairs.probes(), present=pairs.present)
    assert np.isfinite(values[:4]).all()
    sizes = [np.abs(np.concatenate([gradients["ahead"][0], gradients["behind"][0].ravel()])).mean()]
    np.testing.assert_allclose(sizes, 1)  # scale-free: the mean slope over all probes is 1


def test_a_task_without_such_inputs_refuses_reductions() -> None:
    with pytest.raises(
        ValueError, match="uses 'mean', which makes one number of several; the task 'pointwise' has"
    ):
        Program.compile([Expression.parse("mean(square(label - pred))")], POINTWISE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"behind": np.zeros((4, 0))}, "with an m of at least 1"),
        ({"behind": np.zeros(4)}, "wide inputs are"),
        ({"count": np.zeros((4, 2))}, "count of shape"),
        ({"ahead": np.zeros(5)}, "ahead of shape"),
        ({"ahead": np.zeros((3, 4))}, "ahead of shape"),
    ],
)
def test_shapes_are_checked(change: dict[str, Floats], message: str, pairs: Task) -> None:
    program = Program.compile([Expression.parse(text) for text in TEXTS[:2]], pairs)
    inputs, present = drawn(np.random.default_rng(0), 4, 3)
    with pytest.raises(ValueError, match=message):
        program.losses(inputs | change, present=present)


def test_each_example_needs_a_value(pairs: Task) -> None:
    program = Program.compile([Expression.parse(TEXTS[0])], pairs)
    inputs, present = drawn(np.random.default_rng(0), 4, 3)
    present[2] = False
    with pytest.raises(ValueError, match="example 2 has no value that is there; leave it out"):
        program.losses(inputs, present=present)
    for wrong in (present[:2], present.astype(float)):
        with pytest.raises(ValueError, match="give bool of"):
            program.losses(inputs, present=wrong)


def test_a_reduction_of_ones_own(pairs: Task) -> None:
    own = reduction("spread_of", "(x - peak) * (x - peak)", "total / count", "2 * (x - value)")
    with pytest.raises(OperatorError, match=r"'spread_of': d/dx is .* place 0, but '2 \* \(x - value\)' gives"):
        register_operator(own)
    inputs, _ = drawn(np.random.default_rng(0), 20, 3)
    program = Program.compile([Expression.parse("rooted(other)")], pairs)
    (values,), gradients = program.losses(inputs)
    norms = np.linalg.norm(inputs["behind"], axis=1)
    np.testing.assert_allclose(values, norms, rtol=1e-5)
    np.testing.assert_allclose(gradients["behind"][0], inputs["behind"] / norms[:, None], rtol=1e-5)
    assert program.texts[0].startswith("rooted(other) where ")
    assert '"term": "x * x"' in program.texts[0]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_know_their_derivative(name: str) -> None:
    row = OPERATORS[name]
    assert isinstance(row, Reduction)
    row.check()
    x = torch.randn(6, 5, dtype=torch.float64)
    wanted = {
        "mean": x.mean(-1), "sum": x.sum(-1), "largest": x.amax(-1), "logsumexp": x.logsumexp(-1),
        "logmeanexp": x.logsumexp(-1) - np.log(5),
    }  # fmt: skip
    torch.testing.assert_close(row.compute(x)[:, 0], wanted[name])
    torch.testing.assert_close(row.compute(1000 * x)[:, 0].isfinite(), torch.ones(6, dtype=torch.bool))


def test_wide_inputs_of_a_task_have_as_many_values() -> None:
    with pytest.raises(ValueError, match="different numbers of values at a probe"):
        Task(
            "odd",
            (Input("ahead", [[0.0, 1.0]], differentiable=True, wide=True), Input("behind", [[0.0]], wide=True)),
            ("pos",),
            ("pos",),
            "none",
        )
    with pytest.raises(ValueError, match="give finite probes, at least one"):
        Input("behind", [[]], wide=True)
    with pytest.raises(TypeError, match="probes must be a list of numbers"):
        Input("behind", [1.0], wide=True)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_exported_is_what_is_trained(text: str, pairs: Task, tmp_path: Path) -> None:
    expression = Expression.parse(text)
    inputs, present = drawn(np.random.default_rng(3), 30, 4)
    columns = {name: torch.tensor(inputs[name], requires_grad=name in ("ahead", "behind")) for name in inputs}
    loss = ExpressionLoss(expression, 0.5, pairs)
    given = [columns[name] for name in loss.arguments]
    program = Program.compile([expression], pairs)
    for there in (None, present):
        (values,), gradients = program.losses(inputs, present=there)
        found = loss(*given, present=None if there is None else torch.tensor(there))
        np.testing.assert_allclose(float(found.detach()), values.mean() / 0.5, rtol=1e-9)
        ahead, behind = torch.autograd.grad(found, [columns["ahead"], columns["behind"]], materialize_grads=True)
        np.testing.assert_allclose(ahead.numpy(), gradients["ahead"][0] / 15, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(behind.numpy(), gradients["behind"][0] / 15, rtol=1e-7, atol=1e-12)
    path = tmp_path / "pasted.py"
    path.write_text(loss.source())
    pasted = runpy.run_path(str(path))["loss"]
    torch.testing.assert_close(pasted(*given), loss(*given))
    short = [column[:7] if name == "ahead" else column for name, column in zip(loss.arguments, given, strict=True)]
    for call in (loss, pasted):
        with pytest.raises(ValueError, match=r"give .*, for nothing is broadcast|is needed, got"):
            call(*short)
