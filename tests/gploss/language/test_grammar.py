from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import PAPER_OPERATORS, Grammar, GrammarError
from gploss.language.operators import OPERATORS, Operator, register_operator, unary
from gploss.language.parsing import ExpressionError, ParseError
from tests.strategies import GRAMMARS, expressions

TINY = Grammar("tiny", ("neg", "log", "add"), ("pred", "2"), False, "plain", 4, 3)
WITH_CONSTANTS = Grammar("constants", ("add",), ("pred", "label"), True, "clamped", 3, 3)


def trees(grammar: Grammar, size: int, depth: int) -> Iterator[str]:
    """Every tree of a size, written in full, by brute force; a constant as c."""
    if size == 0:
        yield from (*grammar.terminals, *("c" if grammar.constants else ""))
    elif depth > 0:
        for name in grammar.unary:
            yield from (f"{name}({inner})" for inner in trees(grammar, size - 1, depth - 1))
        for name in grammar.binary:
            for left in range(size):
                sides = (trees(grammar, left, depth - 1), trees(grammar, size - 1 - left, depth - 1))
                yield from (f"{name}({a}, {b})" for a, b in product(*sides))


def written(grammar: Grammar, node: Expression) -> str:
    if node.operands:
        return f"{node.head}({', '.join(written(grammar, operand) for operand in node.operands)})"
    return node.head if node.head in grammar.terminals else "c"


@pytest.mark.parametrize("grammar", [TINY, WITH_CONSTANTS], ids=lambda grammar: grammar.name)
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_sampling_is_uniform_over_trees(grammar: Grammar, size: int) -> None:
    cells = list(trees(grammar, size, grammar.max_depth))
    assert len(set(cells)) == len(cells)
    rng = np.random.default_rng(7)
    draws = 6_000
    counts = Counter(written(grammar, grammar.sample(rng, size)) for _ in range(draws))
    assert set(counts) <= set(cells)
    expected = draws / len(cells)
    assert expected > 5
    chi_square = sum((counts[cell] - expected) ** 2 / expected for cell in cells)
    freedom = len(cells) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)
    assert chi_square > freedom - 4 * np.sqrt(2 * freedom)  # too even is no chance either


def test_sampling_keeps_the_depth_limit_and_stays_uniform_under_it() -> None:
    flat = replace(TINY, operators=("neg", "add"), max_depth=2)
    cells = list(trees(flat, 3, 2))
    assert len(cells) == 36  # only add of two single operators: (2 + 4)^2
    rng = np.random.default_rng(1)
    counts = Counter(written(flat, flat.sample(rng, 3)) for _ in range(4_000))
    assert set(counts) == set(cells)
    expected = 4_000 / len(cells)
    assert sum((counts[cell] - expected) ** 2 / expected for cell in cells) < len(cells) + 4 * np.sqrt(
        2 * len(cells)
    )


@pytest.mark.parametrize("name", GRAMMARS)
def test_samples_belong_to_the_grammar_at_every_size(name: str) -> None:
    grammar = GRAMMARS[name]
    rng = np.random.default_rng(5)
    for size in range(grammar.max_size + 1):
        for _ in range(20):
            sample = grammar.sample(rng, size)
            grammar.check(sample)
            assert sample in grammar
            assert sample.tree_size == size
            assert sample.depth <= grammar.max_depth
            assert grammar.parse(str(sample)) is sample


def test_sizes_that_no_tree_has() -> None:
    rng = np.random.default_rng(0)
    for grammar, size in (
        (TINY, 5),
        (TINY, -1),
        (replace(TINY, operators=("neg",), max_depth=3), 4),
        (replace(TINY, operators=()), 1),
        (replace(TINY, operators=("add",), max_depth=1), 2),
    ):
        with pytest.raises(GrammarError, match=f"no tree of {size} operators"):
            grammar.sample(rng, size)


def test_the_generator_is_the_only_source_of_randomness() -> None:
    def draws(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [str(Grammar.standard().sample(rng, 6)) for _ in range(20)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_constants_are_short_finite_and_of_both_signs() -> None:
    rng = np.random.default_rng(11)
    found = [Grammar.standard().sample_constant(rng).constant or 0.0 for _ in range(2_000)]
    magnitudes = np.abs(found)
    assert magnitudes.min() >= 0.01 and magnitudes.max() <= 100
    assert all(float(f"{number:.2g}") == number for number in found)
    assert 0.45 < np.mean(np.array(found) > 0) < 0.55
    share_below_one = float(np.mean(magnitudes < 1))
    assert 0.45 < share_below_one < 0.55  # log-uniform: half lie below the middle of the exponents


def test_presets_are_as_published() -> None:
    paper = Grammar.paper()
    assert paper.operators == PAPER_OPERATORS
    assert (paper.terminals, paper.constants) == (("pred", "label", "1"), False)
    assert (paper.semantics, paper.max_size) == ("clamped", 10)
    assert paper.binary == ("add", "mul", "max", "min")
    assert paper.unary == ("neg", "identity", "log", "square", "inv")
    standard = Grammar.standard()
    assert set(standard.operators) == {name for name, row in OPERATORS.items() if not row.opt_in}
    assert standard.constants and standard.semantics == "plain" and "logit" in standard.terminals


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("clamped(add(pred, sigmoid(label)))", 18, "operator 'sigmoid' is not in the paper grammar"),
        ("clamped(add(pred, logit))", 18, r"'logit' is not in the paper grammar \(pred, label, 1\)"),
        ("clamped(add(pred, 2))", 18, "'2' is not in the paper grammar"),
        ("add(pred, label)", 4, r"semantics are plain; the paper grammar wants clamped\(\.\.\.\)"),
        ("clamped(" + "log(" * 10 + "neg(pred))" + ")" * 10, 8, "11 operators deep; the paper grammar allows 10"),
        (
            "clamped(max(" + "log(" * 5 + "pred" + ")" * 5 + "," + "neg(" * 5 + "label" + ")" * 5 + "))",
            8,
            "11 operators; the paper grammar allows 10",
        ),
    ],
)
def test_what_lies_outside_is_named_with_its_position(text: str, position: int, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        Grammar.paper().parse(text)
    assert caught.value.position == position
    assert Expression.parse(text) not in Grammar.paper()
    with pytest.raises(GrammarError, match=message.replace("semantics are plain; ", "")):
        Grammar.paper().check(Expression.parse(text))


def test_nothing_else_is_in_a_grammar() -> None:
    grammar = Grammar.standard()
    assert "pred" not in grammar
    assert None not in grammar
    assert Expression.parse("clamped(pred)") not in grammar
    assert Expression.parse("2.5 * pred") in grammar
    assert Expression.parse("2.5 * pred") not in replace(grammar, constants=False)
    assert Expression.parse("1 * pred") in replace(grammar, constants=False)


def test_shared_operands_count_once() -> None:
    grammar = replace(Grammar.standard(), max_size=4, max_depth=4)
    grammar.parse("a = pred + label; b = a * a; c = b * b; c * c")
    with pytest.raises(ParseError, match="5 operators"):
        replace(grammar, max_depth=9).parse("a = pred + label; b = a * a; c = b * b; d = c * c; d * d")


@given(st.data())
def test_graphs_within_the_limits_are_in(data: st.DataObject) -> None:
    grammar = data.draw(st.sampled_from(list(GRAMMARS.values())))
    expression = data.draw(expressions(grammar, 12))
    within = expression.size <= grammar.max_size and expression.depth <= grammar.max_depth
    assert (expression in grammar) == within


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operators": ("add", "foo")}, "no operator is named 'foo'; known: add"),
        ({"operators": ("add", "add")}, "twice"),
        ({"terminals": ()}, "at least one terminal"),
        ({"terminals": ("pred", "foo")}, "'foo' is neither a finite number nor a terminal"),
        ({"terminals": ("pred", "nan")}, "finite"),
        ({"terminals": ("pred", "1.0")}, "'1.0' has to be written '1'"),
        ({"terminals": ("pred", "pred")}, "twice"),
        ({"max_size": 0}, "max_size must be at least 1"),
        ({"max_depth": 0}, "max_depth must be at least 1"),
        ({"max_depth": 101}, "max_depth must be at most 100, got 101"),
        ({"max_size": 4.0}, "max_size must be a whole number, got 4.0"),
        ({"operators": "add"}, r"operators must be a list of texts, got a single one: write operators=\['add'\]"),
        ({"terminals": None}, "terminals must be a list of texts, got None"),
        ({"operators": ["add", abs]}, "each of operators must be a text, got <built-in function abs>"),
        ({"semantics": "clamp"}, "semantics must be plain or clamped, got 'clamp'"),
    ],
)
def test_a_grammar_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        replace(TINY, **change)
    assert issubclass(GrammarError, ExpressionError)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"operators": ("neg", "add")},
        {"operators": ("add", "log", "neg")},
        {"terminals": ("pred",)},
        {"terminals": ("pred", "3")},
        {"constants": True},
        {"semantics": "clamped"},
        {"max_size": 5},
        {"max_depth": 2},
    ],
)
def test_the_content_hash_changes_with_every_field(change: dict[str, Any]) -> None:
    assert replace(TINY).content_hash == TINY.content_hash
    assert replace(TINY, **change).content_hash != TINY.content_hash


def test_the_content_hash_changes_with_an_operators_formulas(softramp: Operator) -> None:
    own = replace(TINY, operators=("neg", "softramp"))
    before = own.content_hash
    OPERATORS.unregister("softramp")
    register_operator(unary("softramp", "log(exp(x) + 1)", "sigmoid(x)"))
    assert replace(own).content_hash != before
