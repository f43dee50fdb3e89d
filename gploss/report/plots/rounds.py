"""The figure of an alternating search: how the recommender learns while the searcher does."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gploss.report.plots.layout import (
    by_searcher,
    empty_axes,
    legend_above,
    line_styles,
    new_figure,
    plain_axes,
    space_above,
)
from gploss.report.trajectories import require_columns

_WIDTH, _PANEL = 8.0, 3.6  # inches


def rounds(history: pd.DataFrame, metric: str = "validation value") -> Figure:
    """Draw the recommender's metric after each round of alternating search against what has been trained.

    A marker shows a round with a loss that was good enough for the recommender to be trained with; after the others
    its weights stayed.

    Args:
        history: a row a round: searcher, seed, round (from 0), trained (candidates), start and end (the metric
            before and after it), and loss (missing where the weights stayed).
        metric: what is measured.

    Returns:
        A figure of one panel.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(history, ("searcher", "seed", "round", "trained", "start", "end", "loss"), "rounds")
    groups = by_searcher(history)
    styles = line_styles(groups)
    top = space_above(_WIDTH, list(groups))
    height = top + _PANEL + 0.6
    figure = new_figure(
        _WIDTH, height, "The recommender learns while the searcher does",
        "a line a run; a marker where a loss was good enough to train the recommender with",
    )  # fmt: skip
    axes = figure.add_axes((0.85 / _WIDTH, 0.6 / height, (_WIDTH - 1.15) / _WIDTH, _PANEL / height))
    plain_axes(axes, x_label="trained candidates", y_label=metric)
    legend_above(
        figure,
        [
            Line2D(
                [], [], color=style.colour, linestyle=style.dashes, marker=style.marker, markersize=4, label=name
            )
            for name, style in styles.items()
        ],
    )
    if history.empty:
        empty_axes(axes, "No round was completed, so there is nothing to draw.")
        return figure
    for name, frame in groups.items():
        style = styles[name]
        for _, run in frame.groupby("seed", sort=False):
            ordered = run.sort_values("round")
            places = np.append(0, ordered["trained"].cumsum().to_numpy())
            values = np.append(ordered["start"].to_numpy()[:1], ordered["end"].to_numpy())
            axes.plot(places, values, color=style.colour, linestyle=style.dashes, linewidth=1.4, zorder=2)
            stepped = ordered["loss"].notna().to_numpy(dtype=bool)
            axes.plot(
                places[1:][stepped], values[1:][stepped], linestyle="none", marker=style.marker, markersize=3.5,
                color=style.colour, zorder=3,
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
