"""What a declared operator or terminal is held against before anything uses it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Final

import torch

from gploss.language.formula import TORCH, Formula

#: Names that the text of an expression uses for something else; t1, t2, ... name shared parts.
RESERVED: Final = frozenset({"clamped", "sub", "div"})
_SHARED_PART: Final = re.compile(r"t[0-9]+")


#: Characters of the longest name.
LONGEST_NAME: Final = 60


def trouble_with_name(name: str) -> str | None:
    """Return why a name cannot be written in an expression, or None."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return "use lower-case letters, digits and _"
    if len(name) > LONGEST_NAME:
        return f"use at most {LONGEST_NAME} characters"
    if name in RESERVED or _SHARED_PART.fullmatch(name):
        return "it has a meaning of its own in expressions"
    return None


def sample_points(variables: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return 256 points, the same at every call, between -3 and 3: a float64 tensor for each variable."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand((len(variables), 256), generator=generator, dtype=torch.float64) * 6 - 3
    return dict(zip(variables, samples.unbind(), strict=True))


def trouble_with_formulas(value: Formula, derivatives: Mapping[str, Formula]) -> str | None:
    """Compare a value and its derivatives with automatic differentiation in float64, away from kinks.

    Args:
        value: the declared value.
        derivatives: the declared derivative for each of some variables of the value; it may also use `value`.

    Returns:
        Where the value is not finite, or what a derivative should be and is; None where all is well.
    """
    named = {name: column.requires_grad_() for name, column in sample_points(value.variables).items()}
    result = value.compute(TORCH, **named)
    if not isinstance(result, torch.Tensor):
        return f"its value {value.text!r} uses no {' and no '.join(named)}"
    if not bool(result.isfinite().all()):
        at = _point(named, int((~result.isfinite()).nonzero()[0, 0]))
        return f"value is not finite at {at}; guard it with EPS"
    for name, formula in derivatives.items():
        wanted = _slope(result, named[name])
        with torch.no_grad():
            found = torch.as_tensor(formula.compute(TORCH, **named, value=result)).expand_as(wanted)
        wrong = ~torch.isclose(found.double(), wanted, rtol=1e-9, atol=1e-12)
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0, 0])
            return (
                f"d/d{name} is {float(wanted[i]):.6g} at {_point(named, i)}, "
                f"but {formula.text!r} gives {float(found[i]):.6g}"
            )
    return None


def _slope(result: torch.Tensor, variable: torch.Tensor) -> torch.Tensor:
    if not result.requires_grad:
        return torch.zeros_like(result)
    (slope,) = torch.autograd.grad(result.sum(), variable, retain_graph=True, materialize_grads=True)
    return slope


def _point(named: Mapping[str, torch.Tensor], i: int) -> dict[str, float]:
    return {name: float(column.detach()[i]) for name, column in named.items()}
