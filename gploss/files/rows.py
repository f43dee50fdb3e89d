"""Rows of tables with a checksum each: what has changed since it was written is noticed, and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

Value: TypeAlias = "str | int | float | bytes | None"
"""What SQLite holds."""


def checksum(table: str, values: Sequence[Value]) -> str:
    """A hash of a row: 16 hexadecimal digits.

    Args:
        table: its name, so that no row passes for one of another table.
        values: the row as SQLite gives it back: floats as floats, true and false as 1 and 0.

    Example:
        >>> checksum("entries", ["pred", 1]) == checksum("entries", ["pred", 1.0])
        False
    """
    plain = [["bytes", value.hex()] if isinstance(value, bytes) else value for value in values]
    return blake2b(json.dumps([table, plain]).encode(), digest_size=8).hexdigest()


def sealed(table: str, values: Sequence[Value]) -> tuple[Value, ...]:
    """A row with its checksum as the last value."""
    return (*values, checksum(table, values))


def intact(table: str, row: Sequence[Value]) -> bool:
    """Whether a row that ends in its checksum is as it was written."""
    *values, found = row
    return found == checksum(table, values)
