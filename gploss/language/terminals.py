"""One row a terminal: what a loss formula can see of an example.

A terminal is a function of a task's inputs (`gploss.tasks`), such as ``pred = sigmoid(score)``. Its derivatives
with respect to the inputs that come from the model make the total derivative of a loss, which is all that training,
screening and the fingerprint use. A terminal of a user's own is one more row::

    register_terminal(terminal("rarity", "1 / (1 + abs(count))", inputs=("count",)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gploss.arguments import instance, texts
from gploss.language.checks import trouble_with_formulas, trouble_with_name
from gploss.language.formula import Formula
from gploss.language.operators import OPERATORS
from gploss.registry import Registry


@dataclass(frozen=True)
class Terminal:
    """What stands for itself in a loss formula.

    Args:
        name: as it appears in the text of an expression, in lower case.
        value: formula of the inputs that it is made of.
        derivatives: formulas by input, for the inputs that come from the model; each may also use `value`.
        latex: its symbol.
        written: as people write it in plain text: a name, which the text of an expression takes as well, or a
            formula of operators and such names; by default its own name.
    """

    name: str
    value: Formula
    derivatives: Mapping[str, Formula] = field(hash=False)
    latex: str
    written: str = ""

    def describe(self) -> Mapping[str, object]:
        """Return all that the terminal's behaviour depends on, for hashes and keys."""
        return {
            "name": self.name,
            "value": self.value.text,
            "derivatives": {name: formula.text for name, formula in self.derivatives.items()},
        }


def terminal(
    name: str,
    value: str,
    inputs: Sequence[str],
    derivatives: Mapping[str, str] | None = None,
    latex: str | None = None,
    written: str = "",
) -> Terminal:
    r"""Make the row of a terminal.

    Args:
        name: as it appears in the text of an expression.
        value: formula of the inputs.
        inputs: names of the inputs that it is made of.
        derivatives: formulas of the inputs and `value`, with respect to each input that comes from the model.
        latex: its symbol; without one, the name in upright letters.
        written: see `Terminal`.

    Raises:
        FormulaError: a formula is outside of the language.

    Example:
        >>> terminal("pred", "sigmoid(score)", ("score",), {"score": "value * (1 - value)"}, r"\hat{y}").name
        'pred'
    """
    variables = texts("inputs", inputs)
    return Terminal(
        name,
        Formula(value, variables),
        {of: Formula(text, (*variables, "value")) for of, text in (derivatives or {}).items()},
        latex or r"\mathrm{" + name.replace("_", r"\_") + "}",
        written,
    )


class TerminalError(ValueError):
    """A terminal is not what it declares to be; the message says where it differs."""


#: Every terminal by name. `TERMINALS.unregister(name)` takes one back, after which its name may mean another.
TERMINALS: Final[Registry[Terminal]] = Registry("terminal", disjoint_from=OPERATORS, module=__name__)

#: gploss's own terminals, whose formulas change with its version alone; each task of gploss adds its own.
BUILT_IN: Final[list[Terminal]] = []


def register_terminal(row: Terminal) -> Terminal:
    """Check a terminal and add it to `TERMINALS`, so that the text of expressions knows it.

    Returns:
        The terminal.

    Raises:
        TerminalError: a name that cannot be written in an expression, a value that is not finite on ordinary input,
            or a derivative that differs from automatic differentiation or is one by something else than an input.
        ValueError: another terminal or an operator has that name.
    """
    instance("row", row, Terminal, "a Terminal, such as terminal(name, value, inputs)")
    trouble = trouble_with_name(row.name)
    if trouble is not None:
        raise TerminalError(f"{row.name!r} is no terminal name: {trouble}")
    strangers = sorted(set(row.derivatives) - set(row.value.variables))
    if strangers:
        raise TerminalError(
            f"terminal {row.name!r}: it has a derivative by {strangers[0]!r}, which is none of its inputs "
            f"({', '.join(row.value.variables)})"
        )
    trouble = trouble_with_formulas(row.value, row.derivatives)
    if trouble is not None:
        raise TerminalError(f"terminal {row.name!r}: {trouble}")
    return TERMINALS.register(row.name, row)


def aliases() -> dict[str, str]:
    """Return the names that people write for terminals, with the terminals' own: those that mean nothing else."""
    written: dict[str, str] = {}
    for name, row in TERMINALS.items():
        if row.written.isidentifier() and row.written not in TERMINALS and row.written not in OPERATORS:
            written.setdefault(row.written, name)
    return written
