"""A grammar's expressions as DEAP's prefix trees, and the ways to vary them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
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

    Each mutation changes the tree that it is given, and returns it.

    Args:
        grammar: whose operators, terminals and constants are used.
        rng: for the grammar's own draws.
        sizes: numbers of operators of which the grammar has trees.

    Attributes:
        chance: all other draws, seeded by `reseed`. DEAP's own operators draw from Python's global `random`, which
            searches in other threads would share: none of them is used.
    """

    def __init__(self, grammar: Grammar, rng: np.random.Generator, sizes: tuple[int, ...]) -> None:
        self._grammar = grammar
        self._rng = rng
        self._sizes = sizes
        self.chance = random.Random(0)
        self._operators = {
            name: gp.Primitive(name, [_UNTYPED] * arity, _UNTYPED)
            for arity, names in ((1, grammar.unary), (2, grammar.binary))
            for name in names
        }

    def reseed(self) -> None:
        """Seed `chance` from the searcher's own generator, so that this one's state is all that has to be saved."""
        self.chance.seed(int(self._rng.integers(2**63)))

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
        if len(first) > 1 and len(second) > 1:  # a leaf alone would only be replaced by a part of the other
            place = first.searchSubtree(self.chance.randrange(1, len(first)))
            first[place] = second[second.searchSubtree(self.chance.randrange(1, len(second)))]
        return first

    def replace_subtree(self, tree: Tree) -> Tree:
        """Put a random tree in the place of a random subtree."""
        place = self._random_subtree(tree)
        room = self._grammar.max_size - operator_count(tree) + operator_count(tree[place])
        sizes = [0, *(size for size in self._sizes if size <= min(room, _LARGEST_SUBTREE))]
        new = self._grammar.sample(self._rng, self.chance.choice(sizes))
        tree[place] = self.tree(new)
        return tree

    def replace_node(self, tree: Tree) -> Tree:
        """Put another operator of the same arity, or another leaf, in the place of a random node."""
        index = self.chance.randrange(len(tree))
        arity = tree[index].arity
        if arity == 0:
            tree[index] = self._random_leaf()
        else:
            names = self._grammar.unary if arity == 1 else self._grammar.binary
            tree[index] = self._operators[self.chance.choice(names)]
        return tree

    def hoist(self, tree: Tree) -> Tree:
        """Put a part of a random subtree in that subtree's place."""
        place = self._random_subtree(tree)
        inner = Tree(tree[place])
        tree[place] = inner[self._random_subtree(inner)]
        return tree

    def insert_operator(self, tree: Tree) -> Tree:
        """Put a random operator above a random subtree, with a leaf as its other operand."""
        place = self._random_subtree(tree)
        operator = self._operators[self.chance.choice(list(self._operators))]
        operands = [list(tree[place])]
        if operator.arity == 2:
            operands.append([self._random_leaf()])
            self.chance.shuffle(operands)
        tree[place] = [operator, *(node for operand in operands for node in operand)]
        return tree

    def perturb_constant(self, tree: Tree) -> Tree:
        """Change a random number a little, now and then its sign; without one, replace a node."""
        places = [index for index, node in enumerate(tree) if node.arity == 0 and _is_number(node)]
        if not self._grammar.constants or not places:
            return self.replace_node(tree)
        index = self.chance.choice(places)
        number = float(tree[index].value)
        size = abs(number) * math.exp(self.chance.gauss(0.0, _CONSTANT_STEP))
        size = min(max(size, _CONSTANT_RANGE[0]), _CONSTANT_RANGE[1])
        sign = math.copysign(1.0, number) * (-1.0 if self.chance.random() < 0.1 else 1.0)
        tree[index] = self._node(self._grammar.leaf(float(f"{sign * size:.2g}")))
        return tree

    def _random_subtree(self, tree: Tree) -> slice:
        place: slice = tree.searchSubtree(self.chance.randrange(len(tree)))
        return place

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
