"""Losses as functions: what a search ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from gploss.arguments import instance, real_number
from gploss.compute.kinds import FORMULA, LOSS_KINDS, LossKind
from gploss.compute.program import Program
from gploss.files.shapes import NUMBER, first_line, read_json, require
from gploss.files.whole import write_text_atomic
from gploss.language.export import torch_source, torch_values
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.tasks import TASKS, Task
from gploss.tasks.pointwise import POINTWISE


@runtime_checkable
class LossFunction(Protocol):
    """What a search returns: callable in a training loop, describes itself, saves itself."""

    def __call__(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar, from (B,) of each of its inputs, such as scores and labels."""

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
        task: what the loss is given.

    Attributes:
        arguments: names of the inputs that it is called with, in this order: of a pointwise loss score and label,
            and what else it uses.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the formula has no gradient to be scaled by, or uses what the task does not have.

    Example:
        >>> loss = ExpressionLoss(Expression.parse("square(label - pred)"), scale=1.0)
        >>> float(loss(torch.tensor([0.0]), torch.tensor([1.0])))
        0.25
    """

    def __init__(self, expression: Expression, scale: float | None = None, task: Task = POINTWISE) -> None:
        instance("expression", expression, Expression, "an Expression, such as Expression.parse(text)")
        instance("task", task, Task, "a Task, such as POINTWISE")
        if scale is None:
            screening = screen([expression], task)
            if screening.texts[0] is not None:
                raise ValueError(f"{expression} cannot be a loss: {screening.texts[0]}")
            scale = float(screening.scales[0])
        scale = real_number("scale", scale, above=0.0)
        self.expression = expression
        self.scale = scale
        self.task = task
        self.arguments = task.arguments(expression)

    def __call__(
        self, *inputs: torch.Tensor, present: torch.Tensor | None = None, **named: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            *inputs: (B,) of each of the loss's arguments in their order; of a pointwise loss scores before the
                sigmoid and labels. Of a wide input (B, m).
            present: (B, m) bool: which values of wide inputs are there, of each example at least one; else all.
            **named: further ones by name.

        Raises:
            TypeError: one is missing, given twice, none of the loss's arguments, or no tensor of real numbers.
            ValueError: they differ in shape: nothing is broadcast.
        """
        given = dict(zip(self.arguments, inputs, strict=False)) | named
        if len(given) != len(inputs) + len(named) or given.keys() != set(self.arguments):
            found = ", ".join([*(["..."] * len(inputs)), *named])
            raise TypeError(f"this loss is called with ({', '.join(self.arguments)}), not with ({found})")
        return torch_values(self.expression, given, self.task, present).mean() / self.scale

    def __str__(self) -> str:
        return self.expression.readable()

    def __repr__(self) -> str:
        task = "" if self.task == POINTWISE else f", task={self.task.name!r}"
        return f"ExpressionLoss({self.expression!r}, scale={self.scale!r}{task})"

    def source(self, name: str = "loss") -> str:
        """Return Python source code to paste: a torch function of the loss's arguments."""
        return torch_source(self.expression, self.scale, name, self.task)

    def latex(self) -> str:
        """Return the formula as LaTeX."""
        return self.expression.latex()

    def save(self, path: str | Path) -> None:
        """Write formula, scale and the task's name to a JSON file."""
        record = {"expression": str(self.expression), "scale": self.scale, "task": self.task.name}
        write_text_atomic(path, json.dumps(record) + "\n")

    @staticmethod
    def load(path: str | Path) -> ExpressionLoss:
        """Read what `save` wrote.

        Raises:
            OSError: there is no such file, or it may not be read.
            ValueError: the file holds no loss, or one of a task that is not registered in `TASKS`.
        """
        try:
            record = read_json(path)
            if not isinstance(record, dict):
                raise ValueError("a loss is a dictionary")
            require(record, {"task": (str,), "expression": (str,), "scale": NUMBER})
            return ExpressionLoss(Expression.parse(record["expression"]), record["scale"], TASKS[record["task"]])
        except (LookupError, ValueError) as error:
            raise ValueError(f"{path} holds no saved loss: {first_line(error)}") from error


LOSS_KINDS.register(FORMULA, LossKind(Expression.parse, Program.compile, ExpressionLoss))
