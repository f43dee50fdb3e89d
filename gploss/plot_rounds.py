"""The figure of an alternating search: how the recommender learns while the searcher does."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gploss.plot_layout import (
    by_searcher,
    empty_axes,
    legend_above,
    line_styles,
    new_figure,
    plain_axes,
    space_above,
)
from gploss.trajectories import require_columns

_WIDTH, _PANEL = 8.0, 3.6  # inches


def rounds(history: pd.DataFrame, metric: str = "validation AUC") -> Figure:
    """Draw the recommender's metric after each round of alternating search, a line a run.

    A hollow marker shows a round after which the weights stayed, because no loss would do.

    Args:
        history: a row a round: searcher, seed, round (from 0), start and end (the metric before and after it), and
            loss (missing where the weights stayed).
        metric: what is measured.

    Returns:
        A figure of one panel.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(history, ("searcher", "seed", "round", "start", "end", "loss"), "rounds")
    groups = by_searcher(history)
    styles = line_styles(groups)
    top = space_above(_WIDTH, list(groups))
    height = top + _PANEL + 0.6
    figure = new_figure(
        _WIDTH, height, "The recommender learns while the searcher does",
        "a line a run; hollow: a round in which no loss would do, so the weights stayed",
    )  # fmt: skip
    axes = figure.add_axes((0.85 / _WIDTH, 0.6 / height, (_WIDTH - 1.15) / _WIDTH, _PANEL / height))
    plain_axes(axes, x_label="rounds of the search", y_label=metric)
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
            places = np.arange(len(ordered) + 1)
            values = np.append(ordered["start"].to_numpy()[:1], ordered["end"].to_numpy())
            axes.plot(places, values, color=style.colour, linestyle=style.dashes, linewidth=1.4, zorder=2)
            stayed = ordered["loss"].isna().to_numpy(dtype=bool)
            for shown, face in ((~stayed, style.colour), (stayed, "white")):
                axes.plot(
                    places[1:][shown], values[1:][shown], linestyle="none", marker=style.marker, markersize=4,
                    markeredgecolor=style.colour, markerfacecolor=face, zorder=3,
                )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
