"""A comparison of searchers in one row each.

Rewards are read in the metric's own unit; ``higher_is_better`` says which end is the good one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gploss.report.formulas import readable
from gploss.report.trajectories import quantiles, require_columns, trained_rows

_SUMMARY_COLUMNS = ("searcher", "seed", "step", "expression", "status", "reward")


def summary(evaluations: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Condense the evaluations of several searchers and seeds to one row a searcher.

    Args:
        evaluations: a row a proposal, with the columns searcher, seed, step, expression, status, reward, and
            elapsed (seconds since the run's start) or seconds (for each proposal).
        higher_is_better: the metric's direction.

    Returns:
        Columns: searcher; seeds; trained_candidates, proposals and seconds (medians over the seeds);
        best_reward_median, best_reward_lower_quartile, best_reward_upper_quartile (over the seeds, of the best
        reward of each; NaN where too few seeds have trained anything); best_reward and best_formula over
        all seeds (the simpler one at equal reward, where there is a column complexity). Searchers are in
        the order of their first rows.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(evaluations, _SUMMARY_COLUMNS, "summary")
    if not {"elapsed", "seconds"} & set(evaluations.columns):
        require_columns(evaluations, ("elapsed",), "summary")
    sign = 1.0 if higher_is_better else -1.0
    names = [str(name) for name in pd.unique(evaluations["searcher"])]
    searchers = evaluations["searcher"].astype(str)
    rows = [_summary_row(name, evaluations[searchers == name], sign) for name in names]
    columns = [
        "searcher", "seeds", "trained_candidates", "proposals",
        "best_reward_median", "best_reward_lower_quartile", "best_reward_upper_quartile",
        "seconds", "best_reward", "best_formula",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _summary_row(name: str, frame: pd.DataFrame, sign: float) -> dict[str, object]:
    runs = [run for _, run in frame.groupby("seed", sort=False)]
    best = [sign * _best_row(run, sign)[0] for run in runs]
    # quantiles() wants higher to be better: the quartiles of the negated metric swap places
    low, middle, high = sign * quantiles(best, (0.25, 0.5, 0.75))
    if sign < 0:
        low, high = high, low
    reward, formula = _best_row(frame, sign)
    return {
        "searcher": name,
        "seeds": len(runs),
        "trained_candidates": float(np.median([trained_rows(run).sum() for run in runs])),
        "proposals": float(np.median([len(run) for run in runs])),
        "best_reward_median": middle,
        "best_reward_lower_quartile": low,
        "best_reward_upper_quartile": high,
        "seconds": float(np.median([_seconds(run) for run in runs])),
        "best_reward": reward if np.isfinite(reward) else np.nan,
        "best_formula": formula,
    }


def _best_row(frame: pd.DataFrame, sign: float) -> tuple[float, str]:
    """Return the best reward (the worst infinity where there is none) and its formula ("" where none)."""
    trained = frame[trained_rows(frame)]
    if trained.empty:
        return -sign * np.inf, ""
    signed = sign * trained["reward"].to_numpy(dtype=np.float64)
    best = np.flatnonzero(signed == signed.max())
    if "complexity" in trained.columns:
        complexity = trained["complexity"].to_numpy(dtype=np.float64, na_value=np.inf)
        best = best[np.argsort(complexity[best], kind="stable")]
    row = trained.iloc[int(best[0])]
    return float(row["reward"]), str(row["expression"])


def _seconds(run: pd.DataFrame) -> float:
    if "elapsed" in run.columns:
        return float(run["elapsed"].max())
    return float(run["seconds"].sum())


def readable_summary(frame: pd.DataFrame, metric: str = "reward", digits: int = 4) -> pd.DataFrame:
    """Turn a summary into texts for people: thousands separated, quartiles beside the median.

    Args:
        frame: what ``summary`` returned.
        metric: what the reward is, such as "validation AUC".
        digits: decimal places of rewards.

    Returns:
        A frame of texts. Numbers of candidates and proposals, seconds and the best reward are medians over seeds,
        the quartiles are of the best reward.
    """

    def number(value: float, places: int) -> str:
        return f"{value:,.{places}f}" if np.isfinite(value) else "none"

    def interval(low: float, high: float) -> str:
        if not (np.isfinite(low) or np.isfinite(high)):
            return "none"
        return f"{number(low, digits)} to {number(high, digits)}"

    rows = [
        {
            "searcher": str(row["searcher"]),
            "seeds": number(row["seeds"], 0),
            "trained": number(row["trained_candidates"], 0),
            "proposals": number(row["proposals"], 0),
            f"best {metric}": number(row["best_reward_median"], digits),
            "quartiles": interval(row["best_reward_lower_quartile"], row["best_reward_upper_quartile"]),
            "seconds": number(row["seconds"], 1),
            "best formula": readable(str(row["best_formula"])) or "none",
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(rows)
