"""Losses as functions: what a search ends with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from gploss.language.export import torch_source, torch_values
from gploss.language.expression import Expression
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
            if screening.texts[0] is not None:
                raise ValueError(f"{expression} cannot be a loss: {screening.texts[0]}")
            scale = float(screening.scales[0])
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, not {scale}")
        self.expression = expression
        self.scale = scale

    def __call__(self, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar, from scores (B,) before the sigmoid and labels (B,)."""
        return torch_values(self.expression, score, label).mean() / self.scale

    def __str__(self) -> str:
        return self.expression.readable()

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
