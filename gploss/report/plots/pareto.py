"""The figure of reward against complexity, with the Pareto front of each searcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from gploss.report.formulas import readable
from gploss.report.plots.layout import (
    INK,
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
    readable_on,
    space_above,
    text_width,
    wrap,
)
from gploss.report.trajectories import require_columns, trained_rows

Array = NDArray[np.float64]

_WIDTH, _LIST_START = 12.0, 7.75  # inches: of the figure, and where its list of formulas begins
_MONOSPACE = "DejaVu Sans Mono"

# where a badge may stand, in points from what it names: above first, then around, then farther
_BADGE_OFFSETS = [
    distance * np.array([np.cos(angle), np.sin(angle)])
    for distance in range(17, 100, 8)
    for angle in np.deg2rad([90, 120, 60, 150, 30, 180, 0, 210, -30, 240, -60, -90])
]


def _pareto_indices(complexity: ArrayLike, reward: ArrayLike) -> NDArray[np.int64]:
    """Find the points that no simpler, or equally simple, one matches.

    Args:
        complexity: shape (N,), lower is better.
        reward: shape (N,), higher is better; finite.

    Returns:
        Indices of the front by rising complexity and rising reward; of equal points the first.
    """
    cost, gain = np.asarray(complexity, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    order = np.lexsort((np.arange(len(cost)), -gain, cost))
    best = np.maximum.accumulate(gain[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


def pareto(evaluations: pd.DataFrame, metric: str = "reward", *, higher_is_better: bool = True) -> Figure:
    """Draw reward against complexity: all trained candidates, and each searcher's Pareto front.

    The numbered points are each searcher's best formula and the steps of its front that gain most; their
    formulas stand beside the panel. Candidates far below the fronts lie outside; the axis says how many.

    Args:
        evaluations: columns searcher, status, reward, complexity (distinct nodes) and expression.
        metric: what the reward is, such as "validation AUC".
        higher_is_better: the metric's direction.

    Returns:
        A figure of one panel.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(evaluations, ("searcher", "status", "reward", "complexity", "expression"), "pareto")
    sign = 1.0 if higher_is_better else -1.0
    trained = evaluations[trained_rows(evaluations)]
    styles = line_styles(evaluations["searcher"].astype(str))
    groups = by_searcher(trained)
    fronts = {name: _front(frame, sign) for name, frame in groups.items()}
    chosen = [(name, row) for name, front in fronts.items() for row in _notable(front, sign)]
    texts = {name: f"{name} ({len(groups[name]) if name in groups else 0:,} trained)" for name in styles}
    formulas = [_formula_lines(readable(str(row["expression"]))) for _, row in chosen]
    top = space_above(_WIDTH, list(texts.values()))
    figure = new_figure(
        _WIDTH, max(4.4, 0.2 + sum(map(_entry_height, formulas))) + top, "How good, and how simple",
        "dots: trained candidates of all seeds; steps: the best at each complexity or below",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    bottom = 0.6
    axes = figure.add_axes((0.85 / width, bottom / height, 6.5 / width, (height - bottom - top) / height))
    plain_axes(
        axes,
        x_label="complexity (distinct nodes of the formula)",
        y_label=f"{metric} ({direction(higher_is_better)})",
    )
    legend_above(figure, _legend_keys(texts, styles))
    if trained.empty:
        empty_axes(axes, NOTHING_TRAINED)
        return figure
    last = float(trained["complexity"].max())
    offsets = {name: 0.14 * (place - (len(groups) - 1) / 2) for place, name in enumerate(groups)}
    for name, frame in groups.items():
        _draw_front(axes, frame, fronts[name], styles[name], name, offsets[name], last)
    outside = _set_limits(axes, trained, pd.concat(list(fronts.values())), sign)
    if outside:
        axes.set_xlabel(f"{axes.get_xlabel()}; {outside:,} worse candidates lie outside the picture")
    badges = [(row["complexity"] + offsets[name], row["reward"], styles[name].colour) for name, row in chosen]
    _place_badges(axes, badges)
    entries = [(styles[name].colour, name, row) for name, row in chosen]
    _list_formulas(figure, list(zip(entries, formulas, strict=True)), height - top)
    return figure


def _front(frame: pd.DataFrame, sign: float) -> pd.DataFrame:
    reward = sign * frame["reward"].to_numpy(dtype=np.float64)
    return frame.iloc[_pareto_indices(frame["complexity"].to_numpy(dtype=np.float64), reward)]


def _notable(front: pd.DataFrame, sign: float, count: int = 3) -> list[dict[str, Any]]:
    """Return the front's best row and those that gain most over the row before, by rising complexity."""
    rows = front.to_dict("records")
    gains = np.diff(sign * front["reward"].to_numpy(dtype=np.float64), prepend=np.nan)
    gains[0], gains[-1] = 0.0, np.inf  # the simplest one of all is seldom of interest, the best always
    kept = np.sort(np.argsort(-gains, kind="stable")[:count])
    return [{str(key): value for key, value in rows[place].items()} for place in kept]


def _legend_keys(texts: Mapping[str, str], styles: Mapping[str, LineStyle]) -> list[Line2D]:
    return [
        Line2D(
            [], [], color=styles[name].colour, linestyle=styles[name].dashes, marker=styles[name].marker,
            markersize=5, linewidth=2, label=text,
        )
        for name, text in texts.items()
    ]  # fmt: skip


def _draw_front(
    axes: Axes, frame: pd.DataFrame, front: pd.DataFrame, style: LineStyle, name: str, offset: float, last: float
) -> None:
    axes.plot(
        frame["complexity"].to_numpy(dtype=np.float64) + offset, frame["reward"].to_numpy(dtype=np.float64),
        linestyle="none", marker=style.marker, markersize=3.5, color=style.colour, alpha=0.22,
        markeredgewidth=0, label="_dots", zorder=2,
    )  # fmt: skip
    steps = front["complexity"].to_numpy(dtype=np.float64) + offset
    rewards = front["reward"].to_numpy(dtype=np.float64)
    axes.plot(
        np.append(steps, last + 0.5), np.append(rewards, rewards[-1]), drawstyle="steps-post", color=style.colour,
        linestyle=style.dashes, linewidth=2, label=name, zorder=3,
    )  # fmt: skip
    axes.plot(
        steps, rewards, linestyle="none", marker=style.marker, markersize=6, color=style.colour,
        markeredgecolor="white", markeredgewidth=0.7, label="_front", zorder=4,
    )  # fmt: skip


def _set_limits(axes: Axes, trained: pd.DataFrame, fronts: pd.DataFrame, sign: float) -> int:
    """Set limits that give the fronts most of the height; return how many candidates lie outside."""
    reward = sign * trained["reward"].to_numpy(dtype=np.float64)
    front = sign * fronts["reward"].to_numpy(dtype=np.float64)
    good, low = float(reward.max()), float(np.quantile(front, 0.15))
    # below the fronts as much again for the others, if there are any
    bad = max(float(reward.min()), low - max(good - low, 2e-3 * abs(good)))
    span = max(good - bad, 0.02 * abs(good), 1e-9)
    ends = sorted((sign * (bad - 0.06 * span), sign * (good + 0.15 * span)))
    axes.set_ylim(ends[0], ends[1])
    complexity = trained["complexity"].to_numpy(dtype=np.float64)
    widening = max(0.6, 2.5 - (complexity.max() - complexity.min()) / 2)
    axes.set_xlim(complexity.min() - widening, complexity.max() + widening)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return int((reward < bad - 0.06 * span).sum())


def _place_badges(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Number points by small discs near them that neither overlap nor leave the panel, tied to the points."""
    figure = figure_of(axes)
    pixels = figure.dpi / 72  # in a point, the unit in which texts are placed whatever the resolution
    radius = 8.0 * pixels
    panel = axes.get_window_extent()
    least, most = np.asarray(panel.min) + radius, np.asarray(panel.max) - radius
    targets = [np.clip(axes.transData.transform((x, y)), least, most) for x, y, _ in points]
    taken: list[Array] = []
    for number, (target, (_, _, colour)) in enumerate(zip(targets, points, strict=True), start=1):
        offers = [target + pixels * offset for offset in _BADGE_OFFSETS]
        free = [place for place in offers if _is_free(place, taken, targets, panel, radius)]
        place = free[0] if free else offers[0]
        taken.append(place)
        offset = (place - target) / pixels
        anchor = axes.transAxes.inverted().transform(target)
        axes.annotate(
            str(number), (float(anchor[0]), float(anchor[1])), xycoords="axes fraction",
            xytext=(float(offset[0]), float(offset[1])), textcoords="offset points", ha="center",
            va="center_baseline", fontsize=8, color=readable_on(colour), weight="bold", zorder=6, gid="badge",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def _is_free(place: Array, taken: Sequence[Array], targets: Sequence[Array], panel: Bbox, radius: float) -> bool:
    inside = bool((place - radius > panel.min).all() and (place + radius < panel.max).all())
    apart = all(np.hypot(*(place - other)) > 2.2 * radius for other in taken)
    return inside and apart and all(np.hypot(*(place - target)) > 1.6 * radius for target in targets)


def _formula_lines(formula: str) -> list[str]:
    character = text_width(Figure(dpi=100), "m" * 100, SMALL_SIZE, _MONOSPACE) / 100
    return wrap(formula, int((_WIDTH - _LIST_START - 0.55) / character), 3)


def _entry_height(lines: Sequence[str]) -> float:
    """Return the inches that a heading, the formula's lines and a gap take."""
    return (1.15 + len(lines) + 0.45) * LABEL_STEP


def _list_formulas(
    figure: Figure, entries: Sequence[tuple[tuple[str, str, Mapping[str, Any]], list[str]]], top: float
) -> None:
    """Write the numbered formulas (colour, searcher, row; lines) from ``top`` inches downwards."""
    width, height = figure.get_size_inches()
    start = (_LIST_START + 0.3) / width
    for number, ((colour, name, row), lines) in enumerate(entries, start=1):
        figure.text(
            (_LIST_START + 0.1) / width, (top - 0.07) / height, str(number), fontsize=8, ha="center", weight="bold",
            va="center", color=readable_on(colour),
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": colour, "edgecolor": "none"},
        )  # fmt: skip
        nodes = "1 node" if row["complexity"] == 1 else f"{row['complexity']:.0f} nodes"
        head = f"{name}: {row['reward']:.4f} with {nodes}"
        figure.text(start, top / height, head, fontsize=SMALL_SIZE + 0.5, color=INK, va="top", parse_math=False)
        figure.text(
            start, (top - 1.15 * LABEL_STEP) / height, "\n".join(lines), fontsize=SMALL_SIZE, color=INK,
            family=_MONOSPACE, gid="formula", va="top", parse_math=False,
        )  # fmt: skip
        top -= _entry_height(lines)
