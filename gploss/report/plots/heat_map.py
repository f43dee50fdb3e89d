"""The figure of transfer: what losses found in one place are worth in another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm, to_hex
from matplotlib.figure import Figure

from gploss.report.plots.layout import (
    GREY,
    PALE,
    SMALL_SIZE,
    TEXT_SIZE,
    empty_axes,
    new_figure,
    readable_on,
    text_width,
)
from gploss.report.trajectories import require_columns

_CELL_WIDTH, _CELL_HEIGHT = 1.35, 0.62  # inches


def heat_map(differences: pd.DataFrame, what: str = "test value") -> Figure:
    """Draw differences to a baseline as a map, a row a source and a column a target, with their intervals.

    Blue is better than the baseline, red worse. Bold where the interval leaves out 0.

    Args:
        differences: columns source, target, difference, low and high (ends of the interval); a pair that is
            missing is left empty.
        what: the metric.

    Returns:
        A figure of one panel; rows and columns in the order of their first rows in the table.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(differences, ("source", "target", "difference", "low", "high"), "heat map")
    sources = [str(name) for name in pd.unique(differences["source"])]
    targets = [str(name) for name in pd.unique(differences["target"])]
    probe = new_figure(1.0, 1.0, "")
    left = 0.45 + max((text_width(probe, name, TEXT_SIZE) for name in sources), default=1.0)
    width = max(left + _CELL_WIDTH * max(len(targets), 1) + 0.3, 8.0)
    height = 1.5 + _CELL_HEIGHT * max(len(sources), 1)
    figure = new_figure(
        width, height, "What a found loss is worth elsewhere",
        f"{what}, difference to the column's best tuned hand-made loss, with its 95% interval; bold: without 0",
    )  # fmt: skip
    panel = (left / width, 0.2 / height, _CELL_WIDTH * len(targets) / width, _CELL_HEIGHT * len(sources) / height)
    if differences.empty:
        empty_axes(figure.add_axes((0.1, 0.1, 0.8, 0.5)), "No loss was tried, so there is nothing to draw.")
        return figure
    axes = figure.add_axes(panel)
    values = np.full((len(sources), len(targets)), np.nan)
    for row in differences.to_dict("records"):
        values[sources.index(str(row["source"])), targets.index(str(row["target"]))] = row["difference"]
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(known.max()) if len(known) else 0.0, 1e-6)
    image = axes.imshow(values, cmap="RdBu", norm=TwoSlopeNorm(0.0, -reach, reach), aspect="auto")
    for row in differences.to_dict("records"):
        if not np.isfinite(row["difference"]):
            continue
        significant = row["low"] > 0 or row["high"] < 0
        axes.text(
            targets.index(str(row["target"])), sources.index(str(row["source"])),
            f"{row['difference']:+.4f}\n{row['low']:+.4f} to {row['high']:+.4f}", ha="center", va="center",
            fontsize=SMALL_SIZE - 0.5, color=readable_on(to_hex(tuple(image.to_rgba(row["difference"])))),
            weight="bold" if significant else "normal",
        )  # fmt: skip
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(sources)), sources)
    axes.tick_params(length=0, labelsize=TEXT_SIZE - 1)
    axes.set_ylabel("found on", color=GREY, fontsize=TEXT_SIZE)
    for spine in axes.spines.values():
        spine.set_color(PALE)
    return figure
