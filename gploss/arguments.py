"""Arguments looked at where they are given: what comes from numpy is taken, what makes no sense is named."""

from __future__ import annotations

import math
from numbers import Integral, Real


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
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def real_number(name: str, value: object, *, least: float = -math.inf, most: float = math.inf) -> float:
    """Return an argument as a finite float; whole numbers and numpy's numbers are fine.

    Args:
        name: what the argument is called, for the message.
        value: as it was given.
        least: the smallest that makes sense.
        most: the largest that makes sense.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not finite, or outside of the range.

    Example:
        >>> real_number("decay", 1, least=0.0, most=1.0)
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if not least <= number <= most:
        bounds = f"lie between {least:g} and {most:g}" if math.isfinite(most) else f"be at least {least:g}"
        raise ValueError(f"{name} must {bounds}, got {value!r}")
    return number
