"""Losses: what a search ends with, and the hand-made and published ones that it has to beat, by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import torch

from gploss.language.export import torch_source, torch_values
from gploss.language.expression import Expression
from gploss.registry import Registry
from gploss.screening.screening import screen


@runtime_checkable
class Loss(Protocol):
    """What a search returns: callable in a training loop, describes itself, saves itself."""

    def __call__(self, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar, from scores (B,) and labels (B,)."""

    def __str__(self) -> str:
        """Return the formula, for people."""

    def save(self, path: str | Path) -> None:
        """Write the loss to a file."""


class ExpressionLoss:
    """A loss formula as a function of torch tensors.

    Args:
        expression: the formula.
        scale: s; the mean is divided by it. By default the formula's own scale, as in protocol "standard"; give 1
            for the formula as it stands.

    Raises:
        ValueError: the formula has no gradient to be scaled by.

    Example:
        >>> loss = ExpressionLoss(Expression.parse("square(label - pred)"), scale=1.0)
        >>> float(loss(torch.tensor([0.0]), torch.tensor([1.0])))
        0.25
    """

    def __init__(self, expression: Expression, scale: float | None = None) -> None:
        if scale is None:
            screening = screen([expression])
            if screening.reasons[0] is not None:
                raise ValueError(f"{expression} cannot be a loss: {screening.reasons[0]}")
            scale = float(screening.scales[0])
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, not {scale}")
        self.expression = expression
        self.scale = scale

    def __call__(self, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar, from scores (B,) before the sigmoid and labels (B,)."""
        return torch_values(self.expression, score, label).mean() / self.scale

    def __str__(self) -> str:
        return str(self.expression)

    def __repr__(self) -> str:
        return f"ExpressionLoss({self.expression!r}, scale={self.scale!r})"

    def source(self, name: str = "loss") -> str:
        """Return Python source code to paste: a torch function of score and label."""
        return torch_source(self.expression, self.scale, name)

    def latex(self) -> str:
        """Return the formula as LaTeX."""
        return self.expression.latex()

    def save(self, path: str | Path) -> None:
        """Write formula and scale to a JSON file."""
        Path(path).write_text(json.dumps({"expression": str(self.expression), "scale": self.scale}) + "\n")

    @staticmethod
    def load(path: str | Path) -> ExpressionLoss:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no loss.
        """
        try:
            record = json.loads(Path(path).read_text())
            return ExpressionLoss(Expression.parse(record["expression"]), float(record["scale"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no saved loss: {error}") from error


def max_ratio(smoothing: float) -> Expression:
    """Return AutoLossGen's MaxR (arXiv 2204.13160, section 5.5): max(y/p, p/y), both smoothed."""
    up, down = _plus(smoothing)
    return Expression.parse(f"max((label + {up}) / (pred + {down}), (pred + {up}) / (label + {down}))")


def sum_ratio(smoothing: float) -> Expression:
    """Return AutoLossGen's SumR: (y + p) / (y p), smoothed."""
    up, down = _plus(smoothing)
    return Expression.parse(f"(label + pred + {up}) / (label * pred + {down})")


def log_min(smoothing: float) -> Expression:
    """Return AutoLossGen's LogMin: log(1 / min(y, p)) (min(y, p) + y + p), smoothed."""
    down = _plus(smoothing)[1]
    return Expression.parse(f"m = min(label, pred); log(1 / (m + {down})) * (m + label + pred)")


def _plus(smoothing: float) -> tuple[float, float]:
    """What to add above and below a fraction: `inv` adds 1e-6 itself, but is 0 at 0."""
    return smoothing, max(smoothing - 1e-6, 1e-12)


#: Hand-made and published losses by name.
LOSSES: Final[Registry[Expression]] = Registry("loss")

for _name, _text in (
    ("bce", "relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit"),
    ("mse", "square(label - pred)"),
    ("hinge", "relu(1 - (2 * label - 1) * logit)"),
    ("focal", "-(label * square(1 - pred) * log(pred) + (1 - label) * square(pred) * log(1 - pred))"),
    # torch.nn.HingeEmbeddingLoss on the score, as AutoLossGen's authors call it: unbounded where the label is 0
    ("hinge_embedding", "label * relu(1 - logit) + (1 - label) * logit"),
):
    LOSSES.register(_name, Expression.parse(_text))
LOSSES.register("maxr", max_ratio(1e-6))
LOSSES.register("sumr", sum_ratio(1e-6))
LOSSES.register("logmin", log_min(1e-6))
