"""Named constants: `t=0.2` in the text, a number in all that is computed."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.parsing import ExpressionError, ParseError
from tests.pointwise import compiled, run
from tests.strategies import NUMBERS, any_expressions

parse = Expression.parse

NAMES = ("t", "w", "margin", "e", "t_1", "t1e")
VALUES = st.fixed_dictionaries(dict.fromkeys(NAMES, NUMBERS))


def with_names(expression: Expression, numbers: list[str | None], values: dict[str, float]) -> Expression:
    """The same formula with named constants in the place of some of its leaves."""
    rebuilt: dict[Expression, Expression] = {}
    for i, node in enumerate(expression.nodes()):
        name = numbers[i % len(numbers)]
        if node.operands:
            rebuilt[node] = Expression.apply(node.head, *[rebuilt[operand] for operand in node.operands])
        else:
            rebuilt[node] = node if name is None else Expression.leaf(values[name], node.semantics, name)
    return rebuilt[expression]


def filled(expression: Expression) -> Expression:
    """The same formula with plain numbers, made apart from `canonical`."""
    rebuilt: dict[Expression, Expression] = {}
    for node in expression.nodes():
        if node.operands:
            rebuilt[node] = Expression.apply(node.head, *[rebuilt[operand] for operand in node.operands])
        else:
            rebuilt[node] = Expression.leaf(node.head if node.constant is None else node.constant, node.semantics)
    return rebuilt[expression]


@st.composite
def named(draw: st.DrawFn, most_steps: int = 40) -> Expression:
    numbers = draw(st.lists(st.sampled_from([None, *NAMES]), min_size=1, max_size=5))
    return with_names(draw(any_expressions(most_steps)), numbers, draw(VALUES))


@given(named())
@settings(max_examples=200)
def test_text_and_pickle_bring_back_the_same_object(expression: Expression) -> None:
    assert parse(str(expression)) is expression
    assert pickle.loads(pickle.dumps(expression)) is expression  # noqa: S301 - our own bytes
    assert copy.deepcopy(expression) is expression
    other = "plain" if expression.semantics == "clamped" else "clamped"
    assert expression.with_semantics(other).with_semantics(expression.semantics) is expression


@given(named())
def test_what_is_trained_is_the_formula_with_its_numbers(expression: Expression) -> None:
    plain = filled(expression)
    assert expression.canonical() is plain.canonical()
    assert not plain.constants and not expression.canonical().constants
    assert (expression is plain) == (not expression.constants)
    assert (expression.digest == plain.digest) == (not expression.constants)
    assert compiled([expression]).expressions == compiled([plain]).expressions


@given(named(), VALUES)
def test_a_family_is_one_text_whatever_the_values(expression: Expression, values: dict[str, float]) -> None:
    chosen = {name: values[name] for name in expression.constants}
    moved = expression.with_constants(**chosen)
    assert moved.family == expression.family
    assert dict(moved.constants) == {name: value + 0.0 for name, value in chosen.items()}
    assert moved.with_constants(**expression.constants) is expression
    assert all(f"{name}=" not in expression.family for name in NAMES)
    assert [len(re.findall(rf"\b{name}=", str(moved))) for name in chosen] == [1] * len(chosen)


@pytest.mark.parametrize(
    ("text", "printed", "family"),
    [
        ("mul(t=0.2, label)", "mul(t=0.2, label)", "mul(t, label)"),
        ("t = 0.2; t * label - t", "add(mul(t=0.2, label), neg(t))", "add(mul(t, label), neg(t))"),
        ("label - t=-2", "add(label, neg(t=-2))", "add(label, neg(t))"),
        ("-t=2", "neg(t=2)", "neg(t)"),
        ("t=1e-3", "t=0.001", "t"),
        ("2*t=.5*w=5.", "mul(mul(2, t=0.5), w=5)", "mul(mul(2, t), w)"),
        ("clamped(\tw = 1; add(w,\nw=1.0))", "clamped(add(w=1, w))", "clamped(add(w, w))"),
        ("add(t, t=2)", "add(t=2, t)", "add(t, t)"),
        ("half = pred / 2; t=3; half * t", "mul(mul(pred, inv(2)), t=3)", "mul(mul(pred, inv(2)), t)"),
        ("a = 2 * pred; a + a", "add(mul(2, pred), mul(2, pred))", "add(mul(2, pred), mul(2, pred))"),
        ("mul(2, pred)", "mul(2, pred)", "mul(2, pred)"),
    ],
)
def test_names_beside_parts_that_are_shared(text: str, printed: str, family: str) -> None:
    expression = parse(text)
    assert str(expression) == printed
    assert expression.family == family


def test_long_formulas_name_both_parts_and_numbers() -> None:
    text = "t=0.25; part = exp(t * logit - t); " + " + ".join(["part * part * t"] * 12)
    expression = parse(text)
    assert str(expression).startswith("t1 = exp(add(mul(t=0.25, logit), neg(t))); t2 = ")
    assert str(expression).count("0.25") == 1
    assert parse(str(expression)) is expression
    with pytest.raises(ParseError, match="unknown name 't'"):
        parse(expression.family)


@pytest.mark.parametrize(
    ("text", "position", "found", "expected"),
    [
        ("mul(t=0.2, t=0.3)", 11, "'t' is 0.2 and 0.3", "one value for each name"),
        ("t=0.2; t=0.3; t", 7, "'t' is 0.2 and 0.3", "one value for each name"),
        ("mul(t, label)", 4, "unknown name 't'", r"a number \(t=0.5 names one\)"),
        (" add(pred, pred=2)", 11, "'pred' is no name of a constant: it has a meaning", "another name"),
        ("clamped( log=2 )", 9, "'log' is no name of a constant", "another name"),
        ("t1=2; t1 * pred", 0, "'t1' is no name of a constant", "another name, such as t=0.5"),
        ("sub=2; pred", 0, "'sub' is no name of a constant", "another name"),
        ("mul(T=2, pred)", 4, "use lower-case letters", "another name"),
        ("mul(é=2, pred)", 4, "use lower-case letters", "another name"),
        ("mul(if=2, pred)", 4, "use lower-case letters", "another name"),
        ("max(pred, t=1e999)", 10, "not finite", "a finite number"),
        ("t=2; t = pred; t", 5, "'t' is taken", "a new name"),
        ("t = pred; t * t=2", 0, "'t' is taken", "a new name"),
        ("max(é, t=0.2)", 4, "unknown name 'é'", "pred, label, logit"),
        ("max(t=0.2, foo)", 11, "unknown name 'foo'", "pred, label, logit"),
        ("t=0.2*pred", 0, "ends with a definition", "at the end"),
        ("t=0x10; t*pred", 0, "the value of 't' cannot be read", "a number such as 0.5"),
        ("t=1_0; t*pred", 0, "the value of 't' cannot be read", "a number such as 0.5"),
        ("max(pred, t=0x10)", 0, "not allowed here", "operators, terminals and numbers"),
        ("max(pred, t=label)", 0, "not allowed here", "operators, terminals and numbers"),
        ("pred t=0.2", 5, "invalid syntax", "operator"),
        ("max(pred, t==0.2)", 10, "not allowed here", "operators, terminals and numbers"),
    ],
)
def test_mistakes_are_named_where_they_are(text: str, position: int, found: str, expected: str) -> None:
    with pytest.raises(ParseError, match=rf"position {position}: (?s:.*){found}(?s:.*)expected .*{expected}"):
        parse(text)


def test_parts_with_different_values_for_one_name_cannot_be_joined() -> None:
    one, other = parse("t=0.2; t * pred"), parse("t=0.3; t * label")
    with pytest.raises(ExpressionError, match=r"t is 0\.2 and 0\.3; a name stands for one value"):
        Expression.apply("add", one, other)
    both = Expression.apply("add", one, other.with_constants(t=0.2))
    assert dict(both.constants) == {"t": 0.2}


def test_constants_that_are_not_there_cannot_be_set() -> None:
    expression = parse("w=1; t=2; w * pred + t")
    with pytest.raises(ExpressionError, match=r"no constant 'u'; its named constants: w, t"):
        expression.with_constants(u=1.0)
    with pytest.raises(ExpressionError, match=r"no constant 't'; its named constants: none"):
        parse("pred").with_constants(t=1.0)
    with pytest.raises(ExpressionError, match="must be finite"):
        expression.with_constants(t=float("nan"))
    with pytest.raises(ExpressionError, match="'pred' is no name of a constant"):
        Expression.leaf(0.5, name="pred")
    with pytest.raises(TypeError):
        expression.constants["t"] = 3.0  # type: ignore[index]


def test_a_grammar_treats_them_as_numbers() -> None:
    assert parse("t=0.3; t * pred") in Grammar.standard()
    with pytest.raises(ParseError, match=r"position 12: 't=0.3' is not in the paper grammar"):
        Grammar.paper().parse("clamped(mul(t=0.3, pred))")


def test_the_loss_is_that_of_the_number() -> None:
    scores, labels = np.linspace(-3, 3, 7)[None], np.array([0, 1, 0, 1, 0, 1, 0.0])
    program = compiled([parse("mul(t=0.2, square(logit))"), parse("mul(0.2, square(logit))")])
    losses, gradients = run(program, scores.repeat(2, 0), labels)
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(gradients[0], gradients[1])
