"""Printing the exact text of a formula, which parses back to the same expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol, Self

from gploss.language.operators import Semantics

#: A tree with more operators than this is printed with names for its shared parts.
_LONG_TREE: Final = 40


class Node(Protocol):
    """What printing needs to know of an expression; see `gploss.language.expression.Expression`."""

    @property
    def head(self) -> str:
        """The operator's or the terminal's name, or the number's text."""

    @property
    def operands(self) -> tuple[Self, ...]:
        """The operands, none for a leaf."""

    @property
    def constant(self) -> float | None:
        """The number's value, if it is one."""

    @property
    def name(self) -> str | None:
        """The number's name, if it has one."""

    @property
    def constants(self) -> Mapping[str, float]:
        """Value of each named constant that occurs."""

    @property
    def semantics(self) -> Semantics:
        """Whether every value is clamped."""

    @property
    def tree_size(self) -> int:
        """Operators after unfolding shared operands."""

    def nodes(self) -> tuple[Self, ...]:
        """Every distinct node once, operands before those that use them."""


def text(root: Node) -> str:
    """Return the exact text, with names for shared parts where it would be long, and values of named constants."""
    values = {node.name: node.head for node in root.nodes() if node.name is not None}
    waiting = dict(values)

    def first_use(word: re.Match[str]) -> str:
        return waiting.pop(word[0], word[0])

    body = family(root)
    return re.sub(rf"\b({'|'.join(values)})\b", first_use, body) if values else body


def family(root: Node) -> str:
    """Return the text with names in the place of the values of named constants."""
    body = _with_names(root) if root.tree_size > _LONG_TREE else _as_tree(root)
    return f"clamped({body})" if root.semantics == "clamped" else body


def _as_tree(node: Node) -> str:
    texts: dict[Node, str] = {}
    for part in node.nodes():
        texts[part] = (
            f"{part.head}({', '.join(texts[operand] for operand in part.operands)})"
            if part.operands
            else part.name or part.head
        )
    return texts[node]


def _with_names(root: Node) -> str:
    uses: dict[Node, int] = {}
    for node in root.nodes():
        for operand in node.operands:
            uses[operand] = uses.get(operand, 0) + 1
    texts: dict[Node, str] = {}
    lines: list[str] = []
    for node in root.nodes():
        if not node.operands:
            texts[node] = node.name or node.head
            continue
        text = f"{node.head}({', '.join(texts[operand] for operand in node.operands)})"
        if uses.get(node, 0) > 1:
            name = f"t{len(lines) + 1}"
            lines.append(f"{name} = {text}")
            text = name
        texts[node] = text
    return "; ".join([*lines, texts[root]])
