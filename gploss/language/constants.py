"""Named constants of formulas that are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gploss.language.parsing import ExpressionError

NO_CONSTANTS: Final[Mapping[str, float]] = MappingProxyType({})


def joined(parts: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the named constants of an operator's operands.

    Raises:
        ExpressionError: a name has two values.
    """
    if not parts:
        return NO_CONSTANTS
    whole = parts[0]
    for part in parts[1:]:
        for name, value in part.items():
            if whole.get(name, value) != value:
                raise ExpressionError(f"{name} is {whole[name]:g} and {value:g}; a name stands for one value")
        whole = whole if part.items() <= whole.items() else MappingProxyType({**whole, **part})
    return whole
