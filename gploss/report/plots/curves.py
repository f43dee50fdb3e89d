"""The figure of losses and their gradients against the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from gploss.report.plots.layout import (
    BASE_LOSS,
    BLACK,
    GREY,
    INK,
    PALE,
    TEXT_SIZE,
    LineStyle,
    empty_axes,
    line_styles,
    new_figure,
    plain_axes,
    shorten,
)

_LEGEND_STEP = 0.22  # inches from one line of the legend to the next

Array = NDArray[np.float64]
Curve = tuple[ArrayLike, ArrayLike, ArrayLike]
"""Scores, the loss's values there, and its gradients with respect to the score."""

Curves = Mapping[str, Curve]
"""One loss: a curve for each kind of example, by its name, such as "the label is 1"."""


def loss_curves(curves: Mapping[str, Curves]) -> Figure:
    """Draw losses and their gradients against the score, a column a kind of example.

    A loss is drawn minus its value at score 0, because a constant changes nothing in training. Curves that run
    far away from the others are cut at the panel's edge.

    Args:
        curves: by name of the loss, for each kind of example (the same kinds for all): scores, values and
            gradients, each of shape (G,). The name "bce" (in any case) is black and dashed; a name such as
            "genetic: sigmoid(s) * y" has the searcher's style.

    Returns:
        A figure of two panels a kind of example, and a legend with the names below them.

    Raises:
        ValueError: the arrays of a curve are not one-dimensional, or not of one length.
    """
    tables = {
        name: {kind: _curve_table(f"{name}, {kind}", curve) for kind, curve in own.items()}
        for name, own in curves.items()
    }
    kinds = list(dict.fromkeys(kind for own in tables.values() for kind in own))
    styles = _curve_styles(list(tables))
    columns = max(len(kinds), 1)
    figure = new_figure(
        0.7 + 5.15 * columns, 7.0 + _LEGEND_STEP * max(len(tables), 1), "What the best losses do to a score",
        "above: the loss; below: its gradient, which training follows downwards",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    below = 0.72 + _LEGEND_STEP * len(tables)
    panel_width, panel_height = 4.6, (height - below - 0.95 - 0.65) / 2
    for row, what in enumerate(("loss, minus its value at score 0", "gradient: d loss / d score")):
        bottom = below + (1 - row) * (panel_height + 0.65)
        for column in range(columns):
            kind = kinds[column] if kinds else ""
            start = 0.85 + column * (panel_width + 0.55)
            axes = figure.add_axes((start / width, bottom / height, panel_width / width, panel_height / height))
            plain_axes(
                axes, f"{'Gradient' if row else 'Loss'}{kind and f' where {kind}'}",
                "score (before the sigmoid)" if row else "", what if not column else "",
            )  # fmt: skip
            drawn = {name: own[kind] for name, own in tables.items() if kind in own}
            _draw_curves(axes, {name: (table[0], table[1 + row]) for name, table in drawn.items()}, styles)
    if tables:
        figure.legend(
            handles=[
                Line2D([], [], color=style.colour, linestyle=style.dashes, linewidth=2, label=shorten(name, 130))
                for name, style in styles.items()
            ],
            loc="lower left", bbox_to_anchor=(0.65 / width, 0.03 / height), ncols=1, frameon=False,
            fontsize=TEXT_SIZE - 0.5, labelcolor=INK, handlelength=3.2,
        )  # fmt: skip
    return figure


def _curve_table(name: str, curve: Curve) -> Array:
    """Return scores, values and gradients as one array of shape (3, G), values shifted to 0 at score 0."""
    arrays = [np.asarray(part, dtype=np.float64) for part in curve]
    shapes = {array.shape for array in arrays}
    if len(arrays) != 3 or len(shapes) != 1 or arrays[0].ndim != 1:
        found = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"the curve {name!r} needs three arrays of one length; their shapes are: {found}")
    table = np.stack(arrays)
    table[1:][~np.isfinite(table[1:])] = np.nan
    known = np.flatnonzero(np.isfinite(table[1]))
    if len(known):
        table[1] -= table[1, known[np.argmin(np.abs(table[0, known]))]]
    return table


def _curve_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    short = {name: name.partition(":")[0].strip() for name in names}
    unique = {name: text if list(short.values()).count(text) == 1 else name for name, text in short.items()}
    others = line_styles(text for name, text in unique.items() if name.lower() != BASE_LOSS)
    base = LineStyle(BLACK, (0.0, (4.0, 2.0)), "o")
    return {name: base if name.lower() == BASE_LOSS else others[unique[name]] for name in names}


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[Array, Array]], styles: Mapping[str, LineStyle]) -> None:
    drawn = {name: pair for name, pair in curves.items() if np.isfinite(pair[1]).any()}
    if not drawn:
        empty_axes(axes, "No loss has a finite value here, so there is nothing to draw.")
        return
    axes.axhline(0, color=GREY, linewidth=0.7, label="_zero")
    axes.axvline(0, color=PALE, linewidth=0.7, label="_zero")
    for name, (scores, values) in drawn.items():
        base = name.lower() == BASE_LOSS
        style = styles[name]
        axes.plot(
            scores, values, color=style.colour, linestyle=style.dashes, linewidth=1.8 if base else 2.0, label=name,
            zorder=4 if base else 3,
        )  # fmt: skip
    axes.set_xlim(-6, 6)
    axes.set_ylim(*_curve_limits(drawn))


def _curve_limits(curves: Mapping[str, tuple[Array, Array]]) -> tuple[float, float]:
    """Show every curve in full up to twice the usual reach: that of BCE, else the median one's."""
    ends = {name: (np.nanmin(values), np.nanmax(values)) for name, (_, values) in curves.items()}
    base = [pair for name, pair in ends.items() if name.lower() == BASE_LOSS] or list(ends.values())
    reach = 2 * max(float(np.median([max(abs(low), abs(high)) for low, high in base])), 1e-9)
    low = max(min(0.0, *(pair[0] for pair in ends.values())), -reach)
    high = min(max(0.0, *(pair[1] for pair in ends.values())), reach)
    pad = 0.06 * max(high - low, 1e-9)
    return low - pad, high + pad
