"""The figure of an ablation: what each variant of a search costs, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gploss.report.plots.layout import (
    BLUE,
    INK,
    PALE,
    TEXT_SIZE,
    VERMILION,
    empty_axes,
    new_figure,
    plain_axes,
    text_width,
)
from gploss.report.trajectories import require_columns

_PANEL, _ROW = 2.9, 0.42  # inches


def ablation(runs: pd.DataFrame, measures: Mapping[str, str], title: str, subtitle: str = "") -> Figure:
    """Draw measures of several variants side by side: a dot a run, a line at the median.

    Args:
        runs: a row a run: variant, and a column of numbers for each measure.
        measures: labels of the axes by column name.
        title: of the figure.
        subtitle: below it.

    Returns:
        A figure with a panel a measure; variants in the order of their first rows.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(runs, ("variant", *measures), "ablation")
    variants = [str(name) for name in pd.unique(runs["variant"])]
    probe = new_figure(1.0, 1.0, "")
    left = 0.3 + max((text_width(probe, name, TEXT_SIZE) for name in variants), default=1.0)
    width = left + (_PANEL + 0.25) * max(len(measures), 1) + 0.1
    height = 1.5 + _ROW * max(len(variants), 1)
    figure = new_figure(width, height, title, subtitle)
    for place, (column, label) in enumerate(measures.items()):
        start = (left + place * (_PANEL + 0.25)) / width
        axes = figure.add_axes((start, 0.6 / height, _PANEL / width, _ROW * max(len(variants), 1) / height))
        plain_axes(axes, x_label=label)
        if runs.empty:
            empty_axes(axes, "No run was made.")
            continue
        axes.grid(axis="x", color=PALE, linewidth=0.6)
        for row, variant in enumerate(variants):
            values = runs.loc[runs["variant"] == variant, column].to_numpy(dtype=np.float64)
            values = values[np.isfinite(values)]
            colour = VERMILION if row == 0 else BLUE
            axes.plot(values, np.full(len(values), row), "o", color=colour, markersize=4.5, alpha=0.7)
            if len(values):
                axes.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.6)
        axes.set_ylim(len(variants) - 0.5, -0.5)
        axes.set_yticks(range(len(variants)), variants if place == 0 else [""] * len(variants))
        axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    return figure
