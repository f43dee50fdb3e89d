"""How sure a difference is: users and seeds drawn again and again, losses compared on the same draws.

Users are drawn with all of their rows, since the rows of one user are not independent; seeds are drawn with them,
so that an interval covers what another test part *and* another training would have given. Both draws are the same
for all losses: differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from recmodels.metrics.resampling import Counts

Floats = npt.NDArray[np.float64]

#: An interval leaves this out, half at each end; a loss is called better where its corrected p-value is below it.
LEVEL: Final = 0.05

#: With which a difference of the size `Gain.detectable` would be found.
POWER: Final = 0.8

_COUNTS_AT_A_TIME: Final = 2**26
_UNITS, _SEEDS = 0, 1  # purposes of random numbers, beside the seed


@dataclass(frozen=True)
class Gain:
    """By how much a loss is better than the baseline; negative where it is worse, whatever the metric's direction.

    Attributes:
        mean: over seeds, on the test part as it is.
        low: lower end of the 95% bootstrap interval (percentiles).
        high: its upper end.
        p_value: two-sided bootstrap p-value of no difference, at least 2 / resamples, not corrected.
        error: standard deviation over the resamples.
    """

    mean: float
    low: float
    high: float
    p_value: float
    error: float

    def detectable(self, tests: int) -> float:
        """Return the smallest true gain that such an experiment finds four times out of five.

        That is (z of the level + z of the power) standard errors, for a two-sided test at the 5% level that is
        corrected for `tests` comparisons (Bonferroni's, which is the first step of Holm's).
        """
        normal = NormalDist()
        return (normal.inv_cdf(1 - LEVEL / (2 * max(tests, 1))) + normal.inv_cdf(POWER)) * self.error


def draw_units(n_units: int, resamples: range, seed: int) -> Counts:
    """Draw as many units as there are, with replacement.

    Args:
        n_units: U, the users of a part (its rows, where it has no users).
        resamples: numbers of R resamples; each is the same in whatever range it lies.
        seed: of the draws.

    Returns:
        (U, R) how often each was drawn.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 8.3: what is independent is drawn.
    """
    counts = np.empty((n_units, len(resamples)), np.uint8)
    for column, resample in enumerate(resamples):
        drawn = np.random.default_rng([seed, _UNITS, resample]).integers(n_units, size=n_units)
        # uint8: how often a unit is drawn is binomial with mean 1, and 255 is out of reach
        counts[:, column] = np.bincount(drawn, minlength=n_units)
    return counts


def parts(n_units: int, resamples: int) -> Iterator[range]:
    """Yield the numbers of all resamples, as many at a time as have room in memory (64 MiB of counts)."""
    size = max(1, _COUNTS_AT_A_TIME // n_units)
    for first in range(0, resamples, size):
        yield range(first, min(first + size, resamples))


def draw_seeds(n_seeds: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw S of S seeds, R times: (R, S) of their numbers."""
    return np.random.default_rng([seed, _SEEDS]).integers(n_seeds, size=(resamples, n_seeds))


def gains(plain: Floats, resampled: Floats, seeds: npt.NDArray[np.int64], *, higher_is_better: bool) -> list[Gain]:
    """Compare K losses with the first of them.

    Args:
        plain: (K, S) the metric on the test part, by loss and seed.
        resampled: (K, S, R) the same in each resample of the units; a resample in which one is NaN is left out.
        seeds: (R, S) from `draw_seeds`.
        higher_is_better: the metric's direction.

    Returns:
        K gains; the first is zero.

    Raises:
        ValueError: the metric is defined in none of the resamples.
    """
    sign = 1.0 if higher_is_better else -1.0
    rows = np.arange(len(seeds))[:, None]
    means = np.stack([own.T[rows, seeds].mean(axis=1) for own in resampled])  # (K, R): over the seeds drawn
    means = means[:, np.isfinite(means).all(axis=0)]
    if not means.shape[1]:
        raise ValueError(
            "the metric is not defined in any resample of the test part, so nothing can be compared with it; "
            "a larger test part or another metric is needed"
        )
    centre = plain.mean(axis=1)
    # 0.0 added, so that no difference is not -0.0
    return [
        _gain(sign * float(centre[k] - centre[0]) + 0.0, sign * (means[k] - means[0]) + 0.0)
        for k in range(len(plain))
    ]


def _gain(mean: float, drawn: Floats) -> Gain:
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    tail = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    p_value = min(1.0, 2 * max(tail, 1 / len(drawn)))
    return Gain(mean, float(low), float(high), p_value, float(drawn.std()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of several tests; NaN stays and does not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted((k for k, p in enumerate(p_values) if p == p), key=lambda k: p_values[k])
    corrected = list(p_values)
    largest = 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, p_values[k] * (len(order) - place)))
        corrected[k] = largest
    return corrected
