"""Records from a file: read as JSON, and held against what they should be before anything is made of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gploss.arguments import shown
from gploss.files.text import MOST_BYTES, read_text

_WORDS: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")

#: What JSON may write a number as, in Python's kinds.
NUMBER: Final = (int, float)


def read_json(path: str | Path, *, most: int = MOST_BYTES) -> Any:
    """Return what a file of JSON holds.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: it is no regular file, too large, in another encoding, no JSON, or nested too deeply.
    """
    try:
        text = read_text(path, most=most)
        content = json.loads(text)
        if _SURROGATE.search(text):  # half of a pair is no character, and could be written nowhere
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def require(record: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Check the kinds of a record's values; True and False are no numbers.

    Raises:
        ValueError: one is missing, or of another kind; the message names it.
    """
    for name, allowed in kinds.items():
        value = record.get(name)
        fits = isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
        if name not in record or not fits:
            wanted = " or ".join(_WORDS.get(kind, f"a {kind.__name__}") for kind in allowed)
            raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
        if float in allowed and isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError(f"{name} is too large: {shown(value)}")


def require_each(name: str, values: Iterable[Any], allowed: tuple[type, ...]) -> None:
    """Check the kind of each of some values.

    Raises:
        ValueError: one is of another kind.
    """
    for value in values:
        require({f"each of {name}": value}, {f"each of {name}": allowed})


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__
