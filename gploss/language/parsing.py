"""Reading the text of an expression: how to make a leaf, and how to apply an operator, are handed in."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from gploss.arguments import instance
from gploss.language import printing
from gploss.language.checks import LONGEST_NAME, trouble_with_name
from gploss.language.operators import OPERATORS, Semantics
from gploss.language.printing import Node
from gploss.language.terminals import TERMINALS, aliases

N = TypeVar("N", bound=Node)
Leaf = Callable[[str | float, Semantics, str | None], N]
Check = Callable[[N], None]

#: Limits of any expression, whatever the grammar: deeper ones could not be read back from text.
MAX_DEPTH: Final = 100
MAX_TEXT: Final = 100_000

#: Characters of what was found that an error shows.
_LONGEST: Final = 200

#: A number with a name, such as ``t=0.2``. Where a statement begins with one and goes on, it is something else: a
#: shared part, ``a = 2 * pred; ...``.
_NAMED: Final = re.compile(
    r"(?P<begin>(?:^|;)\s*)?(?<![\w.])(?P<name>[^\W\d]\w*)"
    r"(?P<value>\s*=\s*(?P<number>-?\s*(?>\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))(?![\w.])(?:(?=\s*(?P<end>;|$))|)"
)

_SUGAR: Final = {ast.Add: "add", ast.Mult: "mul", ast.Sub: "sub", ast.Div: "div"}


class ExpressionError(ValueError):
    """An expression cannot be built as asked."""


class ParseError(ExpressionError):
    """A text is no expression.

    Attributes:
        position: 0-based offset into the text.
        expected: what would have been right there.
    """

    def __init__(self, text: str, position: int, found: str, expected: str) -> None:
        self.position = position
        self.expected = expected
        start = max(0, position - 30)
        excerpt = text[start : position + 30].replace("\n", " ")
        if len(found) > _LONGEST:
            found = f"{found[: _LONGEST // 2]} ... {found[-_LONGEST // 2 :]}"
        super().__init__(
            f"position {position}: {found}; expected {expected}\n  {excerpt}\n  {' ' * (position - start)}^"
        )


def check_constant_name(name: str) -> None:
    """Do nothing for a name that a constant can have.

    Raises:
        ExpressionError: it cannot be written in an expression, or means something else there.
    """
    trouble = trouble_with_name(name)
    if trouble is None and (name in OPERATORS or name in TERMINALS or name in aliases()):
        trouble = "it has a meaning of its own in expressions"
    if trouble is not None:
        raise ExpressionError(f"{name!r} is no name of a constant: {trouble}")


def check_length(root: Node) -> None:
    """Do nothing for a formula whose exact text can be read back.

    Raises:
        ExpressionError: it has more than `MAX_TEXT` characters.
    """
    # Names are short, so that the text of a tree of fewer operators is not too long; a longer one is written out.
    if root.tree_size > MAX_TEXT // (4 * LONGEST_NAME) and len(printing.text(root)) > MAX_TEXT:
        raise ExpressionError(f"the exact text of an expression may have {MAX_TEXT} characters at most")


def parse(text: str, leaf: Leaf[N], apply: Callable[..., N], check: Check[N] | None = None) -> N:
    """Read an expression from text.

    Args:
        text: see `gploss.language.expression`.
        leaf: makes a terminal or a number, under the semantics given; last comes the number's name, or None.
        apply: applies an operator, by name, to operands.
        check: called with every part as it is built.

    Returns:
        What `leaf` and `apply` make of it.

    Raises:
        TypeError: it is no text.
        ParseError: the text is no expression, or one of the three raised an `ExpressionError`; it names the place.
    """
    return _Parser(text, leaf, apply, check or (lambda part: None)).parse()


class _Parser(Generic[N]):
    """Reads the text with Python's own parser (its syntax tree, never its evaluation), then builds nodes."""

    def __init__(self, text: str, leaf: Leaf[N], apply: Callable[..., N], check: Check[N]) -> None:
        self.text = text
        self.leaf = leaf
        self.apply = apply
        self.check = check
        self.names: dict[str, N] = {}
        self.constants: dict[str, float] = {}
        self.semantics: Semantics = "plain"
        self.start = 0
        self.source = ""

    def parse(self) -> N:
        instance("an expression", self.text, str, "text, such as 'square(logit)'")
        if len(self.text) > MAX_TEXT:
            raise ParseError(
                self.text,
                MAX_TEXT,
                "the text is too long",
                f"at most {MAX_TEXT} characters; name shared parts",
            )
        one_line = re.sub(r"\s", " ", self.text)
        self.start = len(one_line) - len(one_line.lstrip())
        self.source = one_line.strip()
        if not self.source:
            raise ParseError(self.text, 0, "the text is empty", "an expression such as square(logit)")
        if self.source.startswith("clamped(") and self.source.endswith(")"):
            self.semantics = "clamped"
            inner = self.source.removeprefix("clamped(").removesuffix(")")
            self.start += len("clamped(") + len(inner) - len(inner.lstrip())
            self.source = inner.strip()
            if not self.source:
                raise ParseError(self.text, self.start, "nothing is clamped", "an expression in the brackets")
        self.source = _NAMED.sub(self._constant, self.source)
        try:
            root = self._build(self._statements())
            check_length(root)
            return root
        except ParseError:
            raise
        except ExpressionError as error:
            raise ParseError(self.text, self.start, str(error), "a smaller expression") from None
        except RecursionError:  # a sum of hundreds of terms is as deep as it is long
            expected = f"at most {MAX_DEPTH} operators on a way down"
            raise ParseError(self.text, self.start, "the text is nested too deeply", expected) from None

    def _constant(self, match: re.Match[str]) -> str:
        """Note a named constant, and leave its name alone in its place, with blanks for the rest."""
        if match["begin"] is not None and match["end"] is None:
            return match[0]
        name, value = match["name"], float(match["number"].replace(" ", ""))
        position = self.start + match.start("name")
        try:
            check_constant_name(name)
        except ExpressionError as error:
            raise ParseError(self.text, position, str(error), "another name, such as t=0.5") from None
        if self.constants.setdefault(name, value) != value:
            found = f"{name!r} is {self.constants[name]:g} and {value:g}"
            raise ParseError(self.text, position, found, "one value for each name")
        return (match["begin"] or "") + name + " " * len(match["value"])

    def _build(self, body: Sequence[ast.stmt]) -> N:
        if not body:
            raise ParseError(self.text, self.start, "this is only a comment", "an expression")
        for statement in body[:-1]:
            match statement:
                case ast.Expr(value=ast.Name(id=name)) if name in self.constants:
                    continue  # t=0.5; ...
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                    raise self._error(statement, f"the value of {name!r} cannot be read", "a number such as 0.5")
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    if name in OPERATORS or name in TERMINALS or name in self.names or name in self.constants:
                        raise self._error(statement, f"{name!r} is taken", "a new name, such as t1")
                    self.names[name] = self._node(value)
                case _:
                    raise self._error(statement, "this is no definition", "name = expression; ...; expression")
        match body[-1]:
            case ast.Expr(value=value):
                return self._node(value)
        raise self._error(body[-1], "the text ends with a definition", "the expression itself at the end")

    def _statements(self) -> Sequence[ast.stmt]:
        expected = "operator(operand, ...), a terminal, or a number"
        try:
            body = ast.parse(self.source).body
        except SyntaxError as error:
            position = self.start + min(max((error.offset or 1) - 1, 0), len(self.source))
            raise ParseError(self.text, position, error.msg, expected) from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise ParseError(self.text, self.start, f"the text cannot be read ({error})", expected) from None
        return body

    def _node(self, node: ast.expr) -> N:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._leaf(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._leaf(node, -value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._apply(node, "neg", [operand])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUGAR:
                return self._apply(node, _SUGAR[type(op)], [left, right])
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=2)):
                return self._apply(node, "square", [left])
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Name(id=name) if name in self.constants:
                return self._leaf(node, self.constants[name], name)
            case ast.Name(id=name) if name in OPERATORS:
                raise self._error(node, f"{name!r} is an operator", f"its operands in brackets: {name}(...)")
            case ast.Name(id=name) if name in TERMINALS:
                return self._leaf(node, name)
            case ast.Name(id=name) if name in aliases():
                return self._leaf(node, aliases()[name])
            case ast.Name(id=name):
                raise self._error(
                    node, f"unknown name {name!r}", f"one of {', '.join(TERMINALS)}, or a number (t=0.5 names one)"
                )
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._apply(node, name, arguments)
        written = self.source.encode()[node.col_offset : node.end_col_offset].decode()
        raise self._error(node, f"{written!r} is not allowed here", "operators, terminals and numbers")

    def _leaf(self, node: ast.expr, name_or_number: str | float, name: str | None = None) -> N:
        try:
            leaf = self.leaf(name_or_number, self.semantics, name)
        except (ExpressionError, OverflowError):
            raise self._error(node, "the number is not finite", "a finite number") from None
        return self._checked(node, leaf)

    def _apply(self, node: ast.expr, name: str, arguments: Sequence[ast.expr]) -> N:
        if name == "clamped":
            raise self._error(node, "'clamped' stands inside", "it around the whole expression, or not at all")
        if name in ("sub", "div"):  # stand for the protected forms
            left, right = self._operands(node, name, arguments, 2)
            inner = self._applied(node, "neg" if name == "sub" else "inv", right)
            return self._applied(node, "add" if name == "sub" else "mul", left, inner)
        if name not in OPERATORS:
            raise self._error(node, f"unknown operator {name!r}", f"one of {', '.join(OPERATORS)}")
        return self._applied(node, name, *self._operands(node, name, arguments, OPERATORS[name].arity))

    def _operands(self, node: ast.expr, name: str, arguments: Sequence[ast.expr], arity: int) -> list[N]:
        if len(arguments) != arity:
            raise self._error(node, f"{name} has {len(arguments)} operand(s)", f"{arity}")
        return [self._node(argument) for argument in arguments]

    def _applied(self, node: ast.expr, name: str, *operands: N) -> N:
        try:
            applied = self.apply(name, *operands)
        except ExpressionError as error:
            raise self._error(node, str(error), "a smaller expression") from None
        return self._checked(node, applied)

    def _checked(self, node: ast.expr, part: N) -> N:
        try:
            self.check(part)
        except ExpressionError as error:
            raise self._error(node, str(error), "an expression of the grammar") from None
        return part

    def _error(self, node: ast.stmt | ast.expr, found: str, expected: str) -> ParseError:
        offset = len(self.source.encode()[: node.col_offset].decode())
        return ParseError(self.text, self.start + offset, found, expected)
