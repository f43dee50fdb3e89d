"""A race of settings for each of several losses: many begin, the better half of them is trained on, and again.

All losses are given the same first settings, epochs and rules. First the ranges are filled evenly; then settings
around the best one are tried, with its range widened where it lies near an end, until it lies inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.setting import Setting
from recmodels.verdict.ranges import Ranges

#: Settings that fill the ranges at first, and those around the best one in every round after that.
FIRST: Final = 16
MORE: Final = 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """A loss with settings.

    Attributes:
        loss: number of the loss.
        settings: values by name.
    """

    loss: int
    settings: Mapping[str, float]


#: Trains trials until so many epochs in all, going on where it can; returns what each is worth: more is better, and
#: minus infinity for one that diverged.
Measure = Callable[[Sequence[Trial], int], Sequence[float]]


@dataclass(frozen=True)
class Best:
    """What came out for a loss.

    Attributes:
        settings: the best values by name.
        value: what they are worth after all epochs; minus infinity where no settings can train the loss.
        tried: how many settings began.
        on_edge: names of settings whose best value lies near an end of a range that may not grow any more.
    """

    settings: Mapping[str, float]
    value: float
    tried: int
    on_edge: tuple[str, ...]


def race(tuned: Sequence[Mapping[str, Setting]], measure: Measure, epochs: int) -> list[Best]:
    """Find the best settings of K losses.

    Args:
        tuned: for each loss the settings that are tuned, by name, with the ranges to begin with.
        measure: trains; the trials of all losses at once, since what is trained together costs less.
        epochs: of a training to its end.

    Returns:
        (K,) in the order of the losses.
    """
    ranges = [Ranges(own) for own in tuned]
    searches = [_search(own, epochs) for own in ranges]
    waiting = {loss: next(search) for loss, search in enumerate(searches)}
    found: dict[int, Best] = {}
    while waiting:
        until = min(asked for _, asked in waiting.values())  # all keep step, but for those that take a rung again
        now = {loss: places for loss, (places, asked) in waiting.items() if asked == until}
        trials = [Trial(loss, ranges[loss].values(place)) for loss, places in now.items() for place in places]
        values = iter(measure(trials, until))
        for loss, places in now.items():
            try:
                waiting[loss] = searches[loss].send(np.array([next(values) for _ in places]))
            except StopIteration as end:
                found[loss] = end.value
                del waiting[loss]
    return [found[loss] for loss in range(len(tuned))]


def rungs(epochs: int) -> list[int]:
    """Return after how many epochs half of the settings are dropped; the last number is the epochs themselves.

    Example:
        >>> rungs(10), rungs(1)
        ([3, 5, 10], [1])
    """
    return sorted({math.ceil(epochs / 4), math.ceil(epochs / 2), epochs})


#: Asks what (n, D) places are worth after so many epochs, and is told (n,) values.
_Asking = tuple[Floats, int]


def _search(ranges: Ranges, epochs: int) -> Generator[_Asking, Floats, Best]:
    """Fill the ranges, then look around the best until it lies inside."""
    best, value = yield from _halve(ranges.spread(FIRST), epochs)
    tried = FIRST
    while value > -math.inf and (ranges.widen(best) or tried == FIRST):
        other, other_value = yield from _halve(ranges.around(best, tried, MORE), epochs)
        tried += MORE
        if other_value > value:
            best, value = other, other_value
    return Best(ranges.values(best), value, tried, ranges.on_edge(best))


def _halve(places: Floats, epochs: int) -> Generator[_Asking, Floats, tuple[Floats, float]]:
    """Train some places for longer and longer, half of them less each time; return the best one and its value.

    Where all that are left diverge, those that were dropped last come back.
    """
    dropped = places[:0]
    for until in rungs(epochs):
        values = yield places, until
        while len(dropped) and not np.isfinite(values).any():
            places, dropped = dropped[: len(places)], dropped[len(places) :]
            values = yield places, until
        order = np.argsort(-values, kind="stable")
        places, values = places[order], values[order]
        sound = int(np.isfinite(values).sum())
        if not sound:
            break
        if until < epochs:
            kept = min((len(places) + 1) // 2, sound)
            dropped = np.concatenate([places[kept:sound], dropped])
            places = places[:kept]
    return places[0], float(values[0])
