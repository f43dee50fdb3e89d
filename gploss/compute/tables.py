"""The tables that programs number their opcodes and slots by, and that kernels are generated from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gploss.language.expression import Expression
from gploss.language.operators import BUILT_IN as BUILT_IN_OPERATORS
from gploss.language.operators import OPERATORS, Operator
from gploss.language.reductions import Reduction
from gploss.language.terminals import BUILT_IN as BUILT_IN_TERMINALS
from gploss.language.terminals import Terminal
from gploss.tasks import Task


@dataclass(frozen=True)
class Tables:
    """Operators and a task's inputs and terminals, as they were registered at one moment.

    Attributes:
        operators: an operator's place is its opcode.
        inputs: names of the task's inputs; an input's place is its row of the kernels' samples.
        differentiable: those of them that come from the model, in the same order.
        wide: those of which an example has several values.
        terminals: a terminal's place is its slot.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    differentiable: tuple[str, ...]
    wide: tuple[str, ...]
    terminals: tuple[Terminal, ...]

    @staticmethod
    def of(task: Task) -> Tables:
        """Return the tables as they are now.

        Raises:
            ValueError: a terminal of the task does not fit its inputs any more.
            LookupError: one was unregistered.
        """
        return Tables(
            tuple(row for _, row in OPERATORS.items() if task.wide or not isinstance(row, Reduction)),
            tuple(given.name for given in task.inputs),
            task.differentiable,
            task.wide,
            task.rows(),
        )

    def text_of(self, expression: Expression) -> str:
        """Return the text that names a loss in caches: operators and terminals of a user's own are spelt out."""
        heads = {node.head for node in expression.nodes() if node.constant is None}
        own: dict[str, Mapping[str, object]] = {
            **{row.name: row.describe() for row in self.operators if row not in BUILT_IN_OPERATORS},
            **{row.name: row.describe() for row in self.terminals if row not in BUILT_IN_TERMINALS},
        }
        spelt = [json.dumps(dict(own[name]), sort_keys=True) for name in sorted(heads & own.keys())]
        return " where ".join([str(expression), *spelt])
