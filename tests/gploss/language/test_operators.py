from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from gploss.compute.tables import Tables
from gploss.language.export import torch_values
from gploss.language.expression import Expression
from gploss.language.formula import TORCH, Formula, FormulaError
from gploss.language.grammar import Grammar, GrammarError
from gploss.language.operators import (
    BUILT_IN,
    OPERATORS,
    Operator,
    OperatorError,
    binary,
    register_operator,
    unary,
)
from gploss.screening.screening import screen
from gploss.tasks.pointwise import POINTWISE
from tests import reference
from tests.pointwise import OPERATORS_HERE, compiled, run
from tests.strategies import SOFTRAMP

CUBE = ("x * x * x", "3 * x * x")


@pytest.fixture(autouse=True)
def _leave_no_operator_behind() -> Iterator[None]:
    before = OPERATORS.names()
    yield
    left = [name for name in OPERATORS if name not in before]
    for name in left:
        OPERATORS.unregister(name)
    assert OPERATORS.names() == before


@pytest.fixture
def few_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that compiles in a moment."""
    monkeypatch.setattr(OPERATORS, "_entries", {name: OPERATORS[name] for name in ("add", "mul", "neg")})


def test_the_operators_of_the_paper_come_first() -> None:
    assert OPERATORS.names()[:9] == ("add", "mul", "max", "min", "neg", "identity", "log", "square", "inv")


@pytest.mark.parametrize("name", [row.name for row in OPERATORS_HERE])
def test_value_and_derivative_equal_plain_torch(name: str) -> None:
    operator = OPERATORS[name]
    generator = torch.Generator().manual_seed(2)
    operands = [
        (torch.randn(500, generator=generator, dtype=torch.float64) * 3).requires_grad_()
        for _ in range(operator.arity)
    ]
    expected = reference.function(name)(*operands)
    wanted = [torch.zeros_like(x) for x in operands]
    if expected.requires_grad:
        wanted = list(torch.autograd.grad(expected.sum(), operands))
    named = dict(zip(operator.operand_names, operands, strict=True))
    value = operator.value.compute(TORCH, **named)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    for formula, gradient in zip(operator.derivatives, wanted, strict=True):
        found = torch.as_tensor(formula.compute(TORCH, **named, value=value), dtype=torch.float64)
        torch.testing.assert_close(found.expand(500), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["log", "inv", "sqrt"])
def test_protected_operators_are_finite_and_odd(name: str) -> None:
    x = torch.tensor([0.0, 1e-12, 1e-6, 0.5, 3.0, 1e12], dtype=torch.float64)
    formula = OPERATORS[name].value
    value = formula.compute(TORCH, x=x)
    assert bool(value.isfinite().all())
    assert torch.equal(value, -formula.compute(TORCH, x=-x))
    assert float(value[0]) == 0.0
    slope = OPERATORS[name].derivatives[0].compute(TORCH, x=torch.zeros(1), value=torch.zeros(1))
    assert float(slope) == 0.0


def opt_in(name: str, scores: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and derivative of an operator of the score, from the compiled program in float32."""
    program = compiled([Expression.parse(f"{name}(logit)")])
    losses, gradients = run(program, np.array([scores], np.float32), np.zeros(len(scores)))
    return torch.tensor(losses[0]), torch.tensor(gradients[0])


def test_softplus_is_exact_where_it_is_large_and_where_it_is_small() -> None:
    scores = [-1000.0, -87.0, -30.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 30.0, 1000.0]
    exact = torch.tensor(scores, dtype=torch.float64).requires_grad_()
    expected = torch.logaddexp(exact, torch.zeros_like(exact))
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    value, derivative = opt_in("softplus", scores)
    torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=1e-37)
    torch.testing.assert_close(derivative, slope.float(), rtol=1e-6, atol=1e-37)


def test_stop_grad_is_its_operand_to_all_but_training() -> None:
    value, derivative = opt_in("stop_grad", [-2.0, 0.0, 3.0])
    assert value.tolist() == [-2.0, 0.0, 3.0]
    assert derivative.tolist() == [0.0, 0.0, 0.0]
    weighted = compiled([Expression.parse("stop_grad(logit) * square(logit)")])
    losses, gradients = run(weighted, np.array([3.0]), np.array([1.0]))
    assert (losses[0, 0], gradients[0, 0]) == (27.0, 18.0)
    assert screen([Expression.parse("stop_grad(label - pred)")]).reasons == ["zero gradient"]


def test_the_log_of_what_is_positive_has_a_floor() -> None:
    value, derivative = opt_in("log_positive", [2.0, 1e-3, 1e-7, 0.0, -1.0, -1e6])
    torch.testing.assert_close(value, torch.tensor([2.0, 1e-3, 1e-6, 1e-6, 1e-6, 1e-6]).log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(derivative, torch.tensor([0.5, 1e3, 0, 0, 0, 0]), rtol=1e-6, atol=0)


def test_the_standard_grammar_holds_the_rest_where_it_is_asked_for() -> None:
    extra = ("softplus", "stop_grad", "log_positive")
    assert not set(extra) & set(Grammar.standard().operators)
    larger = Grammar.standard(extra=extra)
    assert larger.operators == (*Grammar.standard().operators, *extra)
    assert larger.content_hash != Grammar.standard().content_hash
    with pytest.raises(GrammarError, match="no operator is named 'softpluss'"):
        Grammar.standard(extra=["softpluss"])
    register_operator(unary("cube", *CUBE, opt_in=True))
    assert "cube" not in Grammar.standard().operators


@pytest.mark.parametrize("name", [row.name for row in BUILT_IN])
def test_commutative_means_bit_identical(name: str) -> None:
    operator = OPERATORS[name]
    assert operator.commutative == (name in {"add", "mul", "max", "min"})
    if operator.commutative:
        a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(3))
        a[:10] = b[:10]
        there = operator.derivatives[1].compute(TORCH, a=b, b=a, value=operator.value.compute(TORCH, a=b, b=a))
        here = operator.derivatives[0].compute(TORCH, a=a, b=b, value=operator.value.compute(TORCH, a=a, b=b))
        assert torch.equal(operator.value.compute(TORCH, a=a, b=b), operator.value.compute(TORCH, a=b, b=a))
        assert torch.equal(torch.as_tensor(here), torch.as_tensor(there))


@pytest.mark.parametrize(
    "name",
    [
        *("", "Cube", "1cube", "_cube", "cu be", "cube!", "cubé", "cube\n"),
        *("lambda", "if", "t1", "t23", "clamped", "sub", "div", "pred", "label", "logit"),
    ],
)
def test_names_that_an_expression_cannot_hold(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        register_operator(unary(name, *CUBE))
    assert name not in OPERATORS


def test_names_like_t_and_tau2_are_free() -> None:
    for name in ("t", "t1a", "tau2", "x", "value", "e1"):
        register_operator(unary(name, *CUBE))
        loss = Expression.parse(f"{name}(label - pred)")
        assert Expression.parse(str(loss)) is loss


def test_a_taken_name_is_turned_down() -> None:
    with pytest.raises(ValueError, match="'add' is taken by another operator"):
        register_operator(binary("add", "a + b", ("1", "1")))
    cube = register_operator(unary("cube", *CUBE))
    assert register_operator(cube) is cube


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (unary("bad", "x * x * x", "2 * x * x"), r"d/dx is .* at \{'x': .*\}, but '2 \* x \* x' gives"),
        (unary("bad", "x * x * x", "3 * x * x + 1e-6"), "d/dx is"),
        (unary("bad", "exp(x)", "x"), "d/dx is"),
        (unary("bad", "x * x", "2 * x / (x > 0)"), "d/dx is .* gives (-inf|nan)"),
        (unary("bad", "abs(x)", "0"), "d/dx is"),
        (unary("bad", "x > 0", "1"), "d/dx is 0 "),
        (binary("bad", "a * b", ("a", "a")), "d/da is"),
        (binary("bad", "a * b", ("b", "b")), "d/db is"),
        (unary("bad", "log(x)", "1 / x"), r"not finite at \{'x': -.*\}; guard it with EPS"),
        (unary("bad", "x / (x > 0)", "1"), "not finite at"),
        (unary("bad", "exp(exp(exp(exp(x))))", "1"), "not finite at"),
        (unary("bad", "2", "0"), "'2' uses no x"),
        (unary("bad", "EPS + 1", "0"), "uses no x"),
        (binary("bad", "a - b", ("1", "-1"), commutative=True), "a and b do not commute"),
        (binary("bad", "a * a * b", ("2 * a * b", "a * a"), commutative=True), "do not commute"),
        (unary("bad", *CUBE, latex="{y}^3"), r"has to print \{x\}"),
        (unary("bad", *CUBE, latex="3"), r"has to print \{x\}"),
        (unary("bad", *CUBE, latex="{x}^{3}"), "every other brace twice"),
        (unary("bad", *CUBE, latex="{x"), "every other brace twice"),
        (binary("bad", "a - b", ("1", "-1"), latex="{a}"), r"has to print \{a\} and \{b\}"),
    ],
)
def test_a_row_that_is_not_what_it_declares(operator: Operator, message: str) -> None:
    with pytest.raises(OperatorError, match=message) as caught:
        register_operator(operator)
    assert "'bad'" in str(caught.value)
    assert "bad" not in OPERATORS


@pytest.mark.parametrize("text", ["x ** 3", "torch.exp(x)", "exp(y)", "value", "a", "__import__('os').getcwd()"])
def test_a_formula_outside_of_the_language(text: str) -> None:
    with pytest.raises(FormulaError, match="is not allowed"):
        unary("bad", text, "1")
    with pytest.raises(FormulaError, match="is not allowed"):
        binary("bad", "a * b", ("b", f"a + c * {text}"))


def test_a_step_function_may_have_no_gradient() -> None:
    assert register_operator(unary("step", "x > 0", "0")).arity == 1


def test_default_latex_is_upright_and_escaped() -> None:
    register_operator(unary("my_own_cube", *CUBE))
    register_operator(binary("lean", "a - 2 * b", ("1", "-2")))
    assert Expression.parse("my_own_cube(pred)").latex() == r"\operatorname{my\_own\_cube}\left(\hat{y}\right)"
    assert Expression.parse("lean(pred, label)").latex() == r"\operatorname{lean}\left(\hat{y}, y\right)"


def test_the_description_is_json_and_holds_every_formula() -> None:
    operator = OPERATORS["sqrt"]
    described = json.loads(json.dumps(operator.describe()))
    assert described["value"] == operator.value.text
    assert described["derivatives"] == [formula.text for formula in operator.derivatives]
    other = unary("sqrt", operator.value.text, "0.5 * abs(sign(x)) / sqrt(EPS + abs(x))")
    assert other.describe() != operator.describe()
    assert Formula("x", ("x",)) == Formula("x", ("x",))


def test_a_users_own_operator_works_everywhere(few_operators: None) -> None:
    register_operator(SOFTRAMP)
    grammar = Grammar.standard()
    assert grammar.unary == ("neg", "softramp")
    bce = grammar.parse("softramp(logit) - label * logit")
    assert Expression.parse(str(bce)) is bce
    assert r"\operatorname{softramp}" in bce.latex()

    scores = np.linspace(-30, 30, 61)
    labels = (np.arange(61) % 2).astype(float)
    score = torch.tensor(scores, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(score, torch.tensor(labels), reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), score)
    losses, gradients = run(compiled([bce]), scores, labels)
    np.testing.assert_allclose(losses[0], expected.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradients[0], gradient, rtol=1e-12, atol=1e-12)
    values = torch_values(bce, {"score": score, "label": torch.tensor(labels)}, POINTWISE)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)

    screening = screen([bce, Expression.parse("softramp(logit)")], check_direction=True)
    assert screening.texts == [None, "no dependence on label"]

    rng = np.random.default_rng(0)
    texts = {str(grammar.sample(rng, 4)) for _ in range(200)}
    assert any("softramp" in text for text in texts)


def test_a_changed_operator_never_runs_a_stale_kernel(few_operators: None) -> None:
    register_operator(SOFTRAMP)
    text = "softramp(logit) - label * logit"
    scores, labels = np.array([-1.0, 0.5]), np.array([1.0, 0.0])
    before = compiled([Expression.parse(text)])
    unused = compiled([Expression.parse(text)])
    old, _ = run(before, scores, labels)
    np.testing.assert_allclose(old[0], np.log1p(np.exp(scores)) - labels * scores, rtol=1e-12)
    OPERATORS.unregister("softramp")
    register_operator(unary("softramp", "x * x", "2 * x"))
    new, gradient = run(compiled([Expression.parse(text)]), scores, labels)
    np.testing.assert_allclose(new[0], scores**2 - labels * scores, rtol=1e-12)
    np.testing.assert_allclose(gradient[0], 2 * scores - labels, rtol=1e-12)
    for program in (before, unused):  # a program stays what it was compiled from
        np.testing.assert_array_equal(run(program, scores, labels)[0], old)
        assert "log" in program.texts[0].partition(" where ")[2]


def test_operators_that_come_later_leave_compiled_programs_alone() -> None:
    program = compiled([Expression.parse("square(label - pred)")])
    register_operator(unary("cube", *CUBE))
    assert len(program.tables.operators) == len(Tables.of(POINTWISE).operators) - 1
    run(program, np.zeros(1), np.zeros(1))


def test_a_cell_that_registers_an_operator_can_be_run_again() -> None:
    first = register_operator(unary("cubed", "x * x * x", "3 * x * x"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert register_operator(unary("cubed", "x * x * x", "3 * x * x")) is first
        name = Tables.of(POINTWISE).text_of(Expression.parse("cubed(logit)"))
        with pytest.warns(UserWarning, match="operator 'cubed' is replaced"):
            register_operator(unary("cubed", "2 * x * x * x", "6 * x * x"))
        assert Tables.of(POINTWISE).text_of(Expression.parse("cubed(logit)")) != name
    finally:
        OPERATORS.unregister("cubed")
