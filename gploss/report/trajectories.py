"""Best reward so far: one step function a run, and its median and quartiles over the runs of a searcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def require_columns(frame: pd.DataFrame, columns: Sequence[str], user: str) -> None:
    """Check that a frame has the columns that a function reads.

    Args:
        frame: any table.
        columns: the names needed.
        user: who reads it, as it appears in the message.

    Raises:
        ValueError: columns are missing; the message names them and those present.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        present = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(f"{user} needs the columns {', '.join(missing)}; the table has: {present}")


def trained_rows(evaluations: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows are trained candidates with a finite reward, from the cache or not.

    Args:
        evaluations: N rows with the columns status and reward.

    Returns:
        A mask of shape (N,).
    """
    status = evaluations["status"].astype(str).str.lower().to_numpy()
    rewards = pd.to_numeric(evaluations["reward"]).to_numpy(dtype=np.float64, na_value=np.nan)
    mask: NDArray[np.bool_] = (status == "trained") & np.isfinite(rewards)
    return mask


def quantiles(values: ArrayLike, probabilities: Sequence[float]) -> NDArray[np.float64]:
    """Return quantiles over the first axis, where -inf stands for "nothing found yet".

    A run that has found nothing counts as the worst, so it is not left out of the median.

    Args:
        values: shape (R, ...), higher is better; finite or -inf.
        probabilities: P numbers in [0, 1].

    Returns:
        Shape (P, ...), with NaN where a quantile falls on (or next to) a run that has found nothing.
    """
    with np.errstate(invalid="ignore"):
        result = np.asarray(np.quantile(np.asarray(values, dtype=np.float64), probabilities, axis=0))
    return np.where(np.isfinite(result), result, np.nan)


@dataclass(frozen=True)
class Trajectory:
    """The best reward so far of one run, as a step function.

    Attributes:
        positions: shape (N,), rising; where the best changed, in trained candidates or seconds.
        best: shape (N,), the best from there on; higher is better.
        end: where the run ended.
    """

    positions: Array
    best: Array
    end: float

    def at(self, grid: Array) -> Array:
        """Return the best so far at each of G places, -inf before the first; it stays after the run's end."""
        padded = np.concatenate([[-np.inf], self.best])
        values: Array = padded[np.searchsorted(self.positions, grid, side="right")]
        return values


@dataclass(frozen=True)
class Band:
    """Median and quartiles over runs on a common grid; step functions, each value holds up to the next place.

    Attributes:
        positions: shape (G,), rising; the places where any run changed, and the last end.
        low: shape (G,), lower quartile; NaN where too few runs have found anything, as in the others.
        median: shape (G,).
        high: shape (G,), upper quartile.
    """

    positions: Array
    low: Array
    median: Array
    high: Array

    @property
    def empty(self) -> bool:
        """Whether fewer than half of the runs have found anything up to the end."""
        return not np.isfinite(self.median).any()


def trajectories(evaluations: pd.DataFrame, column: str, sign: float = 1.0) -> list[Trajectory]:
    """Return the best so far of each run of one searcher.

    Args:
        evaluations: the searcher's rows with the columns seed, step, status, reward and ``column``.
        column: where along a run: "candidate" (running number of charged candidates) or "elapsed" (seconds).
        sign: 1 where higher rewards are better, -1 where lower ones are.

    Returns:
        A trajectory a seed, in the order of their first rows, of ``sign`` times the reward.
    """
    result = []
    for _, run in evaluations.groupby("seed", sort=False):
        ordered = run.sort_values("step", kind="stable")
        # a resumed run's clock may step back a little: the best so far must not
        places = np.maximum.accumulate(ordered[column].to_numpy(dtype=np.float64))
        mask = trained_rows(ordered)
        best = np.maximum.accumulate(sign * ordered["reward"][mask].to_numpy(dtype=np.float64))
        better = np.diff(best, prepend=-np.inf) > 0
        result.append(Trajectory(places[mask][better], best[better], float(places[-1])))
    return result


def band(runs: Sequence[Trajectory]) -> Band:
    """Summarise the runs of one searcher; a run that ended earlier keeps its best.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("a median needs at least one run")
    changes = [run.positions for run in runs]
    grid = np.unique(np.concatenate([*changes, [max(run.end for run in runs)]]))
    low, median, high = quantiles(np.stack([run.at(grid) for run in runs]), (0.25, 0.5, 0.75))
    return Band(grid, low, median, high)


def numbered(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column candidate: within its run, how many candidates were charged so far.

    Args:
        evaluations: rows with searcher, seed, step and status. A column candidate that is there is kept.
    """
    if "candidate" in evaluations.columns:
        return evaluations
    evaluations = evaluations.reset_index(drop=True)  # tables that were joined may repeat their index
    ordered = evaluations.sort_values("step", kind="stable")
    charged = ordered["status"].astype(str).str.lower().isin(["trained", "diverged"]).astype(int)
    count = charged.groupby([ordered["searcher"].astype(str), ordered["seed"]]).cumsum()
    return evaluations.assign(candidate=count.reindex(evaluations.index))
