"""Code as it is typed in a notebook: no file has its source."""

from __future__ import annotations

from typing import Any


def typed(source: str, **names: Any) -> dict[str, Any]:
    """Run a cell; return the names of its module."""
    module = {"__name__": "__main__", **names}
    exec(source, module)  # noqa: S102 (that is what notebooks do)
    return module
