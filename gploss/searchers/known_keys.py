"""Keys that a searcher has met: looked up at once, and saved by what is new alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gploss.files.packed import Grown

_ROOM = 1024
"""Keys that there is room for at first; the room doubles when it is used up."""


class KnownKeys:
    """A set of 64-bit keys that only grows, about 100 bytes of memory each.

    Args:
        keys: of an earlier one, in the order in which they came.

    Example:
        >>> known = KnownKeys([3])
        >>> known.add(5)
        >>> 5 in known, len(known)
        (True, 2)
    """

    def __init__(self, keys: Iterable[int] = ()) -> None:
        self._keys: set[int] = set()
        self._in_order = np.empty(_ROOM, np.uint64)
        for key in keys:
            self.add(int(key))

    def add(self, key: int) -> None:
        """Add a key; one that is in here already changes nothing."""
        if key in self._keys:
            return
        if len(self._keys) == len(self._in_order):
            # What was given away as a state keeps its own memory.
            self._in_order = np.concatenate([self._in_order, np.empty_like(self._in_order)])
        self._in_order[len(self._keys)] = key
        self._keys.add(key)

    def grown(self) -> Grown:
        """The keys in the order in which they came, (n,) uint64, for a state: the cost does not depend on n."""
        return Grown(self._in_order[: len(self._keys)])

    def __contains__(self, key: int) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)
