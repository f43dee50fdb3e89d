"""One hash for what behaves alike: code by what it does, objects by what they hold, the unknown by name."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import functools
import io
import math
import re
import sqlite3
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

from gploss.files.described import describe
from tests.typed import typed


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float = 1.0


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def _around(value: object) -> list[object]:
    ring: list[object] = [value]
    ring.append(ring)
    return ring


def _adds(number: float) -> Callable[[float], float]:
    return lambda x: x + number


#: Makers of pairs: the first two results are alike, the third is not.
PAIRS: dict[str, Callable[[int], object]] = {
    "whole numbers": lambda k: k,
    "huge numbers": lambda k: 10**5000 + k,
    "fractions": lambda k: Fraction(k, 7),
    "texts": lambda k: f"\udcff {k}",
    "lists": lambda k: [1, [k]],
    "dictionaries": lambda k: {"a": k},
    "ordered ones": lambda k: OrderedDict(a=k),
    "with defaults": lambda k: defaultdict(lambda: k),
    "queues": lambda k: deque([k]),
    "sets": lambda k: {f"x{k}", "a", "b", "c"},
    "frozen sets": lambda k: frozenset({f"x{k}", "a", "b", "c"}),
    "rings": lambda k: _around(k),
    "enumerations": lambda k: list(Colour)[k],
    "data classes": lambda k: Point(0.0, k),
    "slots": lambda k: Slotted(k),
    "arrays": lambda k: np.arange(4).reshape(2, 2)[::-1] + k,
    "arrays of objects": lambda k: np.array([None, k], dtype=object),
    "numpy's numbers": lambda k: np.float32(k),
    "tensors": lambda k: torch.arange(4) + k,
    "complex tensors": lambda k: torch.tensor([1j * (k + 1)]).conj(),
    "generators": lambda k: torch.Generator().manual_seed(k),
    "patterns": lambda k: re.compile(f"a{k}"),
    "paths": lambda k: Path(f"a{k}"),
    "partial functions": lambda k: functools.partial(math.pow, k),
    "closures": lambda k: _adds(k),
    "cached functions": lambda k: functools.lru_cache(_adds(k)),
    "compiled functions": lambda k: numba.njit(_adds(k)),
    "functions under no_grad": lambda k: torch.no_grad()(_adds(k)),
    "methods": lambda k: Point(0.0, k).__eq__,
    "properties": lambda k: property(_adds(k)),
    "built-in methods": lambda k: [k].append,
    "functions of C": lambda k: (math.sin, math.cos)[k],
    "functions of numpy": lambda k: (np.add, np.subtract)[k],
    "functions of torch": lambda k: (torch.relu, torch.tanh)[k],
    "modules": lambda k: (math, re)[k],
    "types": lambda k: (torch.float32, torch.float64)[k],
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_things_have_one_hash_and_others_another(name: str) -> None:
    make = PAIRS[name]
    first, same, other = describe(make(0), "it"), describe(make(0), "it"), describe(make(1), "it")
    assert not first.unknown and not other.unknown
    assert first == same
    assert first != other


def test_kinds_of_numbers_are_told_apart() -> None:
    values = [0, 0.0, -0.0, False, None, "0", b"0", 0j, math.nan, math.inf, (0,), [0], {0}, np.int64(0), ((),), ()]
    assert len({describe(value, "it").hash for value in values}) == len(values)


def test_two_references_to_one_thing_are_not_two_equal_things() -> None:
    one = [1]
    assert describe([one, one], "it") != describe([[1], [1]], "it")


def _counting() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Path(__file__).open(),  # noqa: SIM115 (it is closed below)
        lambda: sqlite3.connect(":memory:"),
        lambda: ctypes.CDLL(None).abs,
        lambda: np.frompyfunc(_adds(1.0), 1, 1),
        lambda: _counting(),
        lambda: torch.jit.script(torch.nn.Linear(2, 2)),
        lambda: types.SimpleNamespace(inner=[io.TextIOWrapper(io.BytesIO())]),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_looked_into_is_named(make: Callable[[], Any]) -> None:
    thing = make()
    try:
        assert describe(thing, "it").unknown
        assert describe(lambda: thing, "it").unknown
        assert any("thing" in text for text in describe(lambda: thing, "it").unknown)
    finally:
        getattr(thing, "close", lambda: None)()


def test_long_chains_are_walked_to_their_end() -> None:
    def chain(last: object) -> object:
        for _ in range(20_000):
            last = [last]
        return last

    assert describe(chain(1), "it") == describe(chain(1), "it") != describe(chain(2), "it")


def _module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(typed(source, __name__=name))
    return module


USES = {
    "import at the top": ("import own_helpers\ndef score(x): return own_helpers.dot(x)", True),
    "import inside": ("def score(x):\n    import own_helpers\n    return own_helpers.dot(x)", True),
    "import of a name": ("def score(x):\n    from own_helpers import dot\n    return dot(x)", True),
    "by getattr": ("import own_helpers\ndef score(x): return getattr(own_helpers, 'd' + 'ot')(x)", True),
    "of something else": ("import own_helpers\ndef score(x): return own_helpers.other(x)", False),
}


@pytest.mark.parametrize("name", USES)
def test_a_module_of_the_users_own_is_looked_into_where_it_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, uses = USES[name]
    helpers = "SCALE = {}\ndef dot(x): return x * SCALE\ndef other(x): return x"
    hashes = []
    for scale in (1.0, 1.0, 2.0):
        monkeypatch.setitem(sys.modules, "own_helpers", _module("own_helpers", helpers.format(scale)))
        hashes.append(describe(_module("own", source).score, "it").hash)
    assert hashes[0] == hashes[1]
    assert (hashes[0] != hashes[2]) == uses
