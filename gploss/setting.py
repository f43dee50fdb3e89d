"""Settings: numbers that training and losses are tuned by, each declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Literal

from gploss.arguments import real_number, shown


@dataclass(frozen=True)
class Setting:
    """A number that may differ from member to member.

    Args:
        name: as members name it.
        default: what a member has that names no other.
        low: lower end of the range in which it is tuned at first.
        high: upper end of that range.
        scale: how the range is to be walked: by factors ("log"), by differences ("linear"), or by factors between
            whole numbers ("whole").
        least: values below this make no sense.
        most: nor do values above this.

    Raises:
        ValueError: an empty range, one that "log" or "whole" cannot walk, or values that make no sense.
    """

    name: str
    default: float
    low: float
    high: float
    scale: Literal["log", "linear", "whole"] = "log"
    least: float = 0.0
    most: float = math.inf

    def __post_init__(self) -> None:
        for name in ("default", "low", "high"):
            object.__setattr__(self, name, real_number(f"setting {self.name!r}: {name}", getattr(self, name)))
        walkable = self.least <= self.low < self.high <= self.most and (self.scale == "linear" or self.low > 0)
        if not walkable:
            raise ValueError(f"setting {self.name!r} cannot be tuned from {self.low:g} to {self.high:g}")
        self.check(self.default)

    def check(self, value: float) -> None:
        """Check a value of a member; it may lie outside of the range.

        Raises:
            TypeError: it is no number.
            ValueError: the value makes no sense.
        """
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{self.name} must be a number, got {shown(value)}")
        if not (math.isfinite(value) and self.least <= value <= self.most):
            limits = f"at least {self.least:g}" + (f" and at most {self.most:g}" if self.most < math.inf else "")
            raise ValueError(f"{self.name} is {value:g}; it must be a finite number of {limits}")
        if self.scale == "whole" and value != int(value):
            raise ValueError(f"{self.name} is {value:g}; it must be a whole number")


def complete(settings: Mapping[str, float], declared: Mapping[str, Setting]) -> dict[str, float]:
    """Return a value for every setting that is declared, by default its own.

    Args:
        settings: values by name.
        declared: all settings that there are, by name.

    Raises:
        TypeError: they are no mapping, or a value is no number.
        ValueError: a setting is unknown, or its value makes no sense.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(f'settings must be a dictionary, such as {{"learning_rate": 0.1}}, got {shown(settings)}')
    for name, value in settings.items():
        if name not in declared:
            near = get_close_matches(str(name), declared, n=1)
            hint = f"; is {near[0]} meant?" if near else ""
            raise ValueError(f"there is no setting {name!r}; there are {', '.join(declared)}{hint}")
        declared[name].check(value)
    return {name: float(settings.get(name, setting.default)) for name, setting in declared.items()}
