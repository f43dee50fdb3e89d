"""What a compiled function does, without what it looks like: no comments, docstrings, lines or file names."""

from __future__ import annotations

import dis
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Final

_GLOBALS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})

#: What a class body keeps for readers alone.
_FOR_READERS: Final = frozenset({"__doc__", "__firstlineno__"})


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
        name: of the instruction.
        argument: text or number; for a constant the constant itself.
    """

    name: str
    argument: object


def steps(code: CodeType) -> Iterator[Step]:
    """Yield a function's instructions: they are the same wherever it stands, and whatever is written beside it.

    Jumps lead to instructions, not to bytes, and constants and names stand for themselves, because a docstring
    would move both.
    """
    kept = _kept(code)
    offsets = [instruction.offset for instruction in kept]

    def place(offset: int) -> int:
        return bisect_left(offsets, offset)

    for instruction in kept:
        if instruction.opcode in dis.hasconst:
            yield Step(instruction.opname, instruction.argval)
        elif instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            yield Step(instruction.opname, place(instruction.argval))
        elif isinstance(instruction.argval, str | int):
            yield Step(instruction.opname, instruction.argval)
        else:
            yield Step(instruction.opname, instruction.argrepr)
    for entry in vars(dis.Bytecode(code))["exception_entries"]:
        yield Step("except", f"{place(entry.start)} {place(entry.end)} {place(entry.target)} {entry.depth}")


def _kept(code: CodeType) -> list[dis.Instruction]:
    """Instructions that do something."""
    instructions = [one for one in dis.get_instructions(code) if one.opname not in ("NOP", "EXTENDED_ARG")]
    beside: set[int] = set()
    for number, one in enumerate(instructions):
        if one.opname == "STORE_NAME" and one.argval in _FOR_READERS:
            beside |= {number - 1, number}
    return [one for number, one in enumerate(instructions) if number not in beside]


def parts(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code, and that of the functions and classes that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from parts(constant)


def global_names(code: CodeType) -> list[str]:
    """Return the names that a function looks up in its module, sorted."""
    found = {one.argval for own in parts(code) for one in dis.get_instructions(own) if one.opname in _GLOBALS}
    return sorted(found)


def imported_names(code: CodeType) -> list[tuple[str, int]]:
    """Return the modules that a function imports when it is called, each with the level of a relative import."""
    found: set[tuple[str, int]] = set()
    for own in parts(code):
        before: list[object] = [0, 0]
        for one in dis.get_instructions(own):
            if one.opname == "IMPORT_NAME":
                level = before[-2]
                found.add((one.argval, level if isinstance(level, int) else 0))
            before = [before[-1], one.argval]
    return sorted(found)


def used_names(code: CodeType) -> frozenset[str]:
    """Return all names of globals and attributes that a function reads."""
    return frozenset(name for own in parts(code) for name in own.co_names)
