"""What is made can be read back, and what is printed grows with the nodes of a formula, whatever is shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, register_operator, unary
from gploss.language.parsing import MAX_TEXT, ExpressionError, ParseError

SOFT = ("x / (1 + abs(x))", "1 / ((1 + abs(x)) * (1 + abs(x)))")


@pytest.fixture
def twice() -> Iterator[str]:
    """An operator whose template prints its operand twice."""
    yield register_operator(unary("twice", *SOFT, latex=r"\frac{{{x}}}{{1 + |{x}|}}")).name
    OPERATORS.unregister("twice")


def chain(*names: str, depth: int) -> Expression:
    """Every operator has the one before it as all of its operands."""
    node = Expression.leaf("logit")
    for level in range(depth):
        name = names[level % len(names)]
        node = Expression.apply(name, *[node] * OPERATORS[name].arity)
    return node


CHAINS = [("max",), ("mul", "neg"), ("add", "inv"), ("add", "neg", "inv"), ("square",), ("max", "square")]


@pytest.mark.parametrize("names", CHAINS)
def test_shared_parts_are_printed_once(names: tuple[str, ...]) -> None:
    for text in (chain(*names, depth=99).latex(), chain(*names, depth=99).readable(), str(chain(*names, depth=99))):
        assert len(text) < 99 * 100


def test_a_template_that_prints_an_operand_twice_does_not_unfold_it(twice: str) -> None:
    for names in ((twice,), (twice, "max"), (twice, "neg"), ("inv", twice, "add")):
        assert len(chain(*names, depth=99).latex()) < 99 * 200


def wide(count: int) -> list[Expression]:
    """So many sums of two hundred parts each, which share nearly all of it."""
    parts = [Expression.leaf(number + 0.12345678901) for number in range(count)]
    while len(parts) > 1:
        parts = [Expression.apply("mul", *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts


def test_a_formula_that_could_not_be_read_back_is_not_made() -> None:
    (whole,) = wide(4096)
    assert len(str(whole)) <= MAX_TEXT and Expression.parse(str(whole)) is whole
    with pytest.raises(ExpressionError, match=f"exact text of an expression may have {MAX_TEXT} characters"):
        wide(8192)
    longest = whole
    for k in range(1000):
        try:
            longest = Expression.apply("max", longest, Expression.leaf(k))
        except ExpressionError:
            break
    assert Expression.parse(str(longest)) is longest


def test_a_text_that_is_longer_when_it_is_spelt_out_is_not_read() -> None:
    text = _balanced([f"{k}.5{'-s-y' * 10}" for k in range(700)])  # s and y are short for logit and label
    assert len(text) < MAX_TEXT
    with pytest.raises(ParseError, match="exact text"):
        Expression.parse(text)


def _balanced(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    middle = len(names) // 2
    return f"max({_balanced(names[:middle])}, {_balanced(names[middle:])})"


def test_names_have_a_longest_length() -> None:
    Expression.parse(f"mul({'n' * 60}=2, logit)")
    with pytest.raises(ExpressionError, match="at most 60 characters"):
        Expression.parse(f"mul({'n' * 61}=2, logit)")
