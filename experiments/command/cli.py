"""The command `gploss`: finds commands, makes options of their configurations, and tells errors in one line."""

from __future__ import annotations

import sqlite3
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

import click

from experiments.command import registry
from experiments.command.configuration import Configuration, opposite
from experiments.command.endings import OrderlyEnding

FAILED: Final = 1

#: What every command that has a configuration takes besides it.
_CONFIGURING: Final = (
    click.Option(["--config"], type=click.Path(), help="A file in TOML with options; those typed override it."),
    click.Option(["--print-config"], is_flag=True, help="Print what would be run, as such a file, and end."),
)

#: What every command with a folder of its own takes besides.
_RUNNING: Final = (
    click.Option(
        ["--resume"],
        is_flag=True,
        help="Go on with the run in the folder by its own configuration; budget, rounds and seeds may grow.",
    ),
    click.Option(
        ["--overwrite"],
        is_flag=True,
        help="Replace the run in the folder: first the files that gploss made are deleted.",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `gploss` and return its exit code: 0, 1 for an error told in one line, or 130 after Ctrl-C.

    After SIGTERM and SIGHUP, which end it in the same order, the code is 143 and 129.

    Args:
        arguments: what is typed after the command's name; the process's own by default.
    """
    warnings.simplefilter("default")
    with OrderlyEnding() as ending:
        return _run(arguments, ending)


def _run(arguments: Sequence[str] | None, ending: OrderlyEnding) -> int:
    try:
        with gploss.make_context("gploss", list(sys.argv[1:] if arguments is None else arguments)) as context:
            gploss.invoke(context)
        return 0
    except click.exceptions.Exit as ended:  # help, version
        return ended.exit_code
    except KeyboardInterrupt as error:
        return _told(ending.code, str(error) or "interrupted")
    except click.ClickException as error:
        return _told(FAILED, f"{error.format_message()}")
    except (KeyError, IndexError):
        raise  # look-ups that a program got wrong, not its user
    except (ValueError, LookupError, OSError, RuntimeError, sqlite3.Error) as error:
        if ending.asked:
            return _told(ending.code, f"interrupted; --resume goes on with a run ({error})")
        return _told(FAILED, str(error))


def _told(code: int, message: str) -> int:
    """Write an error in one line, and return the code; a damaged file's bytes in it tell a terminal nothing."""
    line = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    with suppress(OSError):  # the terminal may be gone
        click.echo(
            "Error: " + "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line), err=True
        )
    return code


class CommandGroup(click.Group):
    """All commands, each imported when it is asked for: what trains takes seconds to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(registry.declared())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of that name."""
        return ConfiguredCommand(registry.load(cmd_name)) if cmd_name in registry.declared() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command asked for, or name the nearest one."""
        names = self.list_commands(ctx)
        if args[0] not in names:
            near = get_close_matches(args[0], names, n=1)
            choices = f"the nearest one is {near[0]!r}" if near else f"choose from: {', '.join(names)}"
            raise click.UsageError(f"no command is named {args[0]!r}; {choices}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write names and summaries; nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(one.name, one.summary) for one in registry.declared().values()])


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.version_option(package_name="gploss")
@click.pass_context
def gploss(context: click.Context) -> None:
    """Search for loss functions of recommender models, and say honestly whether they are better."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


class ConfiguredCommand(click.Command):
    """A command whose options are its configuration's."""

    def __init__(self, command: registry.Command) -> None:
        self.command = command
        kind = command.configuration
        general = [*_CONFIGURING, *(_RUNNING if "out" in kind.options() else ())]
        super().__init__(
            command.declared.name,
            params=[*(_option(kind, name) for name in kind.options()), *general],
            help=command.run.__doc__,
        )

    def invoke(self, ctx: click.Context) -> None:
        """Run the command with what was typed."""
        given = {name.replace("_", "-"): value for name, value in ctx.params.items()}
        # here, since this imports what trains
        from experiments.command.running import run_command

        run_command(self.command, given)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in the configuration's sections, and those that every command has."""
        records = {str(param.name).replace("_", "-"): param.get_help_record(ctx) for param in self.get_params(ctx)}
        for heading, names in self.command.configuration.sections().items():
            _section(formatter, heading, [records.pop(name) for name in names])
        _section(formatter, "General", records.values())


def _section(formatter: click.HelpFormatter, heading: str, records: Iterable[tuple[str, str] | None]) -> None:
    with formatter.section(heading):
        formatter.write_dl([record for record in records if record is not None])


def _option(kind: type[Configuration], name: str) -> click.Option:
    """Return an option of the command line for one of a configuration; it stays None where it is not typed."""
    field = kind.model_fields[name.replace("-", "_")]
    value_type, several = _type_of(field.annotation)
    default = field.default
    flag = isinstance(default, bool)
    shown = "" if flag or default in (None, ()) else _words(default, kind.between(name))
    return click.Option(
        [f"--{name}/--{opposite(name)}" if flag else f"--{name}", name.replace("-", "_")],
        type=None if flag else value_type,
        default=None,
        callback=partial(_separated, kind.between(name)) if several else None,
        metavar=f"NAME{kind.between(name)}..." if several else None,
        help=f"{field.description}  [default: {shown}]" if shown else field.description,
    )


def _words(value: object, separator: str) -> str:
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _type_of(annotation: Any) -> tuple[click.ParamType[Any] | type, bool]:
    """Return a field's type for the command line, and whether it takes several values, separated by commas."""
    if NoneType in get_args(annotation):
        (annotation,) = (one for one in get_args(annotation) if one is not NoneType)
    if get_origin(annotation) is tuple:
        return str, True
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), False
    return (annotation if annotation in (int, float) else str), False


def _separated(
    separator: str, context: click.Context, param: click.Parameter, text: str | None
) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(separator) if part.strip()]
