"""Whose code something is: Python's, an installed package's, gploss's, or the user's own."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Final

_OURS: Final = ("gploss.", "recmodels.", "rl.")

#: Folders of gploss to which users add files: these are looked into as their own code is.
_OPEN: Final = ("recmodels.models.", "recmodels.metrics.")

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


def release_of(module: str | None) -> str | None:
    """Return what stands for all code of a module, such as "numpy 2.4.0"; None for a user's own.

    gploss's own code is stood for by the format of keys.

    Args:
        module: its dotted name, or None where it has none.
    """
    if not module:
        return None
    dotted = f"{module}."
    if dotted.startswith(_OURS):
        return None if dotted.startswith(_OPEN) else "gploss"
    return _release(module.partition(".")[0])


@cache
def _release(package: str) -> str | None:
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        return "python"
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or not _INSTALLED & set(Path(file).parts):
        return None
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(package, [])
    return " ".join([package, *(metadata.version(name) for name in names)]) if names else None


def name_of(thing: object) -> str | None:
    """Return where code of a release is found, such as "torch.nn.functional.relu of torch 2.13.0".

    Returns:
        None for a user's own, and for what its name does not lead to: a function made by another one.
    """
    if isinstance(thing, ModuleType):
        release = release_of(thing.__name__)
        return None if release is None else f"{thing.__name__} of {release}"
    module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        return None
    release = release_of(module)
    if release is None:
        return None
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return f"{module}.{path} of {release}" if found is thing else None
