"""From what was typed to a page: file and command line joined, the folder looked at, the command run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from experiments.command.configuration import ConfigurationError, read_file
from experiments.command.folder import RECORD, SUMMARY, Mode, Record, RunFolder
from experiments.command.options import FolderSettings, RunSettings
from experiments.command.registry import Command

#: A run that goes on may get more of these than it began with.
_MAY_GROW: Final = ("budget", "rounds", "seeds")

#: Changes nothing of what comes out, or what is done now.
_FREE: Final = ("jobs", "phases")

#: Told to people while a run goes on; results go to the standard output.
_CONSOLE: Final = Console(stderr=True, highlight=False, markup=False)

#: Characters a line of a table has where there is no terminal.
_WIDTH: Final = 130


def run_command(command: Command, typed: Mapping[str, Any]) -> None:
    """Run a command, or print its configuration.

    Args:
        command: what to run.
        typed: the values of all its options on the command line, by name; None where one was not typed.

    Raises:
        ConfigurationError: an option is unknown or has a value that it cannot have.
        FolderError: the run's folder cannot be used.
    """
    options = dict(typed)
    file, print_only = options.pop("config"), options.pop("print-config")
    resume, overwrite = options.pop("resume", False), options.pop("overwrite", False)
    given, places = ({}, {}) if file is None else read_file(Path(file))
    for name, value in options.items():
        if value is not None:
            given[name] = value
            places[name] = f"--{name}"
    settings = command.configuration.of(given, places)
    if resume and overwrite:
        raise ConfigurationError("--resume and --overwrite exclude each other: a run goes on, or is replaced")
    if resume and isinstance(settings, FolderSettings):
        settings = _resumed(settings, given)
    if print_only:
        print(settings.as_toml(), end="")
        return
    if not isinstance(settings, FolderSettings):
        page = command.run(settings)
    else:
        mode = Mode.RESUME if resume else Mode.OVERWRITE if overwrite else Mode.NEW
        name = command.declared.name
        record = Record(name, f"{name} {settings.as_words()}".strip(), settings.values())
        device = settings.device if isinstance(settings, RunSettings) else "cpu"
        page = command.run(settings, RunFolder(settings.out, record, mode, device))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(page)
    if isinstance(settings, FolderSettings):
        say(f"done: open {settings.out / SUMMARY}")


def _resumed(settings: FolderSettings, given: Mapping[str, Any]) -> FolderSettings:
    """Return the configuration of the run in the folder; say where it is not what was given."""
    known = Record.of(settings.out)
    if known is None:
        return settings
    places = dict.fromkeys(known.configuration, f"{settings.out / RECORD}")
    values = settings.of(known.configuration, places).values() | {"out": str(settings.out)}
    for name, value in given.items():
        kept = values[name]
        if value == kept or name == "out":
            continue
        if name in _FREE or (name in _MAY_GROW and kept is not None and value > kept):
            values[name] = value
            say(f"going on with {name} {value}; the run in {settings.out} began with {kept}")
        else:
            say(f"going on with {name} {kept}, as the run in {settings.out} began; {value} was given")
    return settings.of(values)


def say(line: str) -> None:
    """Tell what is done next."""
    _CONSOLE.print(line, soft_wrap=True)
