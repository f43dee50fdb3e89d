"""Which commands there are: known by what their files say, and imported when they are asked for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from experiments.command.configuration import Configuration

FOLDER: Final = Path(__file__).parents[1]

Run = TypeVar("Run", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declared:
    """A command as its file declares it.

    Attributes:
        name: as typed after `gploss`.
        summary: first line of its function's docstring.
        module: where it is.
    """

    name: str
    summary: str
    module: str


@dataclass(frozen=True)
class Command:
    """A command that can be run.

    Attributes:
        declared: name and summary.
        configuration: what may be asked of it.
        run: takes a configuration, and the run's folder where it has an `out`; returns a page.
    """

    declared: Declared
    configuration: type[Configuration]
    run: Callable[..., Any]


_COMMANDS: dict[str, tuple[type[Configuration], Callable[..., Any]]] = {}


def command(name: str, configuration: type[Configuration]) -> Callable[[Run], Run]:
    """Make a function a command of `gploss`; the first line of its docstring is its help.

    Args:
        name: as typed after `gploss`; written out here, since it is read without importing the file.
        configuration: its options.
    """

    def register(run: Run) -> Run:
        _COMMANDS[name] = (configuration, run)
        return run

    return register


def declared() -> dict[str, Declared]:
    """Return the commands in the files of this package, by name; nothing is imported."""
    found: dict[str, Declared] = {}
    for path in sorted(FOLDER.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "@command(" in text:
            module = ".".join((FOLDER.name, *path.relative_to(FOLDER).with_suffix("").parts))
            found |= {name: Declared(name, summary, module) for name, summary in _in_source(text)}
    return found


def _in_source(text: str) -> list[tuple[str, str]]:
    """Return name and summary of each function with the decorator."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [
        (call.args[0].value, (ast.get_docstring(function) or "").partition("\n")[0])
        for function in functions
        for call in function.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "command"
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    ]


def load(name: str) -> Command:
    """Import a command.

    Raises:
        LookupError: there is none of that name.
    """
    known = declared()
    if name not in known:
        raise LookupError(f"no command is named {name!r}; choose from: {', '.join(known)}")
    importlib.import_module(known[name].module)
    return Command(known[name], *_COMMANDS[name])
