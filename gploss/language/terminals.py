"""One row a terminal: what a loss formula can see of a prediction and its label.

Terminals are data: programs, kernels and the reward filter know them from these rows alone. A terminal is a
function of the model's score and the label; its derivative with respect to the score makes the total derivative
d loss/d score, which is all that training, screening and the fingerprint use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gploss.language.formula import Formula
from gploss.registry import Registry

VARIABLES: Final = ("score", "label")


@dataclass(frozen=True)
class Terminal:
    """An input of a loss formula.

    Args:
        name: as it appears in the text of an expression.
        value: formula of `score` and `label`.
        derivative: with respect to the score, a formula of `score`, `label` and `value`; None where it is 0.
        latex: its symbol.
    """

    name: str
    value: Formula
    derivative: Formula | None
    latex: str


#: Every terminal by name.
TERMINALS: Final[Registry[Terminal]] = Registry("terminal")

for _row in (
    Terminal(
        "pred",
        Formula("sigmoid(score)", VARIABLES),
        Formula("value * (1 - value)", (*VARIABLES, "value")),
        r"\hat{y}",
    ),
    Terminal("label", Formula("1 * label", VARIABLES), None, "y"),
    Terminal("logit", Formula("1 * score", VARIABLES), Formula("1", (*VARIABLES, "value")), "s"),
):
    TERMINALS.register(_row.name, _row)
