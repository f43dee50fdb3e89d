"""Arguments looked at where they are given: what comes from numpy is taken, what makes no sense is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import numpy as np

T = TypeVar("T")

_LONGEST = 80
"""Characters of a value that a message shows."""


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return an argument as an int; numpy's integers are fine.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        least: the smallest that makes sense.
        most: the largest that makes sense, or None.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is outside of these.

    Example:
        >>> whole_number("seed", 3, least=0)
        3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(number)}")
    return number


def seed_number(name: str, value: object) -> int:
    """Return a seed as an int that every generator takes: from 0 to 2**63 - 1.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is outside of these.
    """
    return whole_number(name, value, least=0, most=2**63 - 1)


def truth(name: str, value: object) -> bool:
    """Return an argument as a bool; numpy's are fine.

    Raises:
        TypeError: if it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def choice(name: str, value: object, options: Iterable[T]) -> T:
    """Return an argument that is one of some options.

    Raises:
        ValueError: if it is none of them; the message lists them.

    Example:
        >>> choice("reuse", "exact", ("exact", "fingerprint"))
        'exact'
    """
    known = list(options)
    for option in known:
        if isinstance(value, type(option)) and value == option:
            return option
    raise ValueError(f"{name} must be {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {shown(value)}")


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


def instance(name: str, value: object, kind: Callable[..., T], expected: str) -> T:
    """Return an argument that is of a kind.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        kind: the class that it has to be of; it may be an abstract one.
        expected: words for what it has to be, such as "a Grammar, such as Grammar.standard()".

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(value, cast(type[T], kind)):
        raise TypeError(f"{name} must be {expected}, got {shown(value)}")
    return value


def real_numbers(name: str, value: object) -> tuple[float, ...]:
    """Return an argument as a tuple of finite floats; numpy's arrays are fine.

    Raises:
        TypeError: if it is no list of numbers.
        ValueError: if one is not finite.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of numbers, got {shown(value)}")
    return tuple(real_number(f"each of {name}", one) for one in value)


def each(name: str, value: object, kind: Callable[..., T], expected: str) -> Sequence[T]:
    """Return an argument that is a list of things of a kind.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        kind: the class of each.
        expected: words for what each has to be, such as "an Expression".

    Raises:
        TypeError: if it is no list, or holds something else.
    """
    if isinstance(value, cast(type[T], kind)):
        raise TypeError(f"{name} must be a list, got a single one: write [{shown(value)}]")
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list, each {expected}, got {shown(value)}")
    for one in value:
        instance(f"each of {name}", one, kind, expected)
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
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of 5,000 digits, or whatever a user's own class does
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
