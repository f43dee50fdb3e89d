"""Named things that are found by discovery: operators, losses, searchers, models, datasets."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import ItemsView, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to things of one kind that refuses to hide one thing behind another.

    Args:
        kind: what an entry is, as it appears in messages ("operator", "searcher", ...).
        disjoint_from: a registry of another kind; no name may be in both.

    Attributes:
        removals: how often an entry was removed; after that, a name may stand for something else.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> colours.register("red", 0xFF0000)
        16711680
        >>> "red" in colours
        True
    """

    def __init__(self, kind: str, disjoint_from: Registry[Any] | None = None) -> None:
        self.kind = kind
        self._others: list[Registry[Any]] = []
        if disjoint_from is not None:
            self._others.append(disjoint_from)
            disjoint_from._others.append(self)
        self.removals = 0
        self._entries: dict[str, T] = {}

    def register(self, name: str, item: T) -> T:
        """Add an entry and return it.

        Registering the same object again changes nothing.

        Raises:
            ValueError: another entry has that name, or one of a registry that shares no names with this one.
        """
        for other in self._others:
            if name in other:
                raise ValueError(f"the name {name!r} is that of a known {other.kind}; choose another name")
        present = self._entries.setdefault(name, item)
        if present is not item:
            raise ValueError(f"the name {name!r} is taken by another {self.kind}; choose another name")
        return item

    def unregister(self, name: str) -> None:
        """Remove an entry.

        Raises:
            LookupError: no entry has that name.
        """
        self[name]
        del self._entries[name]
        self.removals += 1

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            choices = ", ".join(self._entries) or "none is registered"
            raise LookupError(f"no {self.kind} is named {name!r}; choose from: {choices}") from None

    def names(self) -> tuple[str, ...]:
        """Return the names in the order of registration."""
        return tuple(self._entries)

    def items(self) -> ItemsView[str, T]:
        """Return (name, entry) pairs in the order of registration."""
        return self._entries.items()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def discover(package_name: str) -> None:
    """Import every module of a package, so that the entries in them register themselves.

    Args:
        package_name: a dotted name, such as ``"gploss.searchers"``.

    Raises:
        ImportError: the package or one of its modules cannot be imported.
    """
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package_name}.{module.name}")
