"""Formulas as people write them: as plain text, which parses back to the same loss, and as LaTeX.

A part that is used more than once and is long is written once, with a name, so that the length of what is printed
grows with the number of nodes, whatever is shared.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import ClassVar, Final

from gploss.language.operators import OPERATORS
from gploss.language.printing import Node
from gploss.language.terminals import TERMINALS, aliases

#: How tightly a printed term binds; see `Operator.precedence`.
SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4

_GREEK: Final = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi|omega"
)


def readable(root: Node) -> str:
    """Return the formula as plain text."""
    return _PlainText(root).whole()


def latex(root: Node) -> str:
    """Return the formula as LaTeX without dollar signs. Guards are not shown; clamped semantics are marked."""
    return _Latex(root).whole()


class _Notation(ABC):
    """Writes a formula from its leaves up: what stands where, in brackets or with a name.

    Operands change places where that saves brackets, never so that a bit of the loss would change; but a number in
    front of a product is multiplied first. Under clamped semantics nothing is regrouped at all.
    """

    #: Templates of what is not written as a name and brackets.
    signs: ClassVar[Mapping[str, str]]
    #: Whether a quotient is a fraction with a bar, which needs no brackets inside.
    bars: ClassVar[bool]
    #: A part that is used more than once has a name if its text is longer.
    longest_repeated: ClassVar[int]

    def __init__(self, root: Node) -> None:
        self.root = root
        self.clamped = root.semantics == "clamped"
        self.uses = _written_uses(root, self.printed)
        self.definitions = [f"{self.symbol(name)} = {self.number(value)}" for name, value in root.constants.items()]
        self.parts = 0
        self.done: dict[Node, tuple[str, int]] = {}

    def body(self) -> str:
        """Return the text of the root; what its names stand for is in `definitions`."""
        for node in self.root.nodes():
            text, binding = self._term(node)
            if self.uses.get(node, 0) > 1 and self.deserves_a_name(node, text):
                name = self.new_name(node)
                self.definitions.append(f"{name} = {text}")
                text, binding = name, ATOM
            self.done[node] = (text, binding)
        return self.done[self.root][0]

    @abstractmethod
    def whole(self) -> str:
        """Return body and definitions."""

    @abstractmethod
    def new_name(self, node: Node) -> str:
        """Return a name for a part."""

    @abstractmethod
    def symbol(self, name: str) -> str:
        """Return a constant's name."""

    @abstractmethod
    def number(self, value: float) -> str:
        """Return a number."""

    @abstractmethod
    def terminal(self, name: str) -> str:
        """Return a terminal."""

    @abstractmethod
    def call(self, node: Node) -> tuple[str, int]:
        """Return an operator that has no sign of its own, and how it binds."""

    def deserves_a_name(self, node: Node, text: str) -> bool:
        """Whether a part that is used more than once is written once."""
        return bool(node.operands) and node.head not in ("neg", "inv") and len(text) > self.longest_repeated

    def printed(self, node: Node) -> Mapping[int, int]:
        """Return how often an operator prints each of its operands, by place, where that is more than once."""
        return {}

    def within(self, node: Node, least: int) -> str:
        """Return what is written for a node, in brackets if it binds less than that."""
        text, binding = self.done[node]
        return text if binding >= least else self.signs["brackets"].format(x=text)

    def _term(self, node: Node) -> tuple[str, int]:
        if node.head == "add":
            return self._sum(*node.operands), SUM
        if node.head == "mul":
            return self._product(*node.operands), PRODUCT
        if node.head == "inv":
            return self.signs["inv"].format(x=self.within(node.operands[0], SUM if self.bars else POWER)), PRODUCT
        if node.head == "neg" and not _is_number(node.operands[0]):
            least = POWER if self.clamped else PRODUCT  # -a * b reads as (-a) * b
            return self.signs["neg"].format(x=self.within(node.operands[0], least)), SUM
        if node.head == "square":
            return self.signs["square"].format(x=self.within(node.operands[0], ATOM)), POWER
        if node.operands:
            return self.call(node)
        if node.name is not None:
            return self.symbol(node.name), ATOM
        if node.constant is not None:
            return self.number(node.constant), ATOM if node.constant >= 0 else SUM
        return self.terminal(node.head), ATOM

    def _sum(self, left: Node, right: Node) -> str:
        negative = [self._is_negative(operand) for operand in (left, right)]
        sums = [self.done[operand][1] == SUM and not self._is_negative(operand) for operand in (left, right)]
        if (negative[0] and not negative[1]) or (sums[1] and not sums[0] and not negative[0]):
            left, right = right, left
        first = self.done[left][0]
        if not self._is_negative(right):
            return self.signs["add"].format(a=first, b=self.within(right, PRODUCT))
        if right.constant is not None:
            return self.signs["sub"].format(a=first, b=self.number(-right.constant))
        return self.signs["sub"].format(a=first, b=self.within(right.operands[0], PRODUCT))

    def _product(self, left: Node, right: Node) -> str:
        if left.head == "inv" and right.head != "inv":
            left, right = right, left
        if right.head == "inv":
            above, below = (SUM, SUM) if self.bars else (PRODUCT, POWER)
            return self.signs["div"].format(a=self.within(left, above), b=self.within(right.operands[0], below))
        number_first = _is_number(left) and not self.clamped
        if self.done[right][1] == PRODUCT != self.done[left][1] and not number_first:
            left, right = right, left
        a, b = self.within(left, PRODUCT), self.within(right, PRODUCT if number_first else POWER)
        return self.signs["mul"].format(a=a, b=b)

    def _is_negative(self, node: Node) -> bool:
        """Whether a term can be subtracted; minus a number is an operator, which clamped semantics clamp."""
        if node.head == "neg":
            return True
        return _is_number(node) and node.constant is not None and node.constant < 0 and not self.clamped


class _PlainText(_Notation):
    signs: ClassVar = {
        "brackets": "({x})",
        "add": "{a} + {b}",
        "sub": "{a} - {b}",
        "neg": "-{x}",
        "mul": "{a} * {b}",
        "div": "{a} / {b}",
        "inv": "1 / {x}",
        "square": "{x}**2",
    }
    bars = False
    longest_repeated = 14

    def whole(self) -> str:
        body = self.body()
        text = "; ".join([*self.definitions, body])
        return f"clamped({text})" if self.clamped else text

    def new_name(self, node: Node) -> str:
        taken = {*OPERATORS, *TERMINALS, *aliases(), *self.root.constants}
        if not node.operands and node.head[0] not in taken:
            return node.head[0]
        self.parts += 1
        return f"t{self.parts}"

    def symbol(self, name: str) -> str:
        return name

    def number(self, value: float) -> str:
        mantissa, exponent = _scientific(value)
        return mantissa if exponent is None else f"{mantissa}e{exponent}"

    def terminal(self, name: str) -> str:
        written = TERMINALS[name].written or name
        known = {alias: own for alias, own in aliases().items() if alias not in self.root.constants}
        if written.isidentifier():
            return written if known.get(written) == name else name
        # Under clamped semantics an operator's value is clamped, a terminal's is not.
        words = re.findall(r"([A-Za-z_]\w*)(\(?)", written)
        means_it = all(word in (OPERATORS if called else known) for word, called in words)
        return written if means_it and not self.clamped else name

    def deserves_a_name(self, node: Node, text: str) -> bool:
        return "(" in text if not node.operands else super().deserves_a_name(node, text)

    def call(self, node: Node) -> tuple[str, int]:
        return f"{node.head}({', '.join(self.done[operand][0] for operand in node.operands)})", ATOM


class _Latex(_Notation):
    signs: ClassVar = {
        **{name: OPERATORS[name].latex for name in ("add", "neg", "mul", "inv", "square")},
        "brackets": r"\left({x}\right)",
        "sub": "{a} - {b}",
        "div": r"\frac{{{a}}}{{{b}}}",
    }
    bars = True
    longest_repeated = 50

    def whole(self) -> str:
        body = self.body()
        if self.clamped:
            body = rf"\left[{body}\right]_{{\mathrm{{clamped}}}}"
        return r",\quad ".join([body, *self.definitions])

    def new_name(self, node: Node) -> str:
        self.parts += 1
        return f"t_{{{self.parts}}}"

    def symbol(self, name: str) -> str:
        base, _, index = name.rpartition("_")
        if index.isdigit() and base:
            return f"{self.symbol(base)}_{{{index}}}"
        if len(name) == 1:
            return name
        return f"\\{name}" if _GREEK.fullmatch(name) else r"\mathrm{" + name.replace("_", r"\_") + "}"

    def number(self, value: float) -> str:
        mantissa, exponent = _scientific(value)
        if exponent is None:
            return mantissa
        power = f"10^{{{exponent}}}"
        return {"1": power, "-1": f"-{power}"}.get(mantissa, rf"{mantissa} \cdot {power}")

    def terminal(self, name: str) -> str:
        return TERMINALS[name].latex

    def printed(self, node: Node) -> Mapping[int, int]:
        if not node.operands or node.head in self.signs:
            return {}
        operator = OPERATORS[node.head]
        text = operator.latex.format(**{name: f"\0{place}\0" for place, name in enumerate(operator.operand_names)})
        return {place: text.count(f"\0{place}\0") for place in range(operator.arity)}

    def call(self, node: Node) -> tuple[str, int]:
        operator = OPERATORS[node.head]
        least = SUM if operator.precedence > PRODUCT else PRODUCT if operator.arity == 1 else operator.precedence
        texts = [self.within(operand, least) for operand in node.operands]
        named = dict(zip(operator.operand_names, texts, strict=True))
        return operator.latex.format(**named), operator.precedence


def _written_uses(root: Node, printed: Callable[[Node], Mapping[int, int]]) -> dict[Node, int]:
    """Return how often each node is written out: a minus sign or a quotient writes its operand anew at each use."""
    uses: dict[Node, int] = {root: 1}
    for node in reversed(root.nodes()):
        times = printed(node)
        for place, operand in enumerate(node.operands):
            own = uses[node] if node.head in ("neg", "inv") else times.get(place, 1)
            uses[operand] = uses.get(operand, 0) + own
    return uses


def _is_number(node: Node) -> bool:
    return node.constant is not None and node.name is None


def _scientific(value: float) -> tuple[str, int | None]:
    """Return a number's shortest decimals, and the power of ten that they are to be multiplied with, if any."""
    digits = Decimal(repr(value)).normalize()
    plain = f"{digits:f}"
    mantissa, exponent = f"{digits:e}".lower().split("e")
    return (plain, None) if len(plain) <= len(mantissa) + 5 else (mantissa, int(exponent))
