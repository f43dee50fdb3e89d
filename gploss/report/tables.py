"""Tables and records of a run.

Rewards are read in the metric's own unit; ``higher_is_better`` says which end is the good one.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from gploss.report.trajectories import quantiles, require_columns, trained_rows

_VERSIONED = ("numpy", "torch", "numba", "pandas", "gploss")
_LONG_CELL = 32  # characters
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
            "best formula": str(row["best_formula"]) or "none",
        }
        for row in frame.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _numeric(frame: pd.DataFrame) -> list[bool]:
    """Tell which columns hold numbers, as numbers or as texts of numbers."""
    texts = [[_cell(value) for value in frame.iloc[:, place]] for place in range(frame.shape[1])]
    return [bool(column) and all(_is_number(text) for text in column) for column in texts]


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "") or "nan")
    except ValueError:
        return text == "none"
    return True


def to_markdown(frame: pd.DataFrame) -> str:
    r"""Write a table as GitHub-flavoured Markdown, without its index.

    Pipes and backslashes are escaped, line breaks become ``<br>``, missing values are empty, floats have six
    significant digits, and columns of numbers are aligned to the right.

    Args:
        frame: any table with at least one column.

    Returns:
        The table, ending in a newline.

    Raises:
        ValueError: the table has no column.

    Example:
        >>> print(to_markdown(pd.DataFrame({"loss": ["a|b"], "AUC": [0.8125]})), end="")
        | loss | AUC |
        | --- | ---: |
        | a\|b | 0.8125 |
    """
    if not len(frame.columns):
        raise ValueError("a Markdown table needs at least one column; this one has none")

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def escape(text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace("|", "\\|")
        return escaped.replace("\r\n", "<br>").replace("\n", "<br>").replace("\r", "<br>")

    lines = [
        line([escape(str(name)) for name in frame.columns]),
        line(["---:" if numeric else "---" for numeric in _numeric(frame)]),
    ]
    rows = frame.itertuples(index=False, name=None)
    lines += [line([escape(_cell(value)) for value in row]) for row in rows]
    return "\n".join(lines) + "\n"


def to_rich_table(frame: pd.DataFrame, title: str | None = None) -> TerminalTable:
    """Make a table for the terminal.

    Columns of long texts, such as formulas, would leave no room for the others in a window of usual width: they
    are listed below the table instead, a line a row, led by the row's first cell.

    Args:
        frame: any table; its index is left out.
        title: printed above it.

    Returns:
        What ``rich.console.Console.print`` takes; texts are taken literally, never as markup.
    """
    columns = [
        [str(name), *(_cell(value) for value in frame.iloc[:, place])] for place, name in enumerate(frame.columns)
    ]
    return TerminalTable(columns, _numeric(frame), title)


@dataclass(frozen=True)
class TerminalTable:
    """A table that fits the window it is printed in, as far as a column can be a character wide.

    Attributes:
        columns: for each column its heading and cells, as texts.
        numeric: for each column, whether it is aligned to the right.
        title: printed above the table.
    """

    columns: list[list[str]]
    numeric: list[bool]
    title: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, with column widths for the window's, and the long texts."""
        long = [place > 0 and max(map(len, cells[1:]), default=0) > _LONG_CELL for place, cells in self._numbered()]
        kept = [place for place, _ in self._numbered() if not long[place]]
        # rich shrinks columns without regard to words, so that numbers would break; a space is on either side
        widths = _fit([self.columns[place] for place in kept], options.max_width - 2 * len(kept))
        table = Table(
            title=Text(self.title) if self.title else None, title_justify="left", box=box.SIMPLE_HEAD,
            pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for place, width in zip(kept, widths, strict=True):
            justify: JustifyMethod = "right" if self.numeric[place] else "left"
            table.add_column(Text(self.columns[place][0]), justify=justify, overflow="fold", width=width)
        for row in list(zip(*(self.columns[place] for place in kept), strict=True))[1:]:
            table.add_row(*map(Text, row))
        yield table
        for place, cells in self._numbered():
            if long[place]:
                rows = zip(self.columns[0][1:], cells[1:], strict=True)
                yield Text("\n".join([f"{cells[0]}:", *(f"  {first}: {cell}" for first, cell in rows)]))

    def _numbered(self) -> list[tuple[int, list[str]]]:
        return list(enumerate(self.columns))


def _fit(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return column widths that need no more than ``room``: whole cells, else whole words, else less."""
    whole = [max(1, *(cell_len(line) for cell in cells for line in cell.split("\n"))) for cells in columns]
    words = [max(1, *(cell_len(word) for word in " ".join(cells).split())) for cells in columns]
    widths = [1] * len(columns)
    for wanted in (words, whole):
        while sum(widths) < room and widths != wanted:
            # the narrowest of those that lack something: short words are whole before long ones grow
            short = [place for place, width in enumerate(widths) if width < wanted[place]]
            widths[min(short, key=lambda place: widths[place])] += 1
    return widths


def environment(device: str = "cpu", seed: int | None = None) -> dict[str, str | int | None]:
    """Record what a run's figures depend on besides its settings.

    Args:
        device: where training ran, such as "cpu", "cuda" or "cuda:1".
        seed: the experiment's seed, where there is one.

    Returns:
        JSON values: python, platform, the versions of numpy, torch, numba, pandas and gploss ("not installed"
        for a package that runs from a source folder), cpu (its name), cores (those this process may use),
        device (with the GPU's name), seed.
    """
    record: dict[str, str | int | None] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _VERSIONED:
        record[package] = _version(package)
    record["cpu"] = _cpu_name()
    record["cores"] = _cores()
    record["device"] = _device_name(device)
    record["seed"] = seed
    return record


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_name(device: str) -> str:
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return device
