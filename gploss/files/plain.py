"""Plain values, such as JSON can hold, and one text for equal ones: for keys, settings and digests."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""A value that JSON can hold: text, finite numbers, booleans, None, lists and text-keyed dicts of these."""


def canonical_json(value: JSON) -> str:
    """One text for equal values: sorted keys, no spaces, ASCII only, floats by repr.

    Raises:
        ValueError: if the value, or one inside it, is not JSON; the message names where it is.
    """
    require_json(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """A hash of a text: BLAKE2b, 32 hexadecimal digits. Characters that stand for damaged bytes are fine."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def require_json(value: object, where: str) -> None:
    """Checks that a value is JSON: `json.dumps` alone would turn a key 1 into "1", and name no place.

    Raises:
        ValueError: if the value, or one inside it, is not JSON; the message starts with `where` it is.
    """
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value!r}, which JSON cannot hold: give a finite number or None")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            require_json(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{where} has the key {name!r}, a {type(name).__name__}: keys must be text")
            require_json(item, f"{where}[{name!r}]")
    else:
        raise ValueError(
            f"{where} is {value!r}, a {type(value).__name__}, which is not JSON: "
            "convert it to text, a number, a list or a dict first"
        )


def differences(where: str, first: JSON, second: JSON, of_first: str, of_second: str) -> Iterator[str]:
    """A line for each place where two plain values differ.

    Args:
        where: what the values are, such as "settings"; lines begin with it.
        first: one value.
        second: the other.
        of_first: words for where the first one is, such as "in the file".
        of_second: the same for the second one, such as "now".

    Example:
        >>> list(differences("settings", {"seed": 0, "rate": 0.1}, {"seed": 1}, "in the file", "now"))
        ['settings.rate: 0.1 in the file, absent now', 'settings.seed: 0 in the file, 1 now']
    """
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            inner = f"{where}.{name}"
            if name not in second:
                yield f"{inner}: {first[name]!r} {of_first}, absent {of_second}"
            elif name not in first:
                yield f"{inner}: absent {of_first}, {second[name]!r} {of_second}"
            else:
                yield from differences(inner, first[name], second[name], of_first, of_second)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(f"{where}[{index}]", one, other, of_first, of_second)
    elif json.dumps(first) != json.dumps(second):
        yield f"{where}: {first!r} {of_first}, {second!r} {of_second}"
