"""Where the best settings of a loss are looked for: a box, filled evenly, then moved to the best one and widened.

Places are counted in steps: doublings for a setting that is walked by factors, else eighths of its first range. A
learning rate of twice the default lies at 1, of half at -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.setting import Setting

Floats = npt.NDArray[np.float64]

#: How often the range of a setting may grow by one step.
GROWTHS: Final = 8

#: A best place so near to an end of the range lies on its edge. The box around the best place has this radius, and
#: goes on to an end of the range that is less than twice as far away: one that was just moved.
_NEAR: Final = 1.0

_PRIMES: Final = (2, 3, 5, 7, 11, 13, 17, 19)


class Ranges:
    """The ranges of one loss's settings, which grow where the best settings lie on their edge.

    Args:
        settings: the D settings that are tuned, by name.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = list(settings.values())
        self._names = list(settings)
        self._low = np.array([place_of(one, one.low) for one in self._settings])
        self._high = np.array([place_of(one, one.high) for one in self._settings])
        self._left = np.full(len(self._names), GROWTHS)

    def spread(self, count: int) -> Floats:
        """Return (count, D) places that fill the whole box: the defaults, then those of `even_points`.

        A default of 0 that is walked by factors has no place; the middle of the range stands for it.
        """
        points = self._low + even_points(0, count - 1, len(self._names)) * (self._high - self._low)
        return np.concatenate([np.zeros((1, len(self._names))), points])

    def around(self, best: Floats, first: int, count: int) -> Floats:
        """Return (count, D) places around the best, inside of the ranges.

        Args:
            best: (D,) the best place.
            first: number of the first point of the sequence: points of two rounds differ.
            count: how many.
        """
        low = np.where(best - self._low < 2 * _NEAR, self._low, best - _NEAR)
        high = np.where(self._high - best < 2 * _NEAR, self._high, best + _NEAR)
        places: Floats = low + even_points(first, count, len(self._names)) * (high - low)
        return places

    def widen(self, best: Floats) -> bool:
        """Move each end that the best is near to by one step; tell whether there was one that may be moved."""
        below, above = self._near(best)
        below &= [value_at(one, low) > one.least for one, low in zip(self._settings, self._low, strict=True)]
        above &= [value_at(one, high) < one.most for one, high in zip(self._settings, self._high, strict=True)]
        may = self._left > 0
        self._low[below & may] -= 1
        self._high[above & may] += 1
        moved = (below | above) & may
        self._left[moved] -= 1
        return bool(moved.any())

    def on_edge(self, best: Floats) -> tuple[str, ...]:
        """Return the names of the settings whose best value lies at an end of its range."""
        below, above = self._near(best)
        return tuple(name for name, near in zip(self._names, below | above, strict=True) if near)

    def values(self, place: Floats) -> dict[str, float]:
        """Return the values of the settings at a place (D,)."""
        rows = zip(self._names, self._settings, place.tolist(), strict=True)
        return {name: value_at(setting, own) for name, setting, own in rows}

    def _near(self, best: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        return best - self._low < _NEAR, self._high - best < _NEAR


def place_of(setting: Setting, value: float) -> float:
    """Return where a value of a setting lies, in steps from its default."""
    if setting.scale == "linear":
        return (value - setting.default) / _linear_step(setting)
    return math.log2(value / _origin(setting))


def value_at(setting: Setting, place: float) -> float:
    """Return the value of a setting at a place, inside of what makes sense."""
    if setting.scale == "linear":
        value = setting.default + place * _linear_step(setting)
    else:
        value = _origin(setting) * 2.0**place
    value = float(round(value)) if setting.scale == "whole" else value
    return min(setting.most, max(setting.least, value))


def _linear_step(setting: Setting) -> float:
    return (setting.high - setting.low) / 8


def _origin(setting: Setting) -> float:
    """Return the default, or the middle of the range for a default that factors cannot reach."""
    return setting.default if setting.default > 0 else math.sqrt(setting.low * setting.high)


def even_points(first: int, count: int, dimensions: int) -> Floats:
    """Return points of a sequence that fills the unit cube evenly, however many are taken: (count, dimensions).

    Args:
        first: number of the first point, from 0.
        count: how many points.
        dimensions: of the cube, at most 8.

    Source: Halton, On the efficiency of certain quasi-random sequences, 1960: digits of the number, mirrored at the
    point, in a prime base for each dimension.
    """
    points = np.zeros((count, dimensions))
    for dimension, base in zip(range(dimensions), _PRIMES, strict=False):
        rest, digit = np.arange(first + 1, first + count + 1), 1.0
        while rest.any():
            digit /= base
            points[:, dimension] += digit * (rest % base)
            rest //= base
    return points
