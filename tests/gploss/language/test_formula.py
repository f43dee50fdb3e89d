from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gploss.language.formula import EPS, FUNCTIONS, NUMPY, TORCH, Formula, FormulaError

X = np.array([-2.5, -0.5, 0.25, 3.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", X),
        ("-x", -X),
        ("1 - 2 * x / 4", 1 - 2 * X / 4),
        ("(x - 1) - (2 - x)", (X - 1) - (2 - X)),
        ("x / (2 / x)", X / (2 / X)),
        ("x + EPS", X + EPS),
        ("x > 0.25", X > 0.25),
        ("x >= 0.25", X >= 0.25),
        ("x < 0.25", X < 0.25),
        ("x <= 0.25", X <= 0.25),
        ("2 * (x == 0.25) - 1", 2.0 * (X == 0.25) - 1),
        ("-(-x)", X),
        ("  x\n", X),
        ("abs(x) + sign(x)", np.abs(X) + np.sign(X)),
        ("log(abs(x))", np.log(np.abs(X))),
        ("exp(x) * tanh(x)", np.exp(X) * np.tanh(X)),
        ("sqrt(x * x)", np.abs(X)),
        ("sigmoid(x)", 1 / (1 + np.exp(-X))),
        ("maximum(x, -x) - minimum(x, 2 * x)", np.abs(X) - np.minimum(X, 2 * X)),
    ],
)
def test_numpy_and_torch_compute_the_same(text: str, expected: np.ndarray) -> None:
    formula = Formula(text, ("x",))
    np.testing.assert_allclose(formula.compute(NUMPY, x=X), expected, rtol=1e-15)
    found = formula.compute(TORCH, x=torch.tensor(X))
    np.testing.assert_allclose(found.numpy(), expected.astype(float), rtol=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "y",
        "x ** 2",
        "x // 2",
        "x % 2",
        "x @ x",
        "+x",
        "~x",
        "not x",
        "x and x",
        "x if x > 0 else 0",
        "0 < x < 1",
        "x != 0",
        "x is 0",
        "x in x",
        "x[0]",
        "x.real",
        "[x]",
        "(x, x)",
        "{x}",
        "lambda: x",
        "(y := x)",
        "'x'",
        "f'{x}'",
        "True",
        "None",
        "1j * x",
        "...",
        "sin(x)",
        "eval(x)",
        "__import__('os')",
        "abs",
        "abs()",
        "abs(x, x)",
        "abs(*x)",
        "abs(x=x)",
        "maximum(x)",
        "x.exp()",
        "(x for x in x)",
        "await_",
        "x * 1e400",
        "x * " + "9" * 400,
    ],
)
def test_anything_else_is_turned_down_by_name_and_column(text: str) -> None:
    with pytest.raises(FormulaError, match=r"at column \d+ is not allowed; use numbers, x, EPS"):
        Formula(text, ("x",))


@pytest.mark.parametrize("text", ["", "x +", "x x", "x = 1", "x; x", "import os", "(x", "def f(): pass", "x\0"])
def test_text_that_does_not_parse(text: str) -> None:
    with pytest.raises(FormulaError, match="does not parse"):
        Formula(text, ("x",))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("maximum(x, 0)", r"write x \* \(x > 0\)"),
        ("minimum(EPS, x)", "minimum takes no plain number"),
        ("x * log(2)", "log takes no plain number"),
        ("x * (EPS > 0)", "'EPS > 0' compares plain numbers"),
    ],
)
def test_functions_and_comparisons_need_a_variable(text: str, hint: str) -> None:
    with pytest.raises(FormulaError, match=hint):
        Formula(text, ("x",))


@pytest.mark.parametrize("text", ["x / 0", "1 / (EPS - EPS)", "x / (2 / (1 - 1))"])
def test_nothing_is_divided_by_zero(text: str) -> None:
    with pytest.raises(FormulaError, match="divides by zero"):
        Formula(text, ("x",))


def test_the_column_points_at_the_part() -> None:
    with pytest.raises(FormulaError, match=r"'y' at column 9 "):
        Formula("abs(x + y)", ("x",))


def _formulas() -> st.SearchStrategy[str]:
    leaf = st.sampled_from(["x", "y", "EPS", "2", "0.5", "1e-3"])

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        signs = st.sampled_from(["+", "-", "*", "/"])
        return st.one_of(
            st.builds("({} {} {})".format, inner, signs, inner),
            st.builds("{} {} {}".format, inner, signs, inner),
            st.builds("(-{})".format, inner),
            st.builds("(x + {} {} y)".format, inner, st.sampled_from([">", ">=", "<", "<=", "=="])),
            st.builds("{}(x * {})".format, st.sampled_from([n for n, a in FUNCTIONS.items() if a == 1]), inner),
            st.builds("{}(x, y - {})".format, st.sampled_from(["maximum", "minimum"]), inner),
        )

    return st.recursive(leaf, grow, max_leaves=8)


@given(_formulas())
def test_what_is_printed_computes_the_same(text: str) -> None:
    try:
        formula = Formula(text, ("x", "y"))
    except FormulaError as error:
        assume("divides by zero" not in str(error))
        raise
    printed = formula.render({"x": "y", "y": "x"}, number=repr)  # names changed places, so must the values
    x, y = torch.tensor([-1.5, 0.3, 2.0]).double(), torch.tensor([0.7, 0.3, -1.0]).double()
    here = torch.as_tensor(formula.compute(TORCH, x=x, y=y))
    there = torch.as_tensor(Formula(printed, ("x", "y")).compute(TORCH, x=y, y=x))
    assert torch.equal(here.nan_to_num(nan=math.pi), there.nan_to_num(nan=math.pi))


def test_rendering_leaves_the_choice_of_words_to_the_caller() -> None:
    formula = Formula("maximum(x, -y) * (x > EPS) + 2", ("x", "y"))
    text = formula.render(
        {"x": "a[j]", "y": "b[j]"}, number="N{}".format, function="lib.{}".format, indicator="I({})".format
    )
    assert text == "((lib.maximum(a[j], (-b[j])) * I(a[j] > N1e-06)) + N2.0)"
