"""The figure of search efficiency: best reward so far against candidates and against seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gploss.report.plots.layout import (
    BASE_LOSS,
    BLACK,
    GREY,
    LABEL_STEP,
    NOTHING_TRAINED,
    SMALL_SIZE,
    LineStyle,
    by_searcher,
    direction,
    empty_axes,
    figure_of,
    legend_above,
    line_styles,
    new_figure,
    plain_axes,
    space_above,
    spread,
    text_width,
)
from gploss.report.trajectories import Band, band, numbered, require_columns, trained_rows, trajectories

_WIDTH = 12.0  # inches


def efficiency(
    evaluations: pd.DataFrame,
    reference: Mapping[str, float],
    metric: str = "reward",
    *,
    higher_is_better: bool = True,
    title: str = "How fast each searcher finds a good loss",
) -> Figure:
    """Draw the best reward so far against trained candidates and against seconds.

    A line is the median over a searcher's seeds, the band the interquartile range; a run that ended earlier
    keeps its best. A line starts where half of the runs have found something. The limits follow the part of
    the picture where the searchers differ; lines that fall outside are named at the edge.

    Args:
        evaluations: columns searcher, seed, step, status, reward, elapsed (seconds since the run's start), and
            candidate (running number of charged candidates, counted from the status where there is none).
            Where there is a column cached, the axis of seconds says how many candidates were not trained anew.
        reference: reward of each hand-made loss, drawn as a labelled horizontal line; NaN where it diverged.
        metric: what the reward is, such as "validation gauc".
        higher_is_better: the metric's direction.
        title: above the figure.

    Returns:
        A figure of two panels with one y axis.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(evaluations, ("searcher", "seed", "step", "status", "reward", "elapsed"), "efficiency")
    sign = 1.0 if higher_is_better else -1.0
    groups = by_searcher(numbered(evaluations))
    styles = line_styles(groups)
    bands = {
        column: {name: band(trajectories(frame, column, sign)) for name, frame in groups.items()}
        for column in ("candidate", "elapsed")
    }
    reference = {name: value if np.isfinite(value) else np.nan for name, value in reference.items()}
    limits = _limits(bands["candidate"], reference, sign)
    labels = {
        name: f"{name}  {'no value' if np.isnan(value) else format(value, '.4f')}"
        for name, value in reference.items()
    }
    texts = {name: _legend_text(name, frame, bands["candidate"][name]) for name, frame in groups.items()}
    top = space_above(_WIDTH, list(texts.values()))
    height = max(3.8, 0.7 + 1.15 * LABEL_STEP * len(labels)) + top
    figure = new_figure(
        _WIDTH, height, title,
        "line: median over seeds; band: the middle half of the seeds" + ("; grey: hand-made losses" * bool(labels)),
    )  # fmt: skip
    margin = max((text_width(figure, f"↓ {text}", SMALL_SIZE) for text in labels.values()), default=0.0)
    left, right = _two_panels(figure, margin, top)
    plain_axes(left, x_label="trained candidates", y_label=f"best {metric} so far ({direction(higher_is_better)})")
    plain_axes(right, x_label=f"seconds of search{_cached_note(evaluations)}")
    keys = [
        Line2D([], [], color=styles[name].colour, linestyle=styles[name].dashes, linewidth=2, label=text)
        for name, text in texts.items()
    ]
    legend_above(figure, keys)
    if limits is None:
        for axes in (left, right):
            empty_axes(axes, NOTHING_TRAINED)
        return figure
    for axes, column in ((left, "candidate"), (right, "elapsed")):
        for name, line in bands[column].items():
            _draw_band(axes, line, styles[name], name, sign)
        axes.set_xlim(0, max(line.positions[-1] for line in bands[column].values()) * 1.015 or 1.0)
        axes.set_ylim(*limits)
        for name, value in reference.items():
            if limits[0] <= value <= limits[1]:
                axes.axhline(value, **_reference_style(name), zorder=1.5)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_references(right, reference, labels)
    return figure


def _two_panels(figure: Figure, margin: float, top: float) -> tuple[Axes, Axes]:
    """Place two panels of equal size, with ``margin`` inches of labels right of them and ``top`` above."""
    width, height = figure.get_size_inches()
    start, between, end = 0.85, 0.55, 0.45 + margin
    panel = (width - start - between - end) / 2
    bottom = 0.6
    size = (panel / width, (height - bottom - top) / height)
    left = figure.add_axes((start / width, bottom / height, *size))
    right = figure.add_axes(((start + panel + between) / width, bottom / height, *size))
    return left, right


def _cached_note(evaluations: pd.DataFrame) -> str:
    if "cached" not in evaluations.columns:
        return ""
    trained = trained_rows(evaluations)
    cached = evaluations["cached"].eq(True).to_numpy(dtype=bool)[trained]
    return f" ({cached.mean():.0%} of the candidates from the cache)" if cached.any() else ""


def _legend_text(name: str, frame: pd.DataFrame, line: Band) -> str:
    seeds = frame["seed"].nunique()
    text = "1 seed" if seeds == 1 else f"{seeds} seeds"
    if not trained_rows(frame).any():
        text += ", nothing trained"
    elif line.empty:
        text += ", most found nothing"
    return f"{name} ({text})"


def _limits(bands: Mapping[str, Band], reference: Mapping[str, float], sign: float) -> tuple[float, float] | None:
    """Choose y limits that show how the searchers and the nearer references differ; None without data.

    The start of a run, where the best so far can be very bad, may leave the picture: the bad end is where the
    middle one of the searchers stands after a tenth of its candidates, or where the worst of them ends.
    """
    found = [line for line in bands.values() if not line.empty]
    if not found:
        return None
    last = max(line.positions[-1] for line in found)
    final = [line.median[-1] for line in found]
    early = [line.median[max(np.searchsorted(line.positions, last / 10, side="right") - 1, 0)] for line in found]
    middle_early = float(np.median([np.nan_to_num(a, nan=b) for a, b in zip(early, final, strict=True)]))
    lowest = [line.low[-1] for line in found if np.isfinite(line.low[-1])]
    bad = min(*final, middle_early, *lowest)
    good = max([*final, *(line.high[-1] for line in found if np.isfinite(line.high[-1]))])
    span = max(good - bad, 2e-3 * abs(good), 1e-9)
    # a reference far on the bad side would squash the picture; one on the good side is news, and may
    near = [sign * x for x in reference.values() if bad - span <= sign * x <= good + 4 * span]
    bad, good = min([bad, *near]), max([good, *near])
    pad = 0.06 * max(good - bad, span)
    ends = sorted((sign * (bad - pad), sign * (good + pad)))
    return ends[0], ends[1]


def _draw_band(axes: Axes, line: Band, style: LineStyle, name: str, sign: float) -> None:
    if line.empty:
        return
    axes.fill_between(
        line.positions, sign * line.low, sign * line.high, step="post", color=style.colour, alpha=0.16, linewidth=0
    )
    axes.plot(
        line.positions, sign * line.median, drawstyle="steps-post", color=style.colour, linestyle=style.dashes,
        linewidth=2, label=name, zorder=3,
    )  # fmt: skip
    axes.plot(
        line.positions[-1:], sign * line.median[-1:], marker=style.marker, color=style.colour, markersize=6,
        markeredgecolor="white", markeredgewidth=0.8, linestyle="none", label="_end", zorder=4, clip_on=False,
    )  # fmt: skip


def _reference_style(name: str) -> dict[str, Any]:
    if name.lower() == BASE_LOSS:
        return {"color": BLACK, "linestyle": "--", "linewidth": 1.1}
    return {"color": GREY, "linestyle": "-", "linewidth": 0.7}


def _label_references(axes: Axes, reference: Mapping[str, float], labels: Mapping[str, str]) -> None:
    """Write the references' names beside the axes, nudged apart, each tied to its line."""
    if not reference:
        return
    figure = figure_of(axes)
    box = axes.get_position()
    size = figure.get_size_inches()
    height, width = box.height * size[1], box.width * size[0]
    low, high = axes.get_ylim()
    names = sorted(reference, key=lambda name: (not np.isnan(reference[name]), reference[name]))
    true = {name: (reference[name] - low) / (high - low) for name in names}
    wanted = [float(np.clip(np.nan_to_num(true[name], nan=0.0), 0.0, 1.0)) for name in names]
    places = spread(wanted, 1.1 * LABEL_STEP / height, -0.02, 1.02)
    for name, place in zip(names, places, strict=True):
        inside = 0 <= true[name] <= 1
        colour = BLACK if name.lower() == BASE_LOSS else GREY
        mark = "" if inside or np.isnan(true[name]) else ("↑ " if true[name] > 1 else "↓ ")
        axes.text(
            1 + 0.28 / width, place, mark + labels[name], transform=axes.transAxes, va="center", color=colour,
            fontsize=SMALL_SIZE, gid="reference", parse_math=False,
        )  # fmt: skip
        if inside:
            axes.plot(
                [1.0, 1 + 0.22 / width], [true[name], place], transform=axes.transAxes, color=colour,
                linewidth=0.6, clip_on=False, label="_tie",
            )  # fmt: skip
