"""Arguments looked at where they are given: what comes from numpy is taken, what makes no sense is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")

_LONGEST = 80
"""Characters of a value that a message shows."""


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return an argument as an int; numpy's integers are fine.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        least: the smallest that makes sense.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is less than the least.

    Example:
        >>> whole_number("seed", 3, least=0)
        3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def real_number(
    name: str, value: object, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> float:
    """Return an argument as a finite float; whole numbers and numpy's numbers are fine.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        least: the smallest that makes sense.
        most: the largest that makes sense.
        above: what it has to be larger than.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not finite, or outside of the range.

    Example:
        >>> real_number("decay", 1, least=0.0, most=1.0)
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    if not least <= number <= most:
        bounds = f"lie between {least:g} and {most:g}" if math.isfinite(most) else f"be at least {least:g}"
        raise ValueError(f"{name} must {bounds}, got {value!r}")
    if not number > above:
        raise ValueError(f"{name} must be above {above:g}, got {value!r}")
    return number


def instance(name: str, value: object, kind: type[T], expected: str) -> T:
    """Return an argument that is of a kind.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        kind: the class that it has to be of.
        expected: words for what it has to be, such as "a Grammar, such as Grammar.standard()".

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    return value


def functions(name: str, value: object) -> tuple[Callable[..., Any], ...]:
    """Return an argument as a tuple of functions.

    Raises:
        TypeError: if it is no list of functions.
    """
    if callable(value):
        raise TypeError(f"{name} must be a list of functions, got a single one: write {name}=[{shown(value)}]")
    if not isinstance(value, list | tuple) or not all(map(callable, value)):
        raise TypeError(f"{name} must be a list of functions, got {shown(value)}")
    return tuple(value)


def texts(name: str, value: object) -> tuple[str, ...]:
    """Return an argument as a tuple of texts.

    Raises:
        TypeError: if it is no list of texts.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be a list of texts, got a single one: write {name}=[{value!r}]")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of texts, got {shown(value)}")
    return tuple(instance(f"each of {name}", text, str, "a text") for text in value)


def shown(value: object) -> str:
    """Return a value as one line of a message; of a long one the beginning."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
