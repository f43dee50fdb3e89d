"""Random search: what is drawn, and how often."""

from __future__ import annotations

from collections import Counter

import pytest

from gploss.language.grammar import Grammar, GrammarError
from gploss.searchers.random_search import RandomSearcher
from tests.synthetic import SyntheticEvaluator


def test_all_sizes_are_drawn_equally_often() -> None:
    grammar = Grammar.standard()
    searcher = RandomSearcher(grammar, SyntheticEvaluator(), seed=3)
    sizes = Counter(expression.tree_size for expression in searcher.ask(6000))
    assert set(sizes) == set(range(1, grammar.max_size + 1))
    # 400 expected of each; 5 standard deviations.
    assert all(abs(count - 400) < 5 * 400**0.5 for count in sizes.values())


def test_all_trees_of_a_size_are_drawn_equally_often() -> None:
    grammar = Grammar("two", ("add", "neg"), ("pred", "label"), False, "plain", 2, 2)
    searcher = RandomSearcher(grammar, SyntheticEvaluator(), seed=4)
    drawn = Counter(expression for expression in searcher.ask(6000))
    by_size = {size: [n for e, n in drawn.items() if e.tree_size == size] for size in (1, 2)}
    # One operator: neg of 2 leaves, add of 4 pairs. Two: neg of these 6; add of one of them and a leaf, both ways.
    assert {size: len(counts) for size, counts in by_size.items()} == {1: 6, 2: 30}
    for size, trees in ((1, 6), (2, 30)):
        expected = 3000 / trees
        assert all(abs(count - expected) < 5 * expected**0.5 for count in by_size[size])


def test_sizes_that_the_depth_rules_out_are_left_out() -> None:
    grammar = Grammar("chain", ("neg", "log"), ("pred",), False, "plain", 9, 3)
    proposals = RandomSearcher(grammar, SyntheticEvaluator()).ask(200)
    assert {expression.tree_size for expression in proposals} == {1, 2, 3}


def test_a_grammar_without_operators_is_refused() -> None:
    grammar = Grammar("bare", (), ("pred", "label"), False, "plain", 3, 3)
    with pytest.raises(GrammarError, match="give it operators"):
        RandomSearcher(grammar, SyntheticEvaluator())


def test_what_it_is_told_does_not_matter() -> None:
    told, untold = (RandomSearcher(Grammar.paper(), SyntheticEvaluator(), seed=1) for _ in range(2))
    proposals = told.ask(50)
    told.tell(told.evaluator.evaluate(proposals, {}, 50))
    assert proposals == untold.ask(50)
    assert told.ask(50) == untold.ask(50)
