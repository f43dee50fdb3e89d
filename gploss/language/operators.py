"""One row an operator: its name, value, derivatives, and how it prints.

The rows are AutoLossGen's operators (arXiv 2204.13160, table 1), those that its code defines and leaves off
included. `log`, `inv` and `sqrt` are protected: they are finite at 0 and odd, and `EPS` is their guard. The last
rows are there for who writes a loss, and in a search where they are asked for (`Operator.opt_in`).
A user's own operator is one more row::

    register_operator(unary("softsign", "x / (1 + abs(x))", "1 / ((1 + abs(x)) * (1 + abs(x)))"))

Derivatives are written by hand and checked against automatic differentiation at registration. Where an operator
has a kink, the mean of both sides holds there, as in torch: `max` and `min` share it between equal operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch

from gploss.arguments import each, instance, shown
from gploss.language.checks import sample_points, trouble_with_formulas, trouble_with_name
from gploss.language.formula import TORCH, Formula, FormulaError
from gploss.registry import Registry

Semantics = Literal["plain", "clamped"]

#: The authors' clamp of every operator's value (semantics "clamped"); no gradient outside.
CLAMP_LOW: Final = 1e-5
CLAMP_HIGH: Final = 1e5


class OperatorError(ValueError):
    """An operator is not what it declares to be; the message says where it differs."""


@dataclass(frozen=True)
class Operator:
    """A differentiable elementwise function of one or two operands.

    Args:
        name: as it appears in the text of an expression, in lower case.
        value: formula of `x`, or of `a` and `b`.
        derivatives: one formula for each operand; it may also use `value`.
        commutative: the operands may change places without changing value or derivative.
        latex: template over `{x}`, or `{a}` and `{b}`.
        precedence: how the printed term binds: 1 as a sum or a sign, 2 as a product, 3 as a power, 4 as a thing of
            its own.
        opt_in: the grammar `standard` holds it only where it is asked for.
    """

    name: str
    value: Formula
    derivatives: tuple[Formula, ...]
    commutative: bool
    latex: str
    precedence: int = 4
    opt_in: bool = False

    @property
    def arity(self) -> int:
        """Number of operands: 1 or 2."""
        return len(self.derivatives)

    @property
    def operand_names(self) -> tuple[str, ...]:
        """Names of the operands in the formulas."""
        return ("x",) if self.arity == 1 else ("a", "b")

    def check(self) -> None:
        """Compare value and derivatives with automatic differentiation, and the operands in either order.

        Raises:
            OperatorError: a value is not finite on ordinary input, a derivative is another one, or operands do not
                commute.
        """
        derivatives = dict(zip(self.operand_names, self.derivatives, strict=True))
        trouble = trouble_with_formulas(self.value, derivatives)
        if trouble is not None:
            raise OperatorError(f"operator {self.name!r}: {trouble}")
        if self.commutative:
            a, b = sample_points(self.operand_names).values()
            if not torch.equal(self.value.compute(TORCH, a=a, b=b), self.value.compute(TORCH, a=b, b=a)):
                raise OperatorError(f"operator {self.name!r} is declared commutative, but a and b do not commute")

    def describe(self) -> Mapping[str, object]:
        """Return all that the operator's behaviour depends on, for hashes and keys."""
        return {
            "name": self.name,
            "value": self.value.text,
            "derivatives": [formula.text for formula in self.derivatives],
            "commutative": self.commutative,
        }


def unary(
    name: str,
    value: str,
    derivative: str,
    latex: str | None = None,
    precedence: int = 4,
    *,
    opt_in: bool = False,
) -> Operator:
    """Make the row of an operator of one operand.

    Args:
        name: as it appears in the text of an expression.
        value: formula of `x`.
        derivative: formula of `x` and `value`.
        latex: template over `{x}`; without one, the name in upright letters.
        precedence: see `Operator`.
        opt_in: see `Operator`.

    Raises:
        FormulaError: a formula is outside of the language.
    """
    return Operator(
        name,
        Formula(value, ("x",)),
        (Formula(derivative, ("x", "value")),),
        commutative=False,
        latex=latex or rf"{upright(name)}\left({{x}}\right)",
        precedence=precedence,
        opt_in=opt_in,
    )


def binary(
    name: str,
    value: str,
    derivatives: tuple[str, str],
    *,
    commutative: bool = False,
    latex: str | None = None,
    precedence: int = 4,
) -> Operator:
    """Make the row of an operator of two operands.

    Args:
        name: as it appears in the text of an expression.
        value: formula of `a` and `b`.
        derivatives: formulas of `a`, `b` and `value`: with respect to `a`, and to `b`.
        commutative: the operands may change places.
        latex: template over `{a}` and `{b}`; without one, the name in upright letters.
        precedence: see `Operator`.

    Raises:
        FormulaError: a formula is outside of the language.
    """
    variables = ("a", "b", "value")
    if len(each("derivatives", derivatives, str, "a formula")) != 2:
        raise FormulaError(f"operator {name!r} needs two derivatives, by a and by b, got {shown(derivatives)}")
    return Operator(
        name,
        Formula(value, ("a", "b")),
        (Formula(derivatives[0], variables), Formula(derivatives[1], variables)),
        commutative=commutative,
        latex=latex or rf"{upright(name)}\left({{a}}, {{b}}\right)",
        precedence=precedence,
    )


def upright(name: str) -> str:
    """Return the name in upright letters, as a part of a template."""
    return r"\operatorname{{" + name.replace("_", r"\_") + "}}"


#: Every operator by name. The order is the order of AutoLossGen's code.
OPERATORS: Final[Registry[Operator]] = Registry("operator", module=__name__)


def register_operator(operator: Operator) -> Operator:
    """Check an operator and add it to `OPERATORS`, so that grammars, kernels and exports know it.

    Returns:
        The operator.

    Raises:
        OperatorError: a name that cannot be written in an expression, a LaTeX template that does not print every
            operand, a value that is not finite on ordinary input, a derivative that differs from automatic
            differentiation, or operands that do not commute.
        ValueError: another operator or a terminal has that name.
    """
    instance("operator", operator, Operator, "an Operator, such as unary(name, value, derivative)")
    trouble = trouble_with_name(operator.name)
    if trouble is not None:
        raise OperatorError(f"{operator.name!r} is no operator name: {trouble}")
    _check_latex(operator)
    operator.check()
    return OPERATORS.register(operator.name, operator)


def _check_latex(operator: Operator) -> None:
    marks = {name: f"<{name}>" for name in operator.operand_names}
    wanted = " and ".join(f"{{{name}}}" for name in marks)
    try:
        text = operator.latex.format(**marks)
    except (LookupError, ValueError) as error:
        text = f"{error!r}"
    if not all(mark in text for mark in marks.values()):
        raise OperatorError(
            f"operator {operator.name!r}: the LaTeX template {operator.latex!r} has to print {wanted}, "
            "and every other brace twice"
        )


for _row in (
    binary("add", "a + b", ("1", "1"), commutative=True, latex="{a} + {b}", precedence=1),
    binary("mul", "a * b", ("b", "a"), commutative=True, latex=r"{a} \cdot {b}", precedence=2),
    binary(
        "max",
        "maximum(a, b)",
        ("(a > b) + 0.5 * (a == b)", "(b > a) + 0.5 * (a == b)"),
        commutative=True,
        latex=r"\max\left({a}, {b}\right)",
    ),
    binary(
        "min",
        "minimum(a, b)",
        ("(a < b) + 0.5 * (a == b)", "(b < a) + 0.5 * (a == b)"),
        commutative=True,
        latex=r"\min\left({a}, {b}\right)",
    ),
    unary("neg", "-x", "-1", latex=r"-{x}", precedence=1),
    unary("identity", "1 * x", "1"),
    unary("log", "sign(x) * log(abs(x) + EPS)", "abs(sign(x)) / (abs(x) + EPS)", latex=r"\log\left({x}\right)"),
    unary("square", "x * x", "2 * x", latex="{x}^2", precedence=3),
    unary(
        "inv",
        "sign(x) / (abs(x) + EPS)",
        "-abs(sign(x)) / ((abs(x) + EPS) * (abs(x) + EPS))",
        latex=r"\frac{{1}}{{{x}}}",
    ),
    unary("sigmoid", "sigmoid(x)", "value * (1 - value)", latex=r"\sigma\left({x}\right)"),
    unary("tanh", "tanh(x)", "1 - value * value", latex=r"\tanh\left({x}\right)"),
    unary("relu", "0.5 * (x + abs(x))", "0.5 + 0.5 * sign(x)", latex=r"\left[{x}\right]_+"),
    unary("abs", "abs(x)", "sign(x)", latex=r"\left|{x}\right|"),
    unary(
        "sqrt",
        "sign(x) * sqrt(abs(x) + EPS)",
        "0.5 * abs(sign(x)) / sqrt(abs(x) + EPS)",
        latex=r"\sqrt{{{x}}}",
    ),
    unary("exp", "exp(x)", "value", latex=r"e^{{{x}}}", precedence=3),
    unary("softplus", "0.5 * x + 0.5 * abs(x) + log1p(exp(-abs(x)))", "sigmoid(x)", opt_in=True),
    unary("stop_grad", "detach(x)", "0", latex=r"\operatorname{{sg}}\left({x}\right)", opt_in=True),
    unary(  # the logarithm of what is positive; flat below EPS, where the odd one climbs again
        "log_positive",
        "log(x * (x > EPS) + EPS * (x <= EPS))",
        "((x > EPS) + 0.5 * (x == EPS)) / (x * (x > EPS) + EPS * (x <= EPS))",
        latex=r"\ln\left({x}\right)",
        opt_in=True,
    ),
):
    register_operator(_row)

#: gploss's own operators, whose formulas change with its version alone.
BUILT_IN: Final = [row for _, row in OPERATORS.items()]
OPERATORS.protect(OPERATORS)
