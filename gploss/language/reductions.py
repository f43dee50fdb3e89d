"""One row a reduction: an operator that makes one number of the m that an example has of something.

Where an example has several values of an input, such as the scores of its negatives, everything made of them is m
numbers until a reduction makes one of them. A reduction's row says it in three formulas, of which the first is
added up over the m: a term (of `x`, and the largest of them, `peak`), the value (of the `total`, `peak`, and
`count`, which is m), and the derivative by each `x`. A user's own is one more row::

    register_operator(reduction("spread", "abs(x - peak)", "total / count", ...))

Only values that are there count (see `gploss.compute.wide`). The grammar has reductions where it is asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

from gploss.language.formula import TORCH, Formula
from gploss.language.operators import BUILT_IN, OPERATORS, Operator, OperatorError, register_operator, upright

_OF_TERM: Final = ("x", "peak")
_OF_VALUE: Final = ("total", "peak", "count")
_OF_DERIVATIVE: Final = ("x", "value", "total", "count")


@dataclass(frozen=True)
class Reduction(Operator):
    """A function of m values; see the module's introduction.

    Args:
        term: formula of `x` and `peak`: what is added up.
    """

    term: Formula = field(kw_only=True)

    def describe(self) -> Mapping[str, object]:
        """Return all that the reduction's behaviour depends on, for hashes and keys."""
        return {**super().describe(), "term": self.term.text}

    def compute(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the reduction with torch, differentiable.

        Args:
            x: (..., m).
            present: (..., m) bool: which of the values are there; all where None.

        Returns:
            (..., 1)
        """
        if present is not None:
            x = torch.where(present, x, x.detach().new_tensor(0.0))
        known = x if present is None else torch.where(present, x, -torch.inf)
        peak = known.amax(-1, keepdim=True)
        terms = torch.as_tensor(self.term.compute(TORCH, x=x, peak=peak)).expand_as(x)
        if present is not None:
            terms = torch.where(present, terms, 0.0)
        count = torch.full_like(peak, x.shape[-1]) if present is None else present.sum(-1, keepdim=True).to(x)
        value: torch.Tensor = self.value.compute(TORCH, total=terms.sum(-1, keepdim=True), peak=peak, count=count)
        return value

    def check(self) -> None:
        """Compare the derivative with automatic differentiation in float64.

        Raises:
            OperatorError: the value is not finite on ordinary input, or its derivative another one.
        """
        generator = torch.Generator().manual_seed(0)
        x = (torch.rand((64, 5), generator=generator, dtype=torch.float64) * 6 - 3).requires_grad_()
        value = self.compute(x)
        if not bool(value.isfinite().all()):
            raise OperatorError(f"operator {self.name!r}: value is not finite at {x[0].tolist()}")
        (wanted,) = torch.autograd.grad(value.sum(), x, materialize_grads=True)
        with torch.no_grad():
            terms = torch.as_tensor(self.term.compute(TORCH, x=x, peak=x.amax(-1, keepdim=True))).expand_as(x)
            named = {"value": value, "total": terms.sum(-1, keepdim=True), "count": torch.full_like(value, 5)}
            found = torch.as_tensor(self.derivatives[0].compute(TORCH, x=x, **named)).expand_as(x)
        wrong = (~torch.isclose(found.double(), wanted, rtol=1e-9, atol=1e-12)).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise OperatorError(
                f"operator {self.name!r}: d/dx is {float(wanted[row, column]):.6g} at {x[row].tolist()}, place "
                f"{column}, but {self.derivatives[0].text!r} gives {float(found[row, column]):.6g}"
            )


def reduction(name: str, term: str, value: str, derivative: str, latex: str | None = None) -> Reduction:
    """Make the row of a reduction.

    Args:
        name: as it appears in the text of an expression.
        term: formula of `x` and `peak`, added up over the m values.
        value: formula of `total`, `peak` and `count`.
        derivative: formula of `x`, `value`, `total` and `count`.
        latex: template over `{x}`; without one, the name in upright letters.

    Raises:
        FormulaError: a formula is outside of the language.
    """
    return Reduction(
        name,
        Formula(value, _OF_VALUE),
        (Formula(derivative, _OF_DERIVATIVE),),
        commutative=False,
        latex=latex or rf"{upright(name)}\left({{x}}\right)",
        opt_in=True,
        term=Formula(term, _OF_TERM),
    )


#: What becomes of a formula that is wide at its root.
MEAN: Final = reduction("mean", "x", "total / count", "1 / count")

for _row in (
    MEAN,
    reduction("sum", "x", "total", "1", latex=r"\textstyle\sum\left({x}\right)"),
    reduction("largest", "x == peak", "peak", "(x == value) / total", latex=r"\max_j\left({x}\right)"),
    reduction("logsumexp", "exp(x - peak)", "log(total) + peak", "exp(x - value)"),
    reduction("logmeanexp", "exp(x - peak)", "log(total / count) + peak", "exp(x - value) / count"),
):
    BUILT_IN.append(register_operator(_row))
    OPERATORS.protect([_row.name])
