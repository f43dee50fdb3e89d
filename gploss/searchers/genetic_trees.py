"""A grammar's expressions as DEAP's prefix trees, and the ways to vary them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from deap import gp

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar, GrammarError

_UNTYPED = gp.__type__
"""One type for all nodes: DEAP's crossover of typed trees is not reproducible."""

_LARGEST_SUBTREE = 4
"""Most operators of the random tree that mutation puts in the place of a subtree."""

_CONSTANT_STEP = 0.5
"""Standard deviation of a constant's change, as a logarithm."""

_CONSTANT_RANGE = (1e-3, 1e3)


class Tree(gp.PrimitiveTree):  # type: ignore[misc]
    """A list of nodes in prefix order.

    DEAP evaluates text when it reads or compiles such trees; nothing here does either.
    """


class TreeVariation:
    """Builds and varies trees of a grammar. The results may break its limits: see `within_limits`.

    Each mutation changes the tree that it is given, and returns it. All but the draws of whole expressions come
    from the global `random`, as DEAP's own operators do: call it inside of `seeded_random`.

    Args:
        grammar: whose operators, terminals and constants are used.
        rng: for the grammar's own draws.
        sizes: numbers of operators of which the grammar has trees.
    """

    def __init__(self, grammar: Grammar, rng: np.random.Generator, sizes: tuple[int, ...]) -> None:
        self._grammar = grammar
        self._rng = rng
        self._sizes = sizes
        self._operators = {
            name: gp.Primitive(name, [_UNTYPED] * arity, _UNTYPED)
            for arity, names in ((1, grammar.unary), (2, grammar.binary))
            for name in names
        }

    def tree(self, expression: Expression) -> Tree:
        """Return an expression as a tree, shared operands unfolded."""
        nodes: list[Any] = []
        waiting = [expression]
        while waiting:
            part = waiting.pop()
            nodes.append(self._node(part))
            waiting.extend(reversed(part.operands))
        return Tree(nodes)

    def expression(self, tree: Tree) -> Expression:
        """Return a tree as an expression."""
        done: list[Expression] = []
        for node in reversed(tree):
            if node.arity == 0:
                done.append(self._grammar.leaf(node.value))
            else:
                operands = [done.pop() for _ in range(node.arity)]
                done.append(Expression.apply(node.name, *operands))
        (root,) = done
        return root

    def within_limits(self, tree: Tree) -> bool:
        """Whether the tree has at most the grammar's number of operators, and its depth."""
        return bool(operator_count(tree) <= self._grammar.max_size and tree.height <= self._grammar.max_depth)

    def crossover(self, first: Tree, second: Tree) -> Tree:
        """Put a random subtree of the second tree in the place of one of the first."""
        offspring: Tree = gp.cxOnePoint(first, second)[0]
        return offspring

    def replace_subtree(self, tree: Tree) -> Tree:
        """Put a random tree in the place of a random subtree."""
        place = _random_subtree(tree)
        room = self._grammar.max_size - operator_count(tree) + operator_count(tree[place])
        sizes = [0, *(size for size in self._sizes if size <= min(room, _LARGEST_SUBTREE))]
        new = self._grammar.sample(self._rng, random.choice(sizes))
        tree[place] = self.tree(new)
        return tree

    def replace_node(self, tree: Tree) -> Tree:
        """Put another operator of the same arity, or another leaf, in the place of a random node."""
        index = random.randrange(len(tree))
        arity = tree[index].arity
        if arity == 0:
            tree[index] = self._random_leaf()
        else:
            names = self._grammar.unary if arity == 1 else self._grammar.binary
            tree[index] = self._operators[random.choice(names)]
        return tree

    def hoist(self, tree: Tree) -> Tree:
        """Put a part of a random subtree in that subtree's place."""
        place = _random_subtree(tree)
        inner = Tree(tree[place])
        tree[place] = inner[_random_subtree(inner)]
        return tree

    def insert_operator(self, tree: Tree) -> Tree:
        """Put a random operator above a random subtree, with a leaf as its other operand."""
        place = _random_subtree(tree)
        operator = self._operators[random.choice(list(self._operators))]
        operands = [list(tree[place])]
        if operator.arity == 2:
            operands.append([self._random_leaf()])
            random.shuffle(operands)
        tree[place] = [operator, *(node for operand in operands for node in operand)]
        return tree

    def perturb_constant(self, tree: Tree) -> Tree:
        """Change a random number a little, now and then its sign; without one, replace a node."""
        places = [index for index, node in enumerate(tree) if node.arity == 0 and _is_number(node)]
        if not self._grammar.constants or not places:
            return self.replace_node(tree)
        index = random.choice(places)
        number = float(tree[index].value)
        size = abs(number) * math.exp(random.gauss(0.0, _CONSTANT_STEP))
        size = min(max(size, _CONSTANT_RANGE[0]), _CONSTANT_RANGE[1])
        sign = math.copysign(1.0, number) * (-1.0 if random.random() < 0.1 else 1.0)
        tree[index] = self._node(self._grammar.leaf(float(f"{sign * size:.2g}")))
        return tree

    def _random_leaf(self) -> Any:
        return self._node(self._grammar.sample_leaf(self._rng))

    def _node(self, expression: Expression) -> Any:
        if expression.operands:
            return self._operators[expression.head]
        value = expression.head if expression.constant is None else expression.constant
        return gp.Terminal(value, True, _UNTYPED)


def operator_count(nodes: Sequence[Any]) -> int:
    """Return how many nodes of a tree are operators."""
    return sum(node.arity > 0 for node in nodes)


@contextmanager
def seeded_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's global `random`, which DEAP draws from, and put it back as it was at the end."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)


def possible_sizes(grammar: Grammar) -> tuple[int, ...]:
    """Return the numbers of operators, from 1 to the limit, of which the grammar has trees within its depth.

    Raises:
        GrammarError: if there is none.
    """
    rng = np.random.default_rng(0)
    sizes: list[int] = []
    for size in range(1, grammar.max_size + 1):
        try:
            grammar.sample(rng, size)
        except GrammarError:
            # For instance only unary operators, and a depth below the size.
            continue
        sizes.append(size)
    if not sizes:
        raise GrammarError(f"the {grammar.name} grammar has no expression with an operator: give it operators")
    return tuple(sizes)


def _is_number(node: Any) -> bool:
    return isinstance(node.value, float)


def _random_subtree(tree: Tree) -> slice:
    place: slice = tree.searchSubtree(random.randrange(len(tree)))
    return place
