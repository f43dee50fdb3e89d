"""What is registered in the process that begins workers is known in them."""

from __future__ import annotations

from experiments.parts.workers import side_by_side
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, register_operator, unary


def test_own_operators_are_known_in_the_workers_of_a_command() -> None:
    register_operator(unary("cubed", "x * x * x", "3 * x * x"))
    try:
        found = side_by_side(lambda text: str(Expression.parse(text)), [("cubed(s - 1)",), ("cubed(y)",)], jobs=2)
    finally:
        OPERATORS.unregister("cubed")
    assert found == ["cubed(add(logit, neg(1)))", "cubed(label)"]
