"""Loss formulas as immutable, hash-consed expressions: canonical form, complexity, digest.

Equal expressions are one object, so that equality is identity, hashing is free, and shared operands are stored
once however often a formula uses them. The text is plain::

    add(mul(label, log(pred)), 0.5)         operators by name; + - * / and unary - are accepted as input
    add(square(t=0.2), mul(t, pred))        a number with a name: its value once, then the name alone
    t1 = add(pred, label); mul(t1, t1)      names for shared parts, printed where the text would be long
    clamped(add(pred, label))               semantics "clamped": every operator's value kept in [1e-5, 1e5]
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Final
from weakref import WeakValueDictionary

from gploss.arguments import instance
from gploss.language import notation, parsing, printing
from gploss.language.constants import NO_CONSTANTS, joined
from gploss.language.operators import OPERATORS, Operator, Semantics
from gploss.language.parsing import MAX_DEPTH, ExpressionError, check_constant_name
from gploss.language.simplifying import neutral, precedes, simplified
from gploss.language.terminals import TERMINALS, Terminal
from gploss.registry import Sent


class Expression:
    """A loss formula: an operator with its operands, a terminal, or a number.

    Make one with `parse`, `leaf` or `apply`. Sizes count distinct operator nodes, for an expression is a graph in
    which operands may be shared. Names of constants are for people and for tuning: what is trained knows the
    numbers alone.

    Attributes:
        head: the operator's or the terminal's name, or the number's text.
        operands: the operands' expressions, empty for a leaf.
        constant: the number's value, else None.
        name: the number's name, if it has one, else None.
        semantics: "plain", or "clamped" where the authors' clamp follows every operator.
        depth: operators on the longest way down to a leaf.
        tree_size: operators after unfolding shared operands.
        terminals: names of the terminals that occur.
        constants: value of each named constant that occurs.

    Example:
        >>> loss = Expression.parse("-(label * log(pred))")
        >>> str(loss), loss.size, loss.depth
        ('neg(mul(label, log(pred)))', 3, 3)
        >>> loss is Expression.parse(str(loss))
        True
    """

    #: What kind of loss an expression is, in `gploss.compute.kinds`.
    kind: Final = "formula"

    __slots__ = (
        "__weakref__",
        "_canonical",
        "_digest",
        "_nodes",
        "constant",
        "constants",
        "depth",
        "head",
        "name",
        "operands",
        "semantics",
        "terminals",
        "tree_size",
    )

    head: str
    operands: tuple[Expression, ...]
    constant: float | None
    name: str | None
    semantics: Semantics
    depth: int
    tree_size: int
    terminals: frozenset[str]
    constants: Mapping[str, float]
    _digest: bytes | None
    _canonical: Expression | None
    _nodes: tuple[Expression, ...] | None

    def __new__(cls) -> Expression:
        """Refuse: expressions are shared, so they are made by `parse`, `leaf` and `apply`."""
        raise TypeError("make an expression with Expression.parse, Expression.leaf or Expression.apply")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"expressions are immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"expressions are immutable: cannot delete {name!r}")

    @staticmethod
    def leaf(name_or_number: str | float, semantics: Semantics = "plain", name: str | None = None) -> Expression:
        """Return a terminal by name, or a number.

        Args:
            name_or_number: the terminal's name, or the number.
            semantics: of the expressions that it is for.
            name: the number's own name, if it shall have one.

        Raises:
            ExpressionError: no terminal has that name, the number is not finite, or its name means something else.
        """
        if name is None and isinstance(name_or_number, str) and name_or_number in TERMINALS:
            return _intern(name_or_number, (), None, semantics)
        try:
            number = float(name_or_number)
        except OverflowError:  # a whole number that may be too long to be printed
            raise ExpressionError("a constant must be finite, and this number is too large for one") from None
        except ValueError:
            raise ExpressionError(
                f"{name_or_number!r} is neither a finite number nor a terminal ({', '.join(TERMINALS)})"
            ) from None
        if not math.isfinite(number):
            raise ExpressionError(f"a constant must be finite, not {number}")
        number += 0.0  # -0.0 and 0.0 are one constant
        text = str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
        if name is None:
            return _intern(text, (), number, semantics)
        check_constant_name(name)
        return _intern(f"{name}={text}", (), number, semantics, name)

    @staticmethod
    def apply(operator_name: str, *operands: Expression) -> Expression:
        """Return an operator applied to operands; it takes over their semantics.

        Raises:
            LookupError: no operator has that name.
            TypeError: an operand is no expression.
            ExpressionError: wrong number of operands, mixed semantics, more than `MAX_DEPTH` operators deep, an
                exact text of more than `MAX_TEXT` characters, or a named constant with two values.
        """
        applied = _applied(operator_name, *operands)
        parsing.check_length(applied)
        return applied

    @staticmethod
    def parse(text: str, check: Callable[[Expression], None] | None = None) -> Expression:
        """Read an expression from text.

        Args:
            text: see the module's introduction.
            check: called with every part as it is built; an `ExpressionError` of its becomes a `ParseError` there.

        Raises:
            ParseError: the text is no expression; it has the position and what was expected there.

        Example:
            >>> str(Expression.parse("(label - pred) / 2"))
            'mul(add(label, neg(pred)), inv(2))'
        """
        return parsing.parse(text, Expression.leaf, _applied, check)

    def nodes(self) -> tuple[Expression, ...]:
        """Return every distinct node once, operands before those that use them, the root last."""
        if self._nodes is None:
            found: dict[Expression, None] = {}
            stack: list[Expression] = [self]
            while stack:
                node = stack.pop()
                if node in found:
                    continue
                waiting = [operand for operand in node.operands if operand not in found]
                if waiting:
                    stack.append(node)
                    stack.extend(waiting[::-1])
                else:
                    found[node] = None
            object.__setattr__(self, "_nodes", tuple(found))
        assert self._nodes is not None
        return self._nodes

    @property
    def size(self) -> int:
        """Number of distinct operator nodes."""
        return sum(1 for node in self.nodes() if node.operands)

    @property
    def complexity(self) -> int:
        """Number of distinct nodes, terminals and numbers included: what a reader has to take in."""
        return len(self.nodes())

    @property
    def digest(self) -> bytes:
        """Hash of the content, 16 bytes: the same in every process."""
        if self._digest is None:
            for node in self.nodes():
                if node._digest is None:
                    parts = [node.semantics, node.head]
                    content = "\0".join(parts).encode() + b"\0".join([o.digest for o in node.operands])
                    object.__setattr__(node, "_digest", blake2b(content, digest_size=16).digest())
        assert self._digest is not None
        return self._digest

    def with_semantics(self, semantics: Semantics) -> Expression:
        """Return the same formula under other semantics."""
        rebuilt: dict[Expression, Expression] = {}
        for node in self.nodes():
            operands = tuple(rebuilt[operand] for operand in node.operands)
            rebuilt[node] = _intern(node.head, operands, node.constant, semantics, node.name)
        parsing.check_length(rebuilt[self])
        return rebuilt[self]

    def with_constants(self, **values: float) -> Expression:
        """Return the same family with other values for some of its named constants.

        Raises:
            ExpressionError: no constant has that name, or a value is not finite.

        Example:
            >>> str(Expression.parse("mul(t=0.2, logit)").with_constants(t=0.5))
            'mul(t=0.5, logit)'
        """
        for name in values:
            if name not in self.constants:
                known = ", ".join(self.constants) or "none"
                raise ExpressionError(f"{self} has no constant {name!r}; its named constants: {known}")
        rebuilt: dict[Expression, Expression] = {}
        for node in self.nodes():
            if node.operands:
                rebuilt[node] = _applied(node.head, *[rebuilt[operand] for operand in node.operands])
            elif node.name in values:
                rebuilt[node] = Expression.leaf(values[node.name], node.semantics, node.name)
            else:
                rebuilt[node] = node
        return rebuilt[self]

    @property
    def family(self) -> str:
        """The text with names in the place of the values of constants: one for all that differ in these alone.

        Example:
            >>> Expression.parse("mul(t=0.2, logit)").family
            'mul(t, logit)'
        """
        return printing.family(self)

    def canonical(self) -> Expression:
        """Return the representative of all formulas that are equal by rules that keep value *and* derivative.

        Named constants become numbers, commutative operands are put in order, and nodes are dropped that change
        nothing: identity(x), mul(1, x), add(0, x) and neg(neg(x)). Under clamped semantics a node is only dropped
        where x is an operator, whose value is in the clamp's range already, and a double negation never.
        """
        if OPERATORS.removals != _canonical_as_of:
            _forget_canonical()
        if self._canonical is None:
            for node in self.nodes():
                if node._canonical is None:
                    simple = _simplify(node, tuple([operand.canonical() for operand in node.operands]))
                    object.__setattr__(simple, "_canonical", simple)
                    object.__setattr__(node, "_canonical", simple)
        assert self._canonical is not None
        return self._canonical

    def __str__(self) -> str:
        return printing.text(self)

    def __repr__(self) -> str:
        return f"Expression.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        heads = [node.head for node in self.nodes()]
        return _received, (str(self), OPERATORS.own(heads), TERMINALS.own(heads))

    def readable(self, digits: int | None = 3) -> str:
        """Print as people write: infix, without parts that change nothing, long parts that are shared with names.

        The text parses back to the same loss, up to the rounding of its numbers. Formulas that are deeper than
        anybody reads come as their exact text.

        Args:
            digits: significant digits of its numbers, or None for all.

        Example:
            >>> Expression.parse("add(mul(label, neg(log(pred))), mul(1, square(0.12345)))").readable()
            '0.0152 - y * log(sigmoid(s))'
        """
        return str(self) if self.depth > _DEEPEST_READ else notation.readable(self._simplified(digits))

    def latex(self, digits: int | None = 3) -> str:
        r"""Print as LaTeX, without dollar signs. Guards are not shown; clamped semantics are marked.

        Args:
            digits: significant digits of its numbers, or None for all.

        Example:
            >>> print(Expression.parse("-(label * log(pred))").latex())
            -y \cdot \log\left(\hat{y}\right)
        """
        return notation.latex(self if self.depth > _DEEPEST_READ else self._simplified(digits))

    def _simplified(self, digits: int | None) -> Expression:
        return simplified(self, Expression.leaf, _applied, digits)


def _applied(operator_name: str, *operands: Expression) -> Expression:
    operator = OPERATORS[operator_name]
    if len(operands) != operator.arity:
        raise ExpressionError(f"{operator_name} takes {operator.arity} operand(s), not {len(operands)}")
    for operand in operands:
        instance(f"an operand of {operator_name}", operand, Expression, "an Expression")
    if any(operand.semantics != operands[0].semantics for operand in operands):
        raise ExpressionError(f"{operator_name}: operands with different semantics cannot be mixed")
    return _intern(operator_name, operands, None, operands[0].semantics)


def _received(text: str, operators: Iterable[Sent[Operator]], terminals: Iterable[Sent[Terminal]]) -> Expression:
    OPERATORS.receive(operators)
    TERMINALS.receive(terminals)
    return Expression.parse(text)


#: Deeper formulas are printed as they are: written with fractions, they would be too deep to be read back.
_DEEPEST_READ: Final = MAX_DEPTH // 2

_INTERNED: WeakValueDictionary[tuple[object, ...], Expression] = WeakValueDictionary()

_making = threading.RLock()
"""Held while an expression becomes known, so that threads do not make two of one."""

#: `OPERATORS.removals` when the canonical forms that are kept were made.
_canonical_as_of = 0


def _forget_canonical() -> None:
    """Drop all canonical forms that are kept: a name may stand for another operator now."""
    global _canonical_as_of
    for node in list(_INTERNED.values()):
        object.__setattr__(node, "_canonical", None)
    _canonical_as_of = OPERATORS.removals


def _intern(
    head: str,
    operands: tuple[Expression, ...],
    constant: float | None,
    semantics: Semantics,
    name: str | None = None,
) -> Expression:
    key = (head, operands, semantics)
    present = _INTERNED.get(key)
    if present is not None:
        return present
    depth = tree_size = 0
    terminals: frozenset[str] = frozenset()
    constants: Mapping[str, float] = NO_CONSTANTS
    if operands:
        depth, tree_size, terminals = operands[0].depth, operands[0].tree_size, operands[0].terminals
        for operand in operands[1:]:
            depth = max(depth, operand.depth)
            tree_size += operand.tree_size
            terminals = terminals | operand.terminals
        depth += 1
        tree_size += 1
        constants = joined([operand.constants for operand in operands if operand.constants])
    elif head in TERMINALS:
        terminals = frozenset((head,))
    elif name is not None and constant is not None:
        constants = MappingProxyType({name: constant})
    if depth > MAX_DEPTH:
        raise ExpressionError(f"an expression may be at most {MAX_DEPTH} operators deep")
    node = object.__new__(Expression)
    fill = object.__setattr__
    fill(node, "head", head)
    fill(node, "operands", operands)
    fill(node, "constant", constant)
    fill(node, "name", name)
    fill(node, "semantics", semantics)
    fill(node, "depth", depth)
    fill(node, "tree_size", tree_size)
    fill(node, "terminals", terminals)
    fill(node, "constants", constants)
    for kept in ("_digest", "_canonical", "_nodes"):  # worked out when they are asked for
        fill(node, kept, None)
    with _making:
        return _INTERNED.setdefault(key, node)


def _simplify(node: Expression, operands: tuple[Expression, ...]) -> Expression:
    if not operands:
        number = node.constant if node.name is not None else None
        return node if number is None else Expression.leaf(number, node.semantics)
    kept = neutral(node.head, operands, node.semantics)
    if kept is not None:
        return kept
    if len(operands) == 2 and OPERATORS[node.head].commutative and precedes(operands[1], operands[0]):
        operands = operands[::-1]
    return node if operands == node.operands else _intern(node.head, operands, None, node.semantics)
