"""The oracle for losses: plain torch in float64, most operators written apart from gploss's own formulas.

An operator that is not written here is computed from its row's value in float64, and differentiated by torch: that
is what its compiled forms and its derivative are compared with.

Where a function has a kink, or rounding is magnified a thousandfold, two right answers may differ. The samples
where that is not so are marked `Reference.steady`: there, disturbing the value of every node, and what passes back
over every edge, by one part in 10^11 (each its own way) moves loss and gradient by less than one part in 10^8, and
no sigmoid, tanh or log is where it cancels inside (1 - value, or the log of nearly 1). Ties and kinks have tests of
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gploss.language.expression import Expression
from gploss.language.formula import TORCH
from gploss.language.operators import OPERATORS

Floats = npt.NDArray[np.float64]

_WRITTEN_APART: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "neg": torch.neg,
    "identity": torch.clone,
    "log": lambda x: x.sign() * torch.log(x.abs() + 1e-6),
    "square": torch.square,
    "inv": lambda x: x.sign() / (x.abs() + 1e-6),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "abs": torch.abs,
    "sqrt": lambda x: x.sign() * torch.sqrt(x.abs() + 1e-6),
    "exp": torch.exp,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
}


def function(operator_name: str) -> Callable[..., torch.Tensor]:
    """Return an operator as a torch function of its operands."""
    operator = OPERATORS[operator_name]

    def from_its_row(*operands: torch.Tensor) -> torch.Tensor:
        named = dict(zip(operator.operand_names, operands, strict=True))
        return torch.as_tensor(operator.value.compute(TORCH, **named))

    return _WRITTEN_APART.get(operator_name, from_its_row)


@dataclass(frozen=True)
class Reference:
    """One loss at N samples.

    Attributes:
        losses: (N,) values.
        gradients: (N,) d loss/d score.
        steady: (N,) whether rounding and kinks leave both alone.
        largest: (N,) the largest magnitude of any node's value.
    """

    losses: Floats
    gradients: Floats
    steady: npt.NDArray[np.bool_]
    largest: Floats


def evaluate(expression: Expression, scores: Floats, labels: Floats, disturbance: float = 1e-11) -> Reference:
    """Evaluate the expression as it stands, not its canonical form, by automatic differentiation."""
    losses, gradients, largest, margin = _run(expression, scores, labels, 0.0)
    nearby = _run(expression, scores, labels, disturbance)
    steady = np.isfinite(losses) & np.isfinite(gradients) & (margin > 3 * np.sqrt(disturbance))
    with np.errstate(invalid="ignore", over="ignore"):
        for exact, moved in zip((losses, gradients), nearby, strict=False):
            steady &= np.abs(exact - moved) <= 1e3 * disturbance * np.abs(exact)
    return Reference(losses, gradients, steady, largest)


def _run(
    expression: Expression, scores: Floats, labels: Floats, disturbance: float
) -> tuple[Floats, Floats, Floats, Floats]:
    generator = torch.Generator().manual_seed(1)

    def shaken(values: torch.Tensor) -> torch.Tensor:
        return values * (1 + disturbance * torch.randn(values.shape, generator=generator, dtype=torch.float64))

    def edge(value: torch.Tensor) -> torch.Tensor:
        own = value * 1.0
        if disturbance and own.requires_grad:
            own.register_hook(shaken)  # type: ignore[no-untyped-call]
        return own

    score = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    label = torch.tensor(labels, dtype=torch.float64)
    terminals = {"pred": torch.sigmoid(score), "label": label, "logit": score * 1.0}
    largest, margin = torch.zeros_like(label), torch.ones_like(label)
    values: dict[Expression, torch.Tensor] = {}
    for node in expression.nodes():
        if node.constant is not None:
            values[node] = torch.full_like(label, node.constant)
            continue
        operands = [edge(values[operand]) for operand in node.operands]
        value = function(node.head)(*operands) if operands else terminals[node.head]
        if node.head in ("sigmoid", "tanh", "log"):
            near_one = operands[0] if node.head == "log" else value
            margin = torch.minimum(margin, (1 - near_one.detach().abs()).abs())
        if node.head != "label":
            value = shaken(value)
        if operands and node.semantics == "clamped":
            value = value.clamp(1e-5, 1e5)
        values[node] = value
        largest = torch.maximum(largest, value.detach().abs())
    root = values[expression]
    gradient = torch.zeros_like(label)
    if root.requires_grad:
        (gradient,) = torch.autograd.grad(root.sum(), score)
    return root.detach().numpy(), gradient.numpy(), largest.numpy(), margin.numpy()
