"""Expressions for property tests: random graphs with shared operands, as searchers write them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.operators import unary

#: A user's own operator: log(1 + e^x), written so that it does not overflow.
SOFTRAMP = unary("softramp", "0.5 * (x + abs(x)) + log(1 + exp(-abs(x)))", "sigmoid(x)")

GRAMMARS = {"standard": Grammar.standard(), "paper": Grammar.paper()}

#: Constants that have given trouble somewhere: signs, tiny, huge, integers in float's clothes.
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-6, 1e-300, 1e15, 1e22, -1e300]) | st.floats(
    allow_nan=False, allow_infinity=False
)


def grammars() -> st.SearchStrategy[Grammar]:
    """Either preset: plain with constants, or clamped without."""
    return st.sampled_from(list(GRAMMARS.values()))


@st.composite
def leaves(draw: st.DrawFn, grammar: Grammar, numbers: st.SearchStrategy[float] = NUMBERS) -> Expression:
    """A terminal, or a number where the grammar has them."""
    choice = draw(st.integers(0, len(grammar.terminals) - 1 + grammar.constants))
    return grammar.leaf(grammar.terminals[choice] if choice < len(grammar.terminals) else draw(numbers))


@st.composite
def expressions(draw: st.DrawFn, grammar: Grammar, most_steps: int = 10) -> Expression:
    """A graph: each step applies an operator to parts made before, so that parts are shared."""
    parts = [draw(leaves(grammar)) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(0, most_steps))):
        name = draw(st.sampled_from(grammar.operators))
        arity = 2 if name in grammar.binary else 1
        back = [draw(st.integers(0, len(parts) - 1)) for _ in range(arity)]
        parts.append(Expression.apply(name, *(parts[-1 - i] for i in back)))
    return parts[-1]


@st.composite
def any_expressions(draw: st.DrawFn, most_steps: int = 10) -> Expression:
    """An expression of either preset."""
    return draw(expressions(draw(grammars()), most_steps))


def random_graph(grammar: Grammar, rng: np.random.Generator, steps: int) -> Expression:
    """The same kind of graph from numpy's generator: quick, for sweeps over hundreds of them."""
    parts = [grammar.sample_leaf(rng) for _ in range(3)]
    for _ in range(steps):
        name = str(rng.choice(grammar.operators))
        arity = 2 if name in grammar.binary else 1
        recent = parts[-4:]
        parts.append(Expression.apply(name, *(recent[int(rng.integers(len(recent)))] for _ in range(arity))))
    return parts[-1]


def random_expressions(seed: int, count: int, grammar: Grammar) -> list[Expression]:
    """Half uniform trees, half graphs with shared parts; sizes up to the grammar's limits."""
    rng = np.random.default_rng(seed)
    found = [grammar.sample(rng, int(rng.integers(1, grammar.max_size + 1))) for _ in range(count // 2)]
    found += [random_graph(grammar, rng, int(rng.integers(1, 9))) for _ in range(count - count // 2)]
    return found
