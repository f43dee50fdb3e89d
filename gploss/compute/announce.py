"""Says when kernels are compiled: that takes up to a minute, once, in which nothing else seems to happen.

Importing this module is all that it takes.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from numba.core import event

#: First part of the names of modules whose functions are announced.
PREFIX: Final = "gploss_"

_COMPILE: Final = "numba:compile"


class Announcement(event.Listener):
    """Writes a line to the standard error stream when the first function of a kernel is compiled.

    Kernels that are found on disk are not compiled, and not announced.

    Attributes:
        announced: names of the modules that had their line.
    """

    def __init__(self) -> None:
        self.announced: set[str] = set()

    def on_start(self, compilation: Any) -> None:
        """Announce the module, where it is a kernel, and had no line yet."""
        module = compilation.data["dispatcher"].py_func.__module__
        if not module.startswith(PREFIX) or module in self.announced:
            return
        self.announced.add(module)
        name = module.removeprefix(PREFIX).rpartition("_")[0].replace("_", " ")
        print(f"compiling: {name} (up to half a minute, the first time only)", file=sys.stderr, flush=True)

    def on_end(self, compilation: Any) -> None:
        """Do nothing."""


event.register(_COMPILE, Announcement())  # type: ignore[no-untyped-call]
