"""Rewriting a formula for people: the same loss without parts that change nothing, its signs in front.

What is left out or moved is equal in value and derivative: to the bit, but for numbers that are computed from
numbers. Formulas of clamped semantics lose less, for there every operator's value is clamped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import numpy as np

from gploss.language.formula import NUMPY
from gploss.language.operators import OPERATORS, Semantics
from gploss.language.printing import Node

N = TypeVar("N", bound=Node)

#: Numbers that change nothing, by operator.
_NEUTRAL: Final = {"mul": 1.0, "add": 0.0}

#: What is computed from numbers stands for them where float32 can hold it, too.
_SMALLEST, _LARGEST = 1e-30, 1e30

#: A pass over a formula may uncover work for the next; five were the most in 20,000 random formulas.
_MOST_PASSES: Final = 20


def neutral(head: str, operands: Sequence[N], semantics: Semantics) -> N | None:
    """Return the operand that an operator leaves as it is in value and derivative, or None.

    These are identity(x), mul(1, x), add(0, x) and neg(neg(x)). Under clamped semantics x has to be an operator,
    whose value is in the clamp's range already, and a double negation changes something.
    """
    if head == "neg" and operands[0].head == "neg" and semantics == "plain":
        return operands[0].operands[0]
    if head == "identity":
        kept = operands[0]
    elif head in _NEUTRAL and _number(operands[0]) == _NEUTRAL[head]:
        kept = operands[1]
    elif head in _NEUTRAL and _number(operands[1]) == _NEUTRAL[head]:
        kept = operands[0]
    else:
        return None
    return kept if semantics == "plain" or kept.operands else None


class Ordered(Node, Protocol):
    """What an order of formulas needs to know of them."""

    @property
    def digest(self) -> bytes:
        """Hash of the content."""


def precedes(one: Ordered, other: Ordered) -> bool:
    """Tell which of two formulas comes first: an order that reads well and depends on the content alone.

    Short ones come before long ones, then the name decides.
    """
    if one.tree_size != other.tree_size:
        return one.tree_size < other.tree_size
    if one.head != other.head:
        return one.head < other.head
    return one is not other and one.digest < other.digest


def simplified(root: N, leaf: Callable[..., N], apply: Callable[..., N], digits: int | None = None) -> N:
    """Return the formula as it is shown to people.

    Args:
        root: the formula.
        leaf: makes a terminal or a number, under the semantics given; last comes the number's name, or None.
        apply: applies an operator, by name, to operands.
        digits: significant digits of its numbers; all by default.
    """
    simplifier = _Simplifier(leaf, apply, root.semantics)
    simple = simplifier.settled(root, None)
    return simple if digits is None else simplifier.settled(simple, digits)


class _Simplifier(Generic[N]):
    """Builds nodes from the leaves up; `make` takes operands that are simple already."""

    def __init__(self, leaf: Callable[..., N], apply: Callable[..., N], semantics: Semantics) -> None:
        self._leaf = leaf
        self._apply = apply
        self._semantics = semantics

    def settled(self, root: N, digits: int | None) -> N:
        """Return a formula with its numbers rounded, and what then changes nothing left out."""
        for _ in range(_MOST_PASSES):
            before, root = root, self._rebuilt(root, digits)
            if root is before:
                break
        return root

    def _rebuilt(self, root: N, digits: int | None) -> N:
        done: dict[N, N] = {}
        for node in root.nodes():
            if node.operands:
                done[node] = self.make(node.head, *[done[operand] for operand in node.operands])
            elif node.constant is not None and digits is not None:
                rounded = float(f"{node.constant:.{digits}g}")
                done[node] = self._leaf(rounded, node.semantics, node.name) if math.isfinite(rounded) else node
            else:
                done[node] = node
        return done[root]

    def make(self, head: str, *operands: N) -> N:
        """Return an operator applied to operands, simplified."""
        kept = neutral(head, operands, self._semantics)
        if kept is not None:
            return kept
        if self._semantics == "clamped":
            return self._apply(head, *operands)
        number = self._computed(head, operands)
        if number is not None:
            return number
        match head:
            case "neg":
                return self._negated(operands[0])
            case "add":
                return self._sum(*operands)
            case "mul":
                return self._product(*operands)
            case "inv" | "tanh" if operands[0].head == "neg":  # odd
                return self._negated(self._apply(head, operands[0].operands[0]))
            case "square" | "abs" if operands[0].head == "neg":  # even
                return self._apply(head, operands[0].operands[0])
            case "max" | "min" if operands[0] is operands[1]:
                return operands[0]
        return self._apply(head, *operands)

    def _computed(self, head: str, operands: Sequence[N]) -> N | None:
        """Return the number that an operator makes of numbers, or None."""
        numbers = [_number(operand) for operand in operands]
        if None in numbers:
            return None
        operator = OPERATORS[head]
        if not set(operator.value.variables) <= set(operator.operand_names):
            return None  # a reduction's value is one of a total, and that of how many there are
        named = {name: np.float64(number) for name, number in zip(operator.operand_names, numbers, strict=True)}
        with np.errstate(all="ignore"):
            value = float(operator.value.compute(NUMPY, **named))
        return self._leaf(value, "plain", None) if value == 0 or _SMALLEST < abs(value) < _LARGEST else None

    def _negated(self, x: N) -> N:
        number = _number(x)
        if number is not None:
            return self._leaf(-number, "plain", None)
        if x.head == "neg":
            return x.operands[0]
        if x.head == "add":
            subtracted, sign = self._signed(x.operands[1])
            if sign < 0:
                return self._sum(subtracted, self._negated(x.operands[0]))
        return self._apply("neg", x)

    def _sum(self, a: N, b: N) -> N:
        """Numbers together, what is subtracted last."""
        if a is b:
            return self._product(self._leaf(2, "plain", None), a)
        joined = self._joined("add", a, b)
        if joined is not None:
            return joined
        (positive_a, a_sign), (positive_b, b_sign) = self._signed(a), self._signed(b)
        if a_sign + b_sign < 0:
            return self._negated(self.make("add", positive_a, positive_b))
        return self._apply("add", b, a) if a_sign < 0 else self._apply("add", a, b)

    def _product(self, a: N, b: N) -> N:
        """Numbers together and first, the sign in front."""
        if a is b:
            return self._apply("square", a)
        (a, a_sign), (b, b_sign) = self._signed(a), self._signed(b)
        if a_sign * b_sign < 0:
            return self._negated(self.make("mul", a, b))
        if a_sign < 0:
            return self.make("mul", a, b)
        joined = self._joined("mul", a, b)
        if joined is not None:
            return joined
        return self._apply("mul", a, b) if _number(b) is None else self._apply("mul", b, a)

    def _signed(self, x: N) -> tuple[N, int]:
        number = _number(x)
        if x.head == "neg":
            return x.operands[0], -1
        return (self._leaf(-number, "plain", None), -1) if number is not None and number < 0 else (x, 1)

    def _joined(self, head: str, a: N, b: N) -> N | None:
        """Return 2 + (3 + x) as 5 + x, and 2 * (3 * x) as 6 * x, or None."""
        for number, other in ((a, b), (b, a)):
            if _number(number) is None or other.head != head:
                continue
            for inner, rest in (other.operands, other.operands[::-1]):
                both = self._computed(head, (number, inner))
                if both is not None:
                    return self.make(head, both, rest)
        return None


def _number(node: Node) -> float | None:
    """Return the value of a number without a name, or None."""
    return node.constant if node.name is None else None
