"""What a search may write: operators, terminals, semantics, and limits that no proposal exceeds."""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final, get_args

import numpy as np

from gploss.arguments import instance, shown, texts, whole_number
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, Semantics
from gploss.language.parsing import MAX_DEPTH, ExpressionError
from gploss.language.terminals import TERMINALS
from gploss.tasks import Task
from gploss.tasks.pointwise import PAPER_LEAVES, POINTWISE

#: AutoLossGen's nine operators (arXiv 2204.13160, table 1).
PAPER_OPERATORS: Final = ("add", "mul", "max", "min", "neg", "identity", "log", "square", "inv")


class GrammarError(ExpressionError):
    """An expression lies outside of a grammar; the message says which of its rules is broken."""


@dataclass(frozen=True)
class Grammar:
    """A set of expressions.

    Args:
        name: for tables and messages.
        operators: names from `OPERATORS`.
        terminals: names from `TERMINALS`, and single numbers such as ``"1"``.
        constants: whether any other finite number may occur.
        semantics: "plain", or "clamped" as in the authors' code.
        max_size: most distinct operator nodes of an expression.
        max_depth: most operators on a way from the root to a leaf.

    Raises:
        GrammarError: an unknown name, a name twice, no terminal, a limit below 1, or an argument of another kind.

    Example:
        >>> grammar = Grammar.standard()
        >>> grammar.parse("square(label - pred)") in grammar
        True
        >>> str(Grammar.paper().sample(np.random.default_rng(3), size=2))
        'clamped(add(pred, inv(label)))'
    """

    name: str
    operators: tuple[str, ...]
    terminals: tuple[str, ...]
    constants: bool
    semantics: Semantics
    max_size: int
    max_depth: int

    def __post_init__(self) -> None:
        try:
            for name in ("operators", "terminals"):
                object.__setattr__(self, name, texts(name, getattr(self, name)))
            for name in ("max_size", "max_depth"):
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least=1))
        except (TypeError, ValueError) as error:
            raise GrammarError(str(error)) from None
        if self.semantics not in get_args(Semantics):
            raise GrammarError(f"semantics must be {' or '.join(get_args(Semantics))}, got {shown(self.semantics)}")
        for operator_name in self.operators:
            if operator_name not in OPERATORS:
                raise GrammarError(f"no operator is named {operator_name!r}; known: {', '.join(OPERATORS)}")
        if not self.terminals:
            raise GrammarError("a grammar needs at least one terminal")
        for terminal in self.terminals:
            try:
                written = Expression.leaf(terminal, self.semantics).head
            except ExpressionError as error:
                raise GrammarError(str(error)) from None
            if written != terminal:
                raise GrammarError(f"the terminal {terminal!r} has to be written {written!r}")
        for names in (self.operators, self.terminals):
            if len(set(names)) < len(names):
                raise GrammarError(f"a name occurs twice in {', '.join(names)}")
        if self.max_depth > MAX_DEPTH:
            raise GrammarError(f"max_depth must be at most {MAX_DEPTH}, got {self.max_depth}")

    @classmethod
    def paper(cls) -> Grammar:
        """Return AutoLossGen's own grammar: nine operators, ten steps, every value clamped."""
        return cls("paper", PAPER_OPERATORS, PAPER_LEAVES, False, "clamped", 10, 10)

    @classmethod
    def standard(cls, task: Task = POINTWISE, extra: Sequence[str] = ()) -> Grammar:
        """Return the default grammar of a task: every operator, its leaves, numeric constants, nothing clamped.

        It holds the operators registered at the time of the call, a user's own included.

        Args:
            task: what losses are given.
            extra: names of operators that are there for the asking (`Operator.opt_in`): softplus, stop_grad,
                log_positive.

        Example:
            >>> Grammar.standard(extra=["softplus"]).parse("softplus(logit) - label * logit").size
            4
        """
        instance("task", task, Task, "a Task, such as POINTWISE")
        operators = tuple(name for name, row in OPERATORS.items() if not row.opt_in)
        return cls("standard", (*operators, *texts("extra", extra)), task.leaves, True, "plain", 15, 8)

    def __getstate__(self) -> dict[str, Any]:
        own = OPERATORS.own(self.operators), TERMINALS.own(self.terminals)
        return {**asdict(self), "own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        operators, terminals = state.pop("own")
        OPERATORS.receive(operators)
        TERMINALS.receive(terminals)
        self.__dict__.update(state)

    @cached_property
    def unary(self) -> tuple[str, ...]:
        """Names of the operators of one operand."""
        return tuple(name for name in self.operators if OPERATORS[name].arity == 1)

    @cached_property
    def binary(self) -> tuple[str, ...]:
        """Names of the operators of two operands."""
        return tuple(name for name in self.operators if OPERATORS[name].arity == 2)

    def describe(self) -> Mapping[str, Any]:
        """Return all that decides which functions the grammar can write: its fields, and formulas by name."""
        operators = [OPERATORS[name].describe() for name in self.operators]
        terminals = [TERMINALS[name].describe() for name in self.terminals if name in TERMINALS]
        return asdict(self) | {"formulas": {str(row["name"]): dict(row) for row in (*operators, *terminals)}}

    @property
    def content_hash(self) -> str:
        """Hash of `describe`: 32 hexadecimal digits. Not kept: a name may come to stand for another operator."""
        text = json.dumps(self.describe(), sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def leaf(self, name_or_number: str | float) -> Expression:
        """Return a terminal or number under the grammar's semantics."""
        return Expression.leaf(name_or_number, self.semantics)

    def check(self, expression: Expression) -> None:
        """Do nothing for an expression of the grammar.

        Raises:
            GrammarError: it is outside; the message says why.
        """
        if expression.semantics != self.semantics:
            wanted = "clamped(...)" if self.semantics == "clamped" else "no clamped(...)"
            raise GrammarError(f"semantics are {expression.semantics}; the {self.name} grammar wants {wanted}")
        if expression.depth > self.max_depth:
            raise GrammarError(
                f"{expression.depth} operators deep; the {self.name} grammar allows {self.max_depth}"
            )
        size = 0
        for node in expression.nodes():
            if node.operands:
                size += 1
                if node.head not in self.operators:
                    raise GrammarError(
                        f"operator {node.head!r} is not in the {self.name} grammar ({', '.join(self.operators)})"
                    )
            elif node.head not in self.terminals and (node.constant is None or not self.constants):
                also = ", or a number" if self.constants else ""
                raise GrammarError(
                    f"{node.head!r} is not in the {self.name} grammar ({', '.join(self.terminals)}{also})"
                )
        if size > self.max_size:
            raise GrammarError(f"{size} operators; the {self.name} grammar allows {self.max_size}")

    def __contains__(self, expression: object) -> bool:
        if not isinstance(expression, Expression):
            return False
        try:
            self.check(expression)
        except GrammarError:
            return False
        return True

    def parse(self, text: str) -> Expression:
        """Read an expression of the grammar.

        Raises:
            ParseError: the text is no expression, or a part of it lies outside of the grammar; the error names
                the position and what was expected.
        """
        return Expression.parse(text, check=self.check)

    def sample(self, rng: np.random.Generator, size: int) -> Expression:
        """Draw a tree, uniform among those of `size` operators that keep the depth limit.

        Trees that differ in the order of operands count as different, and all constants together as one terminal.

        Args:
            rng: the only source of randomness.
            size: number of operators, at least 0.

        Raises:
            GrammarError: no such tree exists.
        """
        if not 0 <= size <= self.max_size or self._count(size, self.max_depth) == 0:
            raise GrammarError(f"the {self.name} grammar has no tree of {size} operators")
        return self._draw(rng, size, self.max_depth)

    def sample_leaf(self, rng: np.random.Generator) -> Expression:
        """Draw a terminal; a constant, where the grammar has them, is one of the choices."""
        choice = int(rng.integers(len(self.terminals) + self.constants))
        return self.leaf(self.terminals[choice]) if choice < len(self.terminals) else self.sample_constant(rng)

    def sample_constant(self, rng: np.random.Generator) -> Expression:
        """Draw a number of either sign, two digits long, its magnitude log-uniform between 0.01 and 100."""
        magnitude = 10 ** rng.uniform(-2, 2)
        return self.leaf(float(f"{rng.choice([-1.0, 1.0]) * magnitude:.2g}"))

    @cached_property
    def _counts(self) -> dict[tuple[int, int], int]:
        return {}

    @cached_property
    def _cumulative(self) -> dict[tuple[int, int], list[float]]:
        return {}

    def _count(self, size: int, depth: int) -> int:
        """Number of trees with exactly `size` operators, at most `depth` deep."""
        if size == 0:
            return len(self.terminals) + self.constants
        if depth == 0:
            return 0
        known = self._counts.get((size, depth))
        if known is None:
            below = [self._count(part, depth - 1) for part in range(size)]
            pairs = sum(below[i] * below[size - 1 - i] for i in range(size))
            known = len(self.unary) * below[-1] + len(self.binary) * pairs
            self._counts[size, depth] = known
        return known

    def _draw(self, rng: np.random.Generator, size: int, depth: int) -> Expression:
        if size == 0:
            return self.sample_leaf(rng)
        # where in the left operand's size, or at a unary operator, a uniform number falls
        choice = min(bisect(self._shares(size, depth), rng.random()), size if self.unary else size - 1)
        if choice == size:
            name = self.unary[int(rng.integers(len(self.unary)))]
            return Expression.apply(name, self._draw(rng, size - 1, depth - 1))
        name = self.binary[int(rng.integers(len(self.binary)))]
        left = self._draw(rng, choice, depth - 1)
        return Expression.apply(name, left, self._draw(rng, size - 1 - choice, depth - 1))

    def _shares(self, size: int, depth: int) -> list[float]:
        """Cumulative shares of the trees by the size of their left operand; what is left over is unary."""
        known = self._cumulative.get((size, depth))
        if known is None:
            below = [self._count(part, depth - 1) for part in range(size)]
            ways = [below[i] * below[size - 1 - i] * len(self.binary) for i in range(size)]
            total = sum(ways) + below[-1] * len(self.unary)
            known = [float(Fraction(way, total)) for way in accumulate(ways)]
            self._cumulative[size, depth] = known
        return known
