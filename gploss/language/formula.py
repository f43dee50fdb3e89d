"""The small language in which an operator's value and derivative are written down, once.

A formula is a line of arithmetic such as ``"sign(x) * log(abs(x) + EPS)"``. It is parsed, checked, and from
then on only ever walked: to compute with numpy or torch, and to print source code for compiled kernels and for
export. Nothing in it is executed as Python, so one text serves every backend and can be hashed, stored and read.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch

from gploss.arguments import instance, shown

#: Guard of the protected operators (AutoLossGen's epsilon).
EPS: Final = 1e-6

CONSTANTS: Final[Mapping[str, float]] = {"EPS": EPS}

#: Functions that a formula may call, and how many arguments each takes; `detach(x)` is x, without derivative.
FUNCTIONS: Final[Mapping[str, int]] = {
    "abs": 1,
    "sign": 1,
    "log": 1,
    "log1p": 1,
    "exp": 1,
    "sqrt": 1,
    "tanh": 1,
    "sigmoid": 1,
    "maximum": 2,
    "minimum": 2,
    "detach": 1,
}

_BINARY: Final[dict[type[ast.operator], str]] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
}


#: Characters of the longest formula.
_LONGEST: Final = 2_000


class FormulaError(ValueError):
    """A formula uses something outside of the language; the message names it and its column."""


Array = Any  # numpy array, torch tensor or Python float: a backend computes with one kind throughout


@dataclass(frozen=True)
class Backend:
    """What computes a formula: the functions by name, and how a comparison becomes 0 or 1."""

    functions: Mapping[str, Callable[..., Array]]
    indicator: Callable[[Array, Array], Array]


def _numpy_sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


NUMPY: Final = Backend(
    functions={
        "abs": np.abs,
        "sign": np.sign,
        "log": np.log,
        "log1p": np.log1p,
        "exp": np.exp,
        "sqrt": np.sqrt,
        "tanh": np.tanh,
        "sigmoid": _numpy_sigmoid,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "detach": np.positive,
    },
    indicator=lambda condition, like: np.asarray(condition).astype(np.asarray(like).dtype),
)


TORCH: Final = Backend(
    functions={
        "abs": torch.abs,
        "sign": torch.sign,
        "log": torch.log,
        "log1p": torch.log1p,
        "exp": torch.exp,
        "sqrt": torch.sqrt,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "detach": torch.detach,
    },
    indicator=lambda condition, like: condition.to(like.dtype),
)


@dataclass(frozen=True)
class Formula:
    """One line of arithmetic over named variables.

    Args:
        text: sums, differences, products, quotients, comparisons (worth 1 where true, else 0), numbers, ``EPS``,
            and calls of `FUNCTIONS`.
        variables: the names that may occur.

    Raises:
        TypeError: it is no text.
        FormulaError: anything else occurs in the text, or it is too long or nested too deeply.

    Example:
        >>> Formula("x * (x > 0)", ("x",)).compute(NUMPY, x=np.array([-2.0, 3.0]))
        array([-0.,  3.])
    """

    text: str
    variables: tuple[str, ...]

    def __post_init__(self) -> None:
        instance("a formula", self.text, str, "text, such as 'x / (1 + abs(x))'")
        if len(self.text) > _LONGEST:
            raise FormulaError(f"formula {shown(self.text)} has {len(self.text)} characters; at most {_LONGEST}")
        try:
            self._check(self.tree)
        except (RecursionError, MemoryError):
            raise FormulaError(f"formula {shown(self.text)} is nested too deeply") from None

    @cached_property
    def tree(self) -> ast.expr:
        """The parsed text."""
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise FormulaError(f"formula {self.text!r} does not parse at column {error.offset}") from None
        except ValueError as error:  # zero bytes, or characters that are none
            raise FormulaError(f"formula {self.text!r} does not parse: {error}") from None

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=int() | float() as number) if (
                not isinstance(number, bool) and number <= sys.float_info.max
            ):
                return
            case ast.Name(id=name) if name in self.variables or name in CONSTANTS:
                return
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
                if isinstance(op, ast.Div) and not self._varies(right) and self._is_zero(right):
                    raise FormulaError(f"formula {self.text!r}: {ast.unparse(node)!r} divides by zero")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._check(operand)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                self._check(left)
                self._check(right)
                if not self._varies(node):
                    raise FormulaError(f"formula {self.text!r}: {ast.unparse(node)!r} compares plain numbers")
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if FUNCTIONS.get(name) == len(
                arguments
            ):
                for argument in arguments:
                    self._check(argument)
                    if not self._varies(argument):
                        instead = "x * (x > 0) for relu" if len(arguments) == 2 else "its value as a number"
                        raise FormulaError(f"formula {self.text!r}: {name} takes no plain number; write {instead}")
            case _:
                raise FormulaError(
                    f"formula {self.text!r}: {ast.unparse(node)!r} at column {node.col_offset + 1} is not allowed; "
                    f"use numbers, {', '.join((*self.variables, *CONSTANTS))}, + - * /, one comparison, "
                    f"and the functions {', '.join(FUNCTIONS)}"
                )

    def _varies(self, node: ast.expr) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self.variables for part in ast.walk(node))

    @staticmethod
    def _is_zero(plain: ast.expr) -> bool:
        return bool(Formula(ast.unparse(plain), ()).compute(NUMPY) == 0)

    def compute(self, backend: Backend, **variables: Array) -> Array:
        """Compute the formula elementwise.

        Args:
            backend: `NUMPY` or `TORCH`.
            **variables: an array for each variable, shapes that broadcast.

        Returns:
            An array of the broadcast shape.
        """

        def walk(node: ast.expr) -> Array:
            match node:
                case ast.Constant(value=value):
                    return value
                case ast.Name(id=name):
                    return CONSTANTS[name] if name in CONSTANTS else variables[name]
                case ast.UnaryOp(operand=operand):
                    return -walk(operand)
                case ast.BinOp(left=left, op=op, right=right):
                    a, b = walk(left), walk(right)
                    match op:
                        case ast.Add():
                            return a + b
                        case ast.Sub():
                            return a - b
                        case ast.Mult():
                            return a * b
                        case _:
                            return a / b
                case ast.Compare(left=left, ops=[op], comparators=[right]):
                    a, b = walk(left), walk(right)
                    match op:
                        case ast.Gt():
                            condition = a > b
                        case ast.GtE():
                            condition = a >= b
                        case ast.Lt():
                            condition = a < b
                        case ast.LtE():
                            condition = a <= b
                        case _:
                            condition = a == b
                    return backend.indicator(condition, next(iter(variables.values())))
                case ast.Call(func=ast.Name(id=name), args=arguments):
                    return backend.functions[name](*(walk(argument) for argument in arguments))
            raise AssertionError(f"unchecked node {ast.dump(node)}")

        return walk(self.tree)

    def render(
        self,
        variables: Mapping[str, str],
        *,
        number: Callable[[float], str] = repr,
        function: Callable[[str], str] = str,
        indicator: Callable[[str], str] = "({})".format,
    ) -> str:
        """Print the formula as source code of another language with Python's arithmetic syntax.

        Args:
            variables: what to print for each variable.
            number: prints a number.
            function: prints the name of a function.
            indicator: turns the text of a comparison into one worth 0 or 1.

        Returns:
            A fully parenthesised expression.
        """

        def walk(node: ast.expr) -> str:
            match node:
                case ast.Constant(value=int() | float() as value):
                    return number(float(value))
                case ast.Name(id=name):
                    return number(CONSTANTS[name]) if name in CONSTANTS else variables[name]
                case ast.UnaryOp(operand=operand):
                    return f"(-{walk(operand)})"
                case ast.BinOp(left=left, op=op, right=right):
                    return f"({walk(left)} {_BINARY[type(op)]} {walk(right)})"
                case ast.Compare(left=left, ops=[op], comparators=[right]):
                    return indicator(f"{walk(left)} {_COMPARE[type(op)]} {walk(right)}")
                case ast.Call(func=ast.Name(id=name), args=arguments):
                    return f"{function(name)}({', '.join(walk(argument) for argument in arguments)})"
            raise AssertionError(f"unchecked node {ast.dump(node)}")

        return walk(self.tree)
