from __future__ import annotations

import copy
import gc
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, binary, register_operator
from gploss.language.parsing import MAX_DEPTH, MAX_TEXT, ExpressionError, ParseError
from tests import reference
from tests.pointwise import compiled
from tests.strategies import any_expressions

parse = Expression.parse


def chain(operator: str, length: int, leaf: str = "pred") -> Expression:
    """The same operator again and again, its operand shared where it takes two."""
    node = Expression.leaf(leaf)
    for _ in range(length):
        node = Expression.apply(operator, *[node] * OPERATORS[operator].arity)
    return node


@given(any_expressions(most_steps=40))
@settings(max_examples=200)
def test_text_and_pickle_bring_back_the_same_object(expression: Expression) -> None:
    assert parse(str(expression)) is expression
    assert pickle.loads(pickle.dumps(expression)) is expression  # noqa: S301 - our own bytes
    assert copy.deepcopy(expression) is copy.copy(expression) is expression


@pytest.mark.parametrize("semantics", ["plain", "clamped"])
@pytest.mark.parametrize("operator", ["neg", "mul", "max"])
@pytest.mark.parametrize("length", [1, 5, 6, 40, 41, MAX_DEPTH])
def test_deep_chains_come_back(operator: str, length: int, semantics: Any) -> None:
    expression = chain(operator, length).with_semantics(semantics)
    assert expression.depth == expression.size == length
    assert expression.tree_size == (length if operator == "neg" else 2**length - 1)
    text = str(expression)
    assert len(text) < 40 * length + 400  # however large the tree
    assert parse(text) is pickle.loads(pickle.dumps(expression)) is expression  # noqa: S301 - our own bytes
    assert expression.canonical().canonical() is expression.canonical()


@given(any_expressions(most_steps=30))
def test_what_an_expression_says_of_itself(expression: Expression) -> None:
    nodes = expression.nodes()
    assert len(set(nodes)) == len(nodes) == expression.complexity
    assert nodes[-1] is expression
    seen: set[Expression] = set()
    trees: dict[Expression, int] = {}
    depths: dict[Expression, int] = {}
    for node in nodes:
        assert seen.issuperset(node.operands)
        seen.add(node)
        trees[node] = sum(trees[operand] for operand in node.operands) + bool(node.operands)
        depths[node] = 1 + max(depths[operand] for operand in node.operands) if node.operands else 0
        assert node.semantics == expression.semantics
        if node.operands:
            assert len(node.operands) == OPERATORS[node.head].arity
    assert expression.tree_size == trees[expression]
    assert expression.depth == depths[expression]
    assert expression.size == sum(1 for node in nodes if node.operands)
    assert expression.terminals == {node.head for node in nodes if not node.operands and node.constant is None}


@given(any_expressions())
def test_semantics_belong_to_the_expression(expression: Expression) -> None:
    other = expression.with_semantics("plain" if expression.semantics == "clamped" else "clamped")
    assert other is not expression
    assert other.with_semantics(expression.semantics) is expression
    assert other.digest != expression.digest
    assert str(other).removeprefix("clamped(").removesuffix(")") in str(expression) + ")"


def test_one_object_for_one_formula() -> None:
    one = parse("add(mul(label, pred), mul(label, pred))")
    assert one is parse("a = label * pred; a + a")
    assert one.operands[0] is one.operands[1]
    assert parse("1") is parse("1.0") is parse("1e0") is Expression.leaf(1) is Expression.leaf("1")
    assert parse("-0.0") is parse("0")
    assert parse("neg(2)") is not parse("-2")
    assert parse("add(pred, label)") is not parse("add(label, pred)")
    assert parse("clamped(pred)") is not parse("pred")
    assert len({one, parse(str(one)), one.with_semantics("plain")}) == 1


def test_what_nobody_holds_is_forgotten_and_comes_back_equal() -> None:
    text = "square(square(label - 0.123456))"
    before = parse(text).digest
    gc.collect()
    assert parse(text).digest == before


def test_expressions_cannot_be_changed_or_made_by_hand() -> None:
    expression = parse("neg(pred)")
    for name in ("head", "operands", "semantics", "depth", "anything", "_digest"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(expression, name, None)
    with pytest.raises(AttributeError, match="immutable"):
        del expression.head
    with pytest.raises(TypeError, match=r"Expression\.parse"):
        Expression()
    assert str(expression) == "neg(pred)"


def test_sugar_stands_for_the_protected_forms() -> None:
    assert str(parse("label - pred")) == "add(label, neg(pred))"
    assert str(parse("label / pred")) == "mul(label, inv(pred))"
    assert parse("sub(label, pred)") is parse("label - pred")
    assert parse("div(label, pred)") is parse("label/pred")
    assert str(parse("-(label * log(pred)) + 2 * -0.5")) == "add(neg(mul(label, log(pred))), mul(2, -0.5))"
    assert parse("label + pred * logit") is parse("add(label, mul(pred, logit))")
    assert parse("  clamped(\n label\t- pred ) ") is parse("label - pred").with_semantics("clamped")
    assert parse("a = neg(pred); b = a + a; mul(a, b)").size == 3


@pytest.mark.parametrize(
    ("text", "position", "found", "expected"),
    [
        ("", 0, "empty", "an expression such as"),
        (" \n ", 0, "empty", "an expression such as"),
        ("#pred", 0, "only a comment", "an expression"),
        ("clamped()", 8, "nothing is clamped", "an expression in the brackets"),
        ("prod", 0, "unknown name 'prod'", "pred, label, logit, weight, or a number"),
        ("max(pred, foo)", 10, "unknown name 'foo'", "pred, label, logit"),
        ("  max(pred, foo)", 12, "unknown name 'foo'", "pred, label, logit"),
        ("clamped( max(pred,\nfoo))", 19, "unknown name 'foo'", "pred, label, logit"),
        ("max(é, pred)", 4, "unknown name 'é'", "pred, label, logit"),
        ("max(pred, é)", 10, "unknown name 'é'", "pred, label, logit"),
        ("é + foo(pred)", 0, "unknown name 'é'", "pred, label, logit"),
        ("(pred) + foo(pred)", 9, "unknown operator 'foo'", "add, mul, max"),
        ("pred(label)", 0, "unknown operator 'pred'", "add, mul, max"),
        ("2 * neg", 4, "'neg' is an operator", r"neg\(\.\.\.\)"),
        ("neg(pred, label)", 0, r"neg has 2 operand\(s\)", "1"),
        ("neg(max(pred))", 4, r"max has 1 operand\(s\)", "2"),
        ("sub(pred)", 0, r"sub has 1 operand\(s\)", "2"),
        ("neg()", 0, r"neg has 0 operand\(s\)", "1"),
        ("max(pred, label", 3, "never closed", "terminal, or a number"),
        ("max(pred,, label)", 9, "invalid syntax", "terminal, or a number"),
        ("pred label", 5, "invalid syntax", "terminal, or a number"),
        ("pred)", 4, "unmatched", "terminal, or a number"),
        ("pred ** 3", 0, r"'pred \*\* 3' is not allowed", "operators, terminals and numbers"),
        ("1 + (pred if 1 else 2)", 5, "not allowed", "operators, terminals and numbers"),
        ("1 + pred[0]", 4, "not allowed", "operators, terminals and numbers"),
        ("pred.real", 0, "not allowed", "operators, terminals and numbers"),
        ("pred > label", 0, "not allowed", "operators, terminals and numbers"),
        ("max(a=pred, b=label)", 0, "not allowed", "operators, terminals and numbers"),
        ("max(*pred, label)", 4, "not allowed", "operators, terminals and numbers"),
        ("lambda: pred", 0, "not allowed", "operators, terminals and numbers"),
        ("neg(pred)(label)", 0, "not allowed", "operators, terminals and numbers"),
        ("True", 0, "not allowed", "operators, terminals and numbers"),
        ("1 + 'pred'", 4, "not allowed", "operators, terminals and numbers"),
        ("2j", 0, "not allowed", "operators, terminals and numbers"),
        ("+pred", 0, "not allowed", "operators, terminals and numbers"),
        ("1 + 1e400", 4, "not finite", "a finite number"),
        ("neg(" + "9" * 400 + ")", 4, "not finite", "a finite number"),
        ("clamped(neg(clamped(pred)))", 12, "'clamped' stands inside", "around the whole expression"),
        ("1 + clamped(pred)", 4, "'clamped' stands inside", "around the whole expression"),
        ("a = neg(pred)", 0, "ends with a definition", "the expression itself at the end"),
        ("neg(pred); pred", 0, "no definition", "name = expression"),
        ("a = pred; import os; a", 10, "no definition", "name = expression"),
        ("a = b = pred; a", 0, "no definition", "name = expression"),
        ("a, b = pred; a", 0, "no definition", "name = expression"),
        ("a: b = pred; a", 0, "no definition", "name = expression"),
        ("a = pred; a = label; a", 10, "'a' is taken", "a new name"),
        ("neg = pred; neg(neg)", 0, "'neg' is taken", "a new name"),
        ("label = pred; label", 0, "'label' is taken", "a new name"),
        ("a = b; b = pred; a", 4, "unknown name 'b'", "pred, label, logit"),
        ("pred +\0", 0, "null bytes", "terminal, or a number"),
        ("-" * (MAX_DEPTH + 1) + "pred", 0, "at most 100 operators deep", "a smaller expression"),
        ("+".join(["pred"] * 102), 0, "at most 100 operators deep", "a smaller expression"),
        ("0x" + "f" * 5000, 0, "the number is not finite", "a finite number"),
        ("-0x" + "f" * 5000, 0, "the number is not finite", "a finite number"),
        ("f(" + "9" * 4000 + ")[0]", 0, "is not allowed here", "operators, terminals and numbers"),
        ("(0x" + "f" * 5000 + ")[0]", 0, "is not allowed here", "operators, terminals and numbers"),
        ("x" * 90_000, 0, "unknown name 'xxx", "a number"),
        ("+".join(["pred"] * 600), 0, "nested too deeply", "at most 100 operators"),
        ("-" * 900 + "pred", 0, "nested too deeply", "at most 100 operators"),
        ("-" * 20_000 + "pred", 0, "cannot be read", "terminal, or a number"),
        ("(" * 250 + "pred" + ")" * 250, None, "too many nested parentheses", "terminal, or a number"),
        ("pred" + " " * MAX_TEXT, MAX_TEXT, "too long", "at most 100000 characters"),
    ],
)
def test_a_bad_text_gets_its_position_and_what_was_expected(
    text: str, position: int | None, found: str, expected: str
) -> None:
    with pytest.raises(ParseError, match=found) as caught:
        parse(text)
    if position is not None:
        assert caught.value.position == position
    assert re.search(expected, caught.value.expected)
    assert f"position {caught.value.position}: " in str(caught.value)
    assert caught.value.expected in str(caught.value)


def test_messages_are_short_however_long_the_text() -> None:
    for text in ("x" * 90_000, "f(" + "9" * 4000 + ")[0]", "-" * 900 + "pred", "[" * 5000):
        with pytest.raises(ParseError) as caught:
            Expression.parse(text)
        assert len(str(caught.value)) < 1000


def test_the_caret_stands_under_the_mistake() -> None:
    with pytest.raises(ParseError) as caught:
        parse("add(mul(label, pred), mul(logit, foo) + mul(label, label) + pred)")
    _, excerpt, caret = str(caught.value).splitlines()
    assert excerpt[caret.index("^") :].startswith("foo)")


@given(st.text(st.sampled_from("()+-*/=;,.10e #\n'_") | st.characters(), max_size=30))
@settings(max_examples=300)
def test_no_text_does_worse_than_a_parse_error(text: str) -> None:
    try:
        expression = parse(text)
    except ParseError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse(str(expression)) is expression


@given(
    st.lists(
        st.sampled_from(["pred", "label", "neg(", "max(", ")", ",", "+", "-", "2", "clamped(", " "]), max_size=12
    )
)
@settings(max_examples=300)
def test_no_sequence_of_words_does_worse_than_a_parse_error(words: list[str]) -> None:
    try:
        expression = parse("".join(words))
    except ParseError:
        return
    assert parse(str(expression)) is expression


def test_leaves_are_terminals_and_finite_numbers() -> None:
    for number in (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -1e15, 123456789012345.0, 2**53, -7):
        leaf = Expression.leaf(number)
        assert leaf.constant == number
        assert parse(str(leaf)) is leaf
    for bad in (float("nan"), float("inf"), -float("inf"), "nan", "inf", "prod", "neg", "", 10**400):
        with pytest.raises(ExpressionError):
            Expression.leaf(bad)


def test_operators_are_applied_to_operands_that_fit() -> None:
    pred = Expression.leaf("pred")
    with pytest.raises(ExpressionError, match=r"max takes 2 operand\(s\), not 1"):
        Expression.apply("max", pred)
    with pytest.raises(ExpressionError, match="different semantics"):
        Expression.apply("max", pred, Expression.leaf("pred", "clamped"))
    with pytest.raises(LookupError, match=r"no operator is named 'foo'.*add"):
        Expression.apply("foo", pred)
    with pytest.raises(ExpressionError, match="at most 100 operators deep"):
        Expression.apply("neg", chain("neg", MAX_DEPTH))


# ---------------------------------------------------------------------------------------------- canonical form


def commuted(expression: Expression, swap: list[bool]) -> Expression:
    """The same formula with commutative operands in another order here and there."""
    rebuilt: dict[Expression, Expression] = {}
    for i, node in enumerate(expression.nodes()):
        operands = [rebuilt[operand] for operand in node.operands]
        if operands and OPERATORS[node.head].commutative and swap[i % len(swap)]:
            operands.reverse()
        rebuilt[node] = Expression.apply(node.head, *operands) if operands else node
    return rebuilt[expression]


@given(any_expressions(most_steps=15), st.lists(st.booleans(), min_size=1, max_size=8))
@settings(max_examples=200)
def test_commuted_operands_are_one_program_bit_for_bit(expression: Expression, swap: list[bool]) -> None:
    canonical = expression.canonical()
    assert canonical.canonical() is canonical
    assert commuted(expression, swap).canonical() is canonical
    one, other = compiled([expression]), compiled([commuted(expression, swap)])
    assert one.expressions[0] is other.expressions[0] is canonical
    for name in ("instructions", "constants", "roots", "used", "clamped"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(any_expressions(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_the_canonical_form_keeps_value_and_gradient(expression: Expression, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(0, 2, 40), rng.integers(0, 2, 40).astype(float)
    own = reference.evaluate(expression, scores, labels)
    canonical = reference.evaluate(expression.canonical(), scores, labels)
    np.testing.assert_array_equal(own.losses, canonical.losses)
    steady = own.steady & canonical.steady
    np.testing.assert_allclose(own.gradients[steady], canonical.gradients[steady], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("identity(pred)", "pred"),
        ("mul(1, pred)", "pred"),
        ("mul(pred, 1)", "pred"),
        ("add(0, mul(pred, label))", "mul(label, pred)"),
        ("neg(neg(pred))", "pred"),
        ("neg(identity(neg(pred)))", "pred"),
        ("neg(neg(neg(pred)))", "neg(pred)"),
        ("add(mul(pred, pred), label)", "add(label, mul(pred, pred))"),
        ("mul(1, 1)", "1"),
        # not nothing: values differ
        ("mul(0, pred)", "mul(0, pred)"),
        ("add(1, pred)", "add(1, pred)"),
        ("max(pred, pred)", "max(pred, pred)"),
        ("inv(inv(pred))", "inv(inv(pred))"),
        # the clamp changes leaves, but not what an operator has clamped already
        ("clamped(identity(pred))", "clamped(identity(pred))"),
        ("clamped(mul(1, label))", "clamped(mul(1, label))"),
        ("clamped(identity(square(pred)))", "clamped(square(pred))"),
        ("clamped(mul(square(pred), 1))", "clamped(square(pred))"),
        ("clamped(neg(neg(pred)))", "clamped(neg(neg(pred)))"),
    ],
)
def test_what_is_dropped_and_what_is_not(text: str, canonical: str) -> None:
    assert str(parse(text).canonical()) == canonical


def test_an_operator_that_stops_commuting_is_no_longer_reordered() -> None:
    text = "ahead(pred, label)"
    register_operator(binary("ahead", "a * b", ("b", "a"), commutative=True))
    try:
        kept = parse(text)
        assert str(kept.canonical()) == "ahead(label, pred)"
    finally:
        OPERATORS.unregister("ahead")
    register_operator(binary("ahead", "a - 2 * b", ("1", "-2")))
    try:
        assert str(parse(text).canonical()) == str(kept.canonical()) == text
    finally:
        OPERATORS.unregister("ahead")
