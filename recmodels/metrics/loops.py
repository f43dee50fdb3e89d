"""Compiled loops, loaded when they are first needed: importing metrics writes nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import numba

from gploss.compute.cpu import import_source

#: The text itself, not where it stands: it is part of the metrics' keys.
_SOURCE: Final = Path(__file__).with_name("kernels").joinpath("source.py").read_text()


@cache
def loops() -> ModuleType:
    """Return the functions of `kernels/source.py`.

    Raises:
        gploss.compute.cpu.KernelError: the cache folder cannot be written.
    """
    return import_source("gploss_metrics", _SOURCE, depends_on=numba.__version__)
