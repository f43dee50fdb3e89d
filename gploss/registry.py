"""Named things that are found by discovery: operators, losses, searchers, models, datasets."""

from __future__ import annotations

import importlib
import pkgutil
import time
import warnings
from collections.abc import Callable, ItemsView, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gploss.files.described import describe

T = TypeVar("T")

#: Registries that every process has, by the module that makes them and by kind.
_EVERYWHERE: dict[tuple[str, str], Registry[Any]] = {}

#: Packages whose entries are kept for good.
_DISCOVERED: set[str] = set()


class Registry(Generic[T]):
    """A mapping from names to things of one kind that hides none of gploss's own behind another one.

    Args:
        kind: what an entry is, as it appears in messages ("operator", "searcher", ...).
        disjoint_from: a registry of another kind; no name may be in both.
        module: the module that makes it, where every process has it: it is sent by name then, and what users
            register reaches workers (`for_workers`).

    Attributes:
        removals: how often an entry was removed or replaced; after that, a name may stand for something else.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> colours.register("red", 0xFF0000)
        16711680
        >>> "red" in colours
        True
    """

    def __init__(self, kind: str, disjoint_from: Registry[Any] | None = None, module: str | None = None) -> None:
        self.kind = kind
        self._module = module
        if module is not None:
            _EVERYWHERE[module, kind] = self
        self._others: list[Registry[Any]] = []
        if disjoint_from is not None:
            self._others.append(disjoint_from)
            disjoint_from._others.append(self)
        self.removals = 0
        self._entries: dict[str, T] = {}
        self._protected: set[str] = set()
        self._since: dict[str, int] = {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol) if self._module is None else (_found, (self._module, self.kind))

    def register(self, name: str, item: T) -> T:
        """Add an entry and return it.

        Registering the same again changes nothing, as when a notebook's cell is run a second time; the same is what
        behaves alike, comments aside. Another one takes the place of a user's own, and a warning says so.

        Raises:
            ValueError: one of gploss's own has that name, or one of a registry that shares no names with this one.
        """
        for other in self._others:
            if name in other:
                raise ValueError(f"the name {name!r} is that of a known {other.kind}; choose another name")
        if name in self._entries:
            present = self._entries[name]
            if _alike(present, item):
                return present
            if name in self._protected:
                raise ValueError(f"the name {name!r} is taken by another {self.kind}; choose another name")
            warnings.warn(
                f"{self.kind} {name!r} is replaced: from here on the name stands for another one",
                stacklevel=2,
            )
        self._put(name, item, time.time_ns())
        return item

    def _put(self, name: str, item: T, since: int) -> None:
        if name in self._entries:
            self.removals += 1
        self._entries[name] = item
        self._since[name] = since

    def protect(self, names: Iterable[str]) -> None:
        """Keep some entries for good: no other one can take their names."""
        self._protected.update(names)

    def own(self, names: Iterable[str] | None = None) -> tuple[Sent[T], ...]:
        """Return what users registered, ready to be sent to another process.

        Args:
            names: those that are wanted; all by default.
        """
        wanted = self._entries if names is None else [name for name in names if name in self._entries]
        return tuple(
            Sent(name, self._entries[name], self._since[name]) for name in wanted if name not in self._protected
        )

    def since(self, name: str) -> int | None:
        """Return the nanosecond in which a user's entry was registered; None for one of gploss's own."""
        return None if name in self._protected else self._since[name]

    def receive(self, sent: Iterable[Sent[T]]) -> None:
        """Take up what another process sent; of two entries of one name that which was registered later stays."""
        for one in sent:
            if one.since > self._since.get(one.name, -1):
                self._put(one.name, one.item, one.since)

    def unregister(self, name: str) -> None:
        """Remove an entry.

        Raises:
            LookupError: no entry has that name.
        """
        self[name]
        del self._entries[name]
        self._protected.discard(name)
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


@dataclass(frozen=True)
class Sent(Generic[T]):
    """An entry on its way to another process, with the nanosecond in which it was registered."""

    name: str
    item: T
    since: int

    def what_counts(self) -> tuple[str, T]:
        """Return all but the time; see `gploss.files.described`."""
        return self.name, self.item


def _alike(one: object, other: object) -> bool:
    if one is other:
        return True
    first, second = describe(one, "it"), describe(other, "it")
    return first == second and not first.unknown


def _found(module: str, kind: str) -> Registry[Any]:
    importlib.import_module(module)
    return _EVERYWHERE[module, kind]


def for_workers(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that takes along, to whatever process it is sent, what was registered here.

    Expressions, grammars, tasks and problems do so by themselves; a function that makes a grammar where it runs, or
    asks for something by name, needs this.

    Args:
        function: what workers are to run.

    Example:
        >>> from joblib import Parallel, delayed
        >>> Parallel(n_jobs=1)(delayed(for_workers(len))(text) for text in ("a", "bcd"))
        [1, 3]
    """
    return _ForWorkers(function)


class _ForWorkers(Generic[T]):
    """Calls a function; takes registered things along when it is pickled."""

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> T:
        return self._function(*arguments, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return _with, (_Own(), self._function)


class _Own:
    """All that users registered; it is there as soon as this is unpickled, before what comes after it."""

    def __reduce__(self) -> tuple[Any, ...]:
        own = [(place, registry.own()) for place, registry in _EVERYWHERE.items()]
        return _receive, ([(place, sent) for place, sent in own if sent],)


def _receive(own: Iterable[tuple[tuple[str, str], tuple[Sent[Any], ...]]]) -> _Own:
    for place, sent in own:
        _found(*place).receive(sent)
    return _Own()


def _with(own: _Own, function: Callable[..., T]) -> _ForWorkers[T]:
    return _ForWorkers(function)


def discover(package_name: str, registry: Registry[Any] | None = None) -> None:
    """Import every module of a package, so that the entries in them register themselves.

    Args:
        package_name: a dotted name, such as ``"gploss.searchers"``.
        registry: where they do; what is in it after the first time is kept for good (`Registry.protect`).

    Raises:
        ImportError: the package or one of its modules cannot be imported.
    """
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package_name}.{module.name}")
    if registry is not None and package_name not in _DISCOVERED:
        registry.protect(registry)
        _DISCOVERED.add(package_name)
