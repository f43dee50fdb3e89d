"""Formulas of tables, for people."""

from __future__ import annotations

from gploss.language.expression import Expression
from gploss.language.parsing import ExpressionError


def readable(text: str) -> str:
    """Return the exact text of a loss as people write it.

    A text that means nothing here, such as one with an operator that is registered elsewhere, stays as it is.
    """
    try:
        return Expression.parse(text).readable()
    except ExpressionError:
        return text
