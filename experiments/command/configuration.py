"""A command's configuration: read from a file and from the command line by one strict table, and written back."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

#: Of a configuration file. TOML's reader takes a time that grows with the square of what is nested.
_MOST_BYTES: Final = 1 << 14

#: Characters of a value or a problem that a message shows.
_LONGEST: Final = 600


class ConfigurationError(ValueError):
    """A configuration cannot be used; the message names place, option and remedy."""


class Configuration(BaseModel):
    """What is asked of a command: a field an option, with its default; `experiments.command.options` has the types.

    Fields are named as options are, with underscores for dashes. In files and messages they have their dashes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def of(cls, given: Mapping[str, Any], places: Mapping[str, str] | None = None) -> Self:
        """Check values, and fill in defaults.

        Args:
            given: values by the names of options, as JSON has them (a path is text, a tuple a list).
            places: for each option, where it was given, for messages; by default the option's own name.

        Raises:
            ConfigurationError: an option is unknown, or a value is none of its kind.
        """
        places = places or {}
        for name in given:
            if name not in cls.options():
                raise ConfigurationError(
                    f"{places.get(name, f'--{name}')}: no option is named {_short(repr(name))}{cls._nearest(name)}"
                )
        for name, value in given.items():
            problem = _unwritable(value)
            if problem is not None:
                raise ConfigurationError(f"{places.get(name, f'--{name}')}: {name} {problem}")
        fields = {name.replace("-", "_"): value for name, value in given.items()}
        try:
            return cls.model_validate_json(json.dumps(fields, default=str))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]).replace("_", "-")
            place, problem = (
                places.get(name, f"--{name}"),
                re.sub("^Value error, ", "", first["msg"]).replace("Input should", "it should", 1),
            )
            value = json.dumps(given[name], default=str)
            raise ConfigurationError(f"{place}: {name} is {_short(value)}; {_short(problem)}") from error

    @classmethod
    def sections(cls) -> dict[str, list[str]]:
        """Return the names of options by the classes that declare them, the command's own first."""
        found: dict[str, list[str]] = {}
        for kind in cls.__mro__:
            heading = "Options" if kind is cls else (kind.__doc__ or "").partition(".")[0]
            own = [
                name.replace("_", "-") for name in vars(kind).get("__annotations__", ()) if name in cls.model_fields
            ]
            known = {name for names in found.values() for name in names}
            found[heading] = [name for name in own if name not in known]
        return {heading: names for heading, names in found.items() if names}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Return the names of all options, with dashes."""
        return tuple(name for names in cls.sections().values() for name in names)

    @classmethod
    def between(cls, name: str) -> str:
        """Return what separates the values of an option that takes several."""
        extra = cls.model_fields[name.replace("-", "_")].json_schema_extra
        return str(extra["separator"]) if isinstance(extra, dict) else ","

    @classmethod
    def _nearest(cls, name: str) -> str:
        near = get_close_matches(name.replace("_", "-"), cls.options(), n=1)
        return f"; the nearest one is {near[0]!r}" if near else f"; options: {', '.join(cls.options())}"

    def values(self) -> dict[str, Any]:
        """Return all values by the names of options, as JSON has them."""
        values = self.model_dump(mode="json")
        return {name: values[name.replace("-", "_")] for name in self.options()}

    def as_toml(self) -> str:
        """Return the text of a file that says the same, each option below its meaning."""
        lines = []
        for name, value in self.values().items():
            lines.append(f"# {type(self).model_fields[name.replace('-', '_')].description}")
            lines.append(f"# {name} =" if value is None else f"{name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def as_words(self) -> str:
        """Return what to type after the command's name for the same again: all that is not a default."""
        words = []
        defaults = type(self)().values()
        for name, value in self.values().items():
            if value == defaults[name]:
                continue
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--{opposite(name)}")
            else:
                text = self.between(name).join(value) if isinstance(value, list) else str(value)
                words += [f"--{name}", shlex.quote(text)]
        return " ".join(words)


def _unwritable(value: Any) -> str | None:
    """Return why a value cannot be written into the run's files, or be a file's name, if so."""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, str) and "\0" in part for part in parts):
        return f"is {_short(repr(value))}, with a character that no name has: give another name"
    try:
        json.dumps(value, default=str, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return f"is {_short(repr(value))}, which is not in UTF-8: give another name"
    except ValueError:
        return f"is {value!r}: give a finite number"
    except RecursionError:
        return "is nested too deeply: give a plain value"
    return None


def _short(text: str) -> str:
    """Return a text, or of a long one its two ends."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def opposite(flag: str) -> str:
    """Return the name that switches a flag off."""
    return flag.removeprefix("no-") if flag.startswith("no-") else f"no-{flag}"


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a configuration file: the values in it, and the place of each for messages.

    Raises:
        ConfigurationError: there is no such file, or it is not written in TOML.
    """
    # here, since help is told without what this imports
    from gploss.files.text import read_text

    try:
        text = read_text(path, most=_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: cannot be read as a configuration in TOML: {error}") from error
    return values, {name: f"{path}, line {_line_of(name, text)}" for name in values}


def _line_of(name: str, text: str) -> int:
    """Return the line, counted from 1, in which a key is first set; TOML's own reader does not tell."""
    key = re.compile(rf"\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(text.splitlines(), 1) if key.match(line)), 1)


def _toml(value: Any) -> str:
    """Return a value as TOML writes it: as JSON does, but for the one character that TOML wants escaped as well."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
