"""Pointwise losses in short: compiled, and computed from scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program
from gploss.compute.tables import Tables
from gploss.language.expression import Expression
from gploss.tasks.pointwise import POINTWISE

Array = npt.NDArray[Any]

#: Operators that the task can use: those that take one value an example.
OPERATORS_HERE = Tables.of(POINTWISE).operators


def compiled(expressions: Sequence[Expression], multipliers: npt.NDArray[np.float64] | None = None) -> Program:
    return Program.compile(expressions, POINTWISE, multipliers)


def run(program: Program, scores: Array, labels: Array, rows: Array | None = None) -> tuple[Array, Array]:
    """Return losses and d loss/d score, (M, N) each."""
    losses, gradients = program.losses({"score": scores, "label": labels}, rows)
    return losses, gradients["score"]
