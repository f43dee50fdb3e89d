"""Figures of a comparison: search efficiency, what was filtered out, Pareto fronts, loss curves.

Each function takes plain tables and returns a ``matplotlib.figure.Figure`` that belongs to no window: nothing
here touches pyplot, so figures can be made on a machine without a display.

Tables hold one row a proposal, as in ``SearchResult.evaluations``, with the columns searcher and seed added.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from gploss.plot_layout import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE_HEIGHT,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    SMALL_SIZE,
    TEXT_SIZE,
    VERMILION,
    YELLOW,
    LineStyle,
    empty_axes,
    line_styles,
    new_figure,
    plain_axes,
    readable_on,
    shorten,
    spread,
    text_width,
    wrap,
)
from gploss.report import write_bytes_atomic
from gploss.trajectories import Band, band, numbered, require_columns, trained_rows, trajectories

Array = NDArray[np.float64]
Curves = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike]

_NOTHING = "No candidate was trained, so there is nothing to draw."
_BASE_LOSS = "bce"  # the loss that everybody knows: black and dashed wherever it appears
_LABEL_STEP = SMALL_SIZE * LINE_HEIGHT / 72  # inches from one line of small text to the next


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG at 150 dots per inch, whole or not at all.

    Args:
        figure: any matplotlib figure.
        path: the file; its name should end in ".png", its folder must exist.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    write_bytes_atomic(path, buffer.getvalue())


def _searchers(evaluations: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a table by searcher, in the order of first rows."""
    names = evaluations["searcher"].astype(str)
    return {str(name): evaluations[names == name] for name in pd.unique(names)}


def _direction(higher_is_better: bool) -> str:
    return "higher is better" if higher_is_better else "lower is better"


# ---- efficiency ----------------------------------------------------------------------------------------------


def efficiency(
    evaluations: pd.DataFrame,
    reference: Mapping[str, float],
    metric: str = "reward",
    *,
    higher_is_better: bool = True,
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
        metric: what the reward is, such as "validation AUC".
        higher_is_better: the metric's direction.

    Returns:
        A figure of two panels with one y axis.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(evaluations, ("searcher", "seed", "step", "status", "reward", "elapsed"), "efficiency")
    sign = 1.0 if higher_is_better else -1.0
    groups = _searchers(numbered(evaluations))
    styles = line_styles(groups)
    bands = {
        column: {name: band(trajectories(frame, column, sign)) for name, frame in groups.items()}
        for column in ("candidate", "elapsed")
    }
    limits = _efficiency_limits(bands["candidate"], reference, sign)

    labels = {name: f"{name}  {value:.4f}" for name, value in reference.items() if np.isfinite(value)}
    labels |= {name: f"{name}  no value" for name, value in reference.items() if not np.isfinite(value)}
    height = max(5.0, 1.9 + 1.15 * _LABEL_STEP * len(labels))
    figure = new_figure(
        12.0, height, "How fast each searcher finds a good loss",
        "line: median over seeds; band: the middle half of the seeds; grey: hand-made losses",
    )  # fmt: skip
    left, right = _two_panels(
        figure, max((text_width(figure, f"↓ {x}", SMALL_SIZE) for x in labels.values()), default=0)
    )
    plain_axes(left, x_label="trained candidates", y_label=f"best {metric} so far ({_direction(higher_is_better)})")
    plain_axes(right, x_label=f"seconds of search{_cached_note(evaluations)}")
    _efficiency_legend(figure, groups, bands["candidate"], styles)
    if limits is None:
        for axes in (left, right):
            empty_axes(axes, _NOTHING)
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


def _two_panels(figure: Figure, margin: float) -> tuple[Axes, Axes]:
    """Place two panels of equal size, with ``margin`` inches for labels on the right of the second."""
    width, height = figure.get_size_inches()
    start, between, end = 0.85, 0.55, 0.45 + margin
    panel = (width - start - between - end) / 2
    bottom, top = 0.6, 1.2
    size = (panel / width, (height - bottom - top) / height)
    left = figure.add_axes((start / width, bottom / height, *size))
    right = figure.add_axes(((start + panel + between) / width, bottom / height, *size))
    return left, right


def _cached_note(evaluations: pd.DataFrame) -> str:
    if "cached" not in evaluations.columns:
        return ""
    trained = trained_rows(evaluations)
    cached = evaluations["cached"].fillna(False).to_numpy(dtype=bool)[trained]
    return f" ({cached.mean():.0%} of the candidates came from the cache)" if cached.any() else ""


def _efficiency_legend(
    figure: Figure,
    groups: Mapping[str, pd.DataFrame],
    bands: Mapping[str, Band],
    styles: Mapping[str, LineStyle],
) -> None:
    handles = []
    for name, frame in groups.items():
        seeds = frame["seed"].nunique()
        text = f"{name} ({seeds} seed{'s' if seeds > 1 else ''}"
        text += ", found nothing in most)" if bands[name].empty else ")"
        style = styles[name]
        handles.append(Line2D([], [], color=style.colour, linestyle=style.dashes, linewidth=2, label=text))
    if handles:
        width, height = figure.get_size_inches()
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.1 / width, 1 - 0.68 / height), ncols=len(handles),
            frameon=False, fontsize=TEXT_SIZE, labelcolor=INK, handlelength=2.8, columnspacing=2.0,
        )  # fmt: skip


def _efficiency_limits(
    bands: Mapping[str, Band], reference: Mapping[str, float], sign: float
) -> tuple[float, float] | None:
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


def _reference_style(name: str) -> dict[str, object]:
    if name.lower() == _BASE_LOSS:
        return {"color": BLACK, "linestyle": "--", "linewidth": 1.1}
    return {"color": GREY, "linestyle": "-", "linewidth": 0.7}


def _label_references(axes: Axes, reference: Mapping[str, float], labels: Mapping[str, str]) -> None:
    """Write the references' names beside the axes, nudged apart, each tied to its line."""
    if not reference:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    size = figure.get_size_inches()
    height, width = box.height * size[1], box.width * size[0]
    low, high = axes.get_ylim()
    names = sorted(reference, key=lambda name: (np.isnan(reference[name]), reference[name]))
    true = {name: (reference[name] - low) / (high - low) for name in names}
    wanted = [float(np.clip(np.nan_to_num(true[name], nan=0.0), 0.0, 1.0)) for name in names]
    places = spread(wanted, 1.1 * _LABEL_STEP / height, -0.02, 1.02)
    for name, place in zip(names, places, strict=True):
        inside = 0 <= true[name] <= 1
        colour = BLACK if name.lower() == _BASE_LOSS else GREY
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


# ---- filters -------------------------------------------------------------------------------------------------

_OUTCOMES = {
    "trained": (BLUE, ""),
    "from the cache": (SKY, ""),
    "duplicate": ("#BBBBBB", ""),
    "diverged": (VERMILION, ""),
}
_REASONS = (
    (YELLOW, ""), (ORANGE, ""), (PURPLE, ""), (GREEN, ""),
    (YELLOW, "///"), (ORANGE, "///"), (PURPLE, "///"), (GREEN, "///"),
)  # fmt: skip


def outcome_counts(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Count each searcher's proposals by what became of them.

    Args:
        evaluations: columns searcher, status, reason and, where the cache was used, cached.

    Returns:
        A row a searcher and a column an outcome: "trained", "from the cache", "duplicate", "diverged", then
        "rejected: " and the reason, the most frequent first; outcomes that never happened are left out.
        The counts of a row sum to the searcher's proposals.

    Raises:
        ValueError: a column is missing, or a status is not one of the four known.
    """
    require_columns(evaluations, ("searcher", "status", "reason"), "filters")
    status = evaluations["status"].astype(str).str.lower()
    unknown = sorted(set(status) - {"trained", "diverged", "rejected", "duplicate"})
    if unknown:
        raise ValueError(f"unknown status {', '.join(unknown)}; known: trained, diverged, rejected, duplicate")
    outcome = status.copy()
    if "cached" in evaluations.columns:
        outcome[(status == "trained") & evaluations["cached"].fillna(False).astype(bool)] = "from the cache"
    reasons = evaluations["reason"].fillna("no reason given").astype(str)
    outcome[status == "rejected"] = "rejected: " + reasons[status == "rejected"]
    names = evaluations["searcher"].astype(str)
    counts = pd.crosstab(names.to_numpy(), outcome.to_numpy()).reindex(index=pd.unique(names))
    rejected = [str(column) for column in counts.columns if str(column).startswith("rejected: ")]
    rejected.sort(key=lambda column: (-int(counts[column].sum()), column))
    counts = counts[[name for name in _OUTCOMES if name in counts.columns] + rejected]
    counts.index.name, counts.columns.name = "searcher", "outcome"
    return counts


def filters(evaluations: pd.DataFrame) -> Figure:
    """Draw what became of each searcher's proposals, all seeds together, as shares of a full bar.

    Segments that are too narrow for their text are spelled out below the bar.

    Args:
        evaluations: columns searcher, status, reason and, where the cache was used, cached.

    Returns:
        A figure of one panel, a bar a searcher.

    Raises:
        ValueError: a column is missing, or a status is unknown.
    """
    counts = outcome_counts(evaluations)
    colours = _outcome_colours([str(column) for column in counts.columns])
    figure = new_figure(
        11.0, 1.75 + 1.05 * max(len(counts), 1) + 0.27 * ((len(colours) + 3) // 4), "What became of the proposals",
        "all seeds together; a bar holds all proposals of a searcher",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    legend_rows = (len(colours) + 3) // 4
    bottom, top = 0.55, 0.85 + 0.27 * legend_rows
    axes = figure.add_axes((1.6 / width, bottom / height, (width - 1.9) / width, (height - bottom - top) / height))
    plain_axes(axes, x_label="share of the proposals")
    if counts.empty:
        empty_axes(axes, "Nothing was proposed, so there is nothing to draw.")
        return figure
    axes.grid(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(counts) - 0.4, -0.45)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    totals = counts.sum(axis=1)
    axes.set_yticks(range(len(counts)), [f"{name}\n{totals[name]:,} proposals" for name in counts.index])
    axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    axes.spines["left"].set_visible(False)
    for place, name in enumerate(counts.index):
        _draw_outcomes(axes, place, {str(k): int(v) for k, v in counts.loc[name].items()}, colours)
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name)
        for name, (colour, hatch) in colours.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.1 / width, 1 - 0.68 / height), ncols=4, frameon=False,
        fontsize=TEXT_SIZE - 0.5, labelcolor=INK, handlelength=1.4, columnspacing=1.8,
    )  # fmt: skip
    return figure


def _outcome_colours(columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    colours = {name: _OUTCOMES[name] for name in columns if name in _OUTCOMES}
    for place, name in enumerate(name for name in columns if name not in _OUTCOMES):
        colours[name] = _REASONS[place % len(_REASONS)]
    return colours


def _draw_outcomes(
    axes: Axes, place: int, counts: Mapping[str, int], colours: Mapping[str, tuple[str, str]]
) -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar_inches = axes.get_position().width * figure.get_size_inches()[0]
    total = sum(counts.values())
    start, small = 0.0, []
    for name, count in counts.items():
        if not count:
            continue
        share = count / total
        colour, hatch = colours[name]
        axes.barh(place, share, left=start, height=0.5, color=colour, hatch=hatch, edgecolor="white", linewidth=0.6)
        text = f"{count:,}\n{_percent(share)}"
        if max(text_width(figure, line, SMALL_SIZE + 0.5) for line in text.split("\n")) + 0.08 < share * bar_inches:
            axes.text(
                start + share / 2, place, text, ha="center", va="center", fontsize=SMALL_SIZE + 0.5,
                color=INK if hatch else readable_on(colour), gid="segment",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8} if hatch else None,
            )  # fmt: skip
        else:
            small.append(f"{name.removeprefix('rejected: ')} {count:,} ({_percent(share)})")
        start += share
    if small:
        text = "also: " + ",  ".join(small)
        lines = wrap(text, int(bar_inches / (0.55 * SMALL_SIZE / 72)), 2)
        axes.text(0, place + 0.28, "\n".join(lines), va="top", fontsize=SMALL_SIZE, color=GREY, parse_math=False)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.0005 else "<0.1%"


# ---- Pareto --------------------------------------------------------------------------------------------------


def pareto_front(complexity: ArrayLike, reward: ArrayLike) -> NDArray[np.int64]:
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
    formulas stand beside the panel. The worst quarter of the candidates may lie outside; the axis says how many.

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
    groups = _searchers(trained)
    fronts = {name: _front(frame, sign) for name, frame in groups.items()}
    chosen = [(name, row) for name, front in fronts.items() for row in _notable(front, sign)]
    figure = new_figure(
        12.0, max(5.6, 1.6 + len(chosen) * 3.6 * _LABEL_STEP), "How good, and how simple",
        "dots: trained candidates of all seeds; steps: the best at each complexity or below",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    bottom, top = 0.6, 1.2
    axes = figure.add_axes((0.85 / width, bottom / height, 6.5 / width, (height - bottom - top) / height))
    plain_axes(
        axes,
        x_label="complexity (distinct nodes of the formula)",
        y_label=f"{metric} ({_direction(higher_is_better)})",
    )
    _pareto_legend(figure, styles, groups)
    if trained.empty:
        empty_axes(axes, _NOTHING)
        return figure
    last = float(trained["complexity"].max())
    offsets = {name: 0.14 * (place - (len(groups) - 1) / 2) for place, name in enumerate(groups)}
    for name, frame in groups.items():
        _draw_front(axes, frame, fronts[name], styles[name], name, offsets[name], last)
    outside = _pareto_limits(axes, trained, pd.concat(list(fronts.values())), sign)
    if outside:
        axes.set_xlabel(f"{axes.get_xlabel()}; {outside:,} worse candidates lie outside the picture")
    badges = [(row["complexity"] + offsets[name], row["reward"], styles[name].colour) for name, row in chosen]
    _place_badges(axes, badges)
    _list_formulas(figure, [(styles[name].colour, name, row) for name, row in chosen], 7.75)
    return figure


def _front(frame: pd.DataFrame, sign: float) -> pd.DataFrame:
    reward = sign * frame["reward"].to_numpy(dtype=np.float64)
    return frame.iloc[pareto_front(frame["complexity"].to_numpy(dtype=np.float64), reward)]


def _notable(front: pd.DataFrame, sign: float, count: int = 3) -> list[dict[str, object]]:
    """Return the front's best row and those that gain most over the row before, by rising complexity."""
    rows = front.to_dict("records")
    gains = np.diff(sign * front["reward"].to_numpy(dtype=np.float64), prepend=np.nan)
    gains[0], gains[-1] = 0.0, np.inf  # the simplest one of all is seldom of interest, the best always
    kept = np.sort(np.argsort(-gains, kind="stable")[:count])
    return [{str(key): value for key, value in rows[place].items()} for place in kept]


def _pareto_legend(figure: Figure, styles: Mapping[str, LineStyle], groups: Mapping[str, pd.DataFrame]) -> None:
    handles = [
        Line2D(
            [], [], color=style.colour, linestyle=style.dashes, marker=style.marker, markersize=5, linewidth=2,
            label=f"{name} ({len(groups[name]) if name in groups else 0:,} trained)",
        )
        for name, style in styles.items()
    ]  # fmt: skip
    width, height = figure.get_size_inches()
    if handles:
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.1 / width, 1 - 0.68 / height), ncols=len(handles),
            frameon=False, fontsize=TEXT_SIZE, labelcolor=INK, handlelength=2.8, columnspacing=2.0,
        )  # fmt: skip


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


def _pareto_limits(axes: Axes, trained: pd.DataFrame, fronts: pd.DataFrame, sign: float) -> int:
    """Set limits that show the better three quarters; return how many candidates lie outside."""
    reward = sign * trained["reward"].to_numpy(dtype=np.float64)
    front = sign * fronts["reward"].to_numpy(dtype=np.float64)
    good = float(reward.max())
    bad = float(min(np.quantile(reward, 0.25), np.median(front)))
    span = max(good - bad, 2e-3 * abs(good), 1e-9)
    ends = sorted((sign * (bad - 0.06 * span), sign * (good + 0.12 * span)))
    axes.set_ylim(ends[0], ends[1])
    complexity = trained["complexity"].to_numpy(dtype=np.float64)
    axes.set_xlim(complexity.min() - 0.6, complexity.max() + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return int((reward < bad - 0.06 * span).sum())


def _place_badges(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Number points by small discs beside them that neither overlap nor leave the panel, tied to the points."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    point = figure.dpi / 72
    radius = 7.5 * point
    panel = axes.get_window_extent()
    targets = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken: list[Array] = []
    angles = np.deg2rad([90, 125, 55, 150, 30, 180, 0, 210, -30, 235, -55, -90])
    offers = [distance * point * np.array([np.cos(a), np.sin(a)]) for distance in range(15, 90, 9) for a in angles]
    for number, (target, (x, y, colour)) in enumerate(zip(targets, points, strict=True), start=1):
        if not panel.contains(*target):
            target = np.clip(target, panel.min + radius, panel.max - radius)
        places = [target + offer for offer in offers]
        free = [place for place in places if _is_free(place, taken, targets, panel, radius)]
        place = free[0] if free else places[0]
        taken.append(place)
        axes.annotate(
            str(number), (x, y), xytext=(float(place[0]), float(place[1])), textcoords="figure pixels", ha="center",
            va="center_baseline", fontsize=8, color=readable_on(colour), weight="bold", zorder=6, gid="badge",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def _is_free(place: Array, taken: Sequence[Array], targets: Sequence[Array], panel: Bbox, radius: float) -> bool:
    inside = bool((place - radius > panel.min).all() and (place + radius < panel.max).all())
    apart = all(np.hypot(*(place - other)) > 2.2 * radius for other in taken)
    return inside and apart and all(np.hypot(*(place - target)) > 1.6 * radius for target in targets)


def _list_formulas(figure: Figure, entries: Sequence[tuple[str, str, Mapping[str, object]]], start: float) -> None:
    """Write the numbered formulas below one another, ``start`` inches from the left edge."""
    width, height = figure.get_size_inches()
    family, size = "DejaVu Sans Mono", SMALL_SIZE
    columns = int((width - start - 0.55) / text_width(figure, "m" * 100, size, family) * 100)
    top = height - 1.2
    for number, (colour, name, row) in enumerate(entries, start=1):
        lines = wrap(str(row["expression"]), columns, 2)
        axes_free = {"va": "top", "parse_math": False, "transform": figure.transFigure}
        figure.text(
            (start + 0.1) / width, (top - 0.07) / height, str(number), fontsize=8, ha="center", weight="bold",
            va="center", color=readable_on(colour),
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": colour, "edgecolor": "none"},
        )  # fmt: skip
        head = (
            f"{name}: {row['reward']:.4f} with {row['complexity']:.0f} node{'s' if row['complexity'] != 1 else ''}"
        )
        figure.text((start + 0.3) / width, top / height, head, fontsize=size + 0.5, color=INK, **axes_free)
        figure.text(
            (start + 0.3) / width, (top - 1.15 * _LABEL_STEP) / height, "\n".join(lines), fontsize=size, color=INK,
            family=family, gid="formula", **axes_free,
        )  # fmt: skip
        top -= (1.15 + len(lines) + 0.45) * _LABEL_STEP


# ---- loss curves ---------------------------------------------------------------------------------------------


def loss_curves(curves: Mapping[str, Curves]) -> Figure:
    """Draw losses and their gradients against the score, for both labels.

    A loss is drawn minus its value at score 0, because a constant changes nothing in training. Curves that run
    far away from the others are cut at the panel's edge.

    Args:
        curves: by name of the loss: scores, value where the label is 1, value where it is 0, gradient with
            respect to the score where the label is 1, gradient where it is 0; each of shape (G,). The name "bce"
            (in any case) is black and dashed; a name such as "genetic: mul(pred, label)" has the searcher's style.

    Returns:
        A figure of four panels and a legend with the names below them.

    Raises:
        ValueError: the arrays of a curve are not one-dimensional, or not of one length.
    """
    tables = {name: _curve_table(name, curve) for name, curve in curves.items()}
    styles = _curve_styles(list(tables))
    figure = new_figure(
        11.0, 7.3 + 0.25 * max(len(tables), 1), "What the best losses do to a score",
        "left: the label is 1, the score should rise; right: the label is 0, it should fall",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    below = 0.75 + 0.25 * len(tables)
    panel_width, panel_height = 4.6, (height - below - 0.95 - 0.65) / 2
    for row, what in enumerate(("loss, minus its value at score 0", "gradient: d loss / d score")):
        bottom = below + (1 - row) * (panel_height + 0.65)
        for column, label in enumerate((1, 0)):
            start = 0.85 + column * (panel_width + 0.55)
            axes = figure.add_axes((start / width, bottom / height, panel_width / width, panel_height / height))
            plain_axes(
                axes, f"{'Gradient' if row else 'Loss'} where the label is {label}",
                "score (before the sigmoid)" if row else "", what if not column else "",
            )  # fmt: skip
            _draw_curves(
                axes, {name: (table[0], table[1 + 2 * row + column]) for name, table in tables.items()}, styles
            )
    if tables:
        figure.legend(
            handles=[
                Line2D([], [], color=style.colour, linestyle=style.dashes, linewidth=2, label=shorten(name, 120))
                for name, style in styles.items()
            ],
            loc="lower left", bbox_to_anchor=(0.6 / width, 0.02 / height), ncols=1, frameon=False,
            fontsize=TEXT_SIZE - 0.5, labelcolor=INK, handlelength=3.2,
        )  # fmt: skip
    return figure


def _curve_table(name: str, curve: Curves) -> Array:
    """Return scores and the four curves as one array of shape (5, G), values shifted to 0 at score 0."""
    arrays = [np.asarray(part, dtype=np.float64) for part in curve]
    shapes = {array.shape for array in arrays}
    if len(arrays) != 5 or len(shapes) != 1 or arrays[0].ndim != 1:
        found = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"the curve {name!r} needs five arrays of one length; their shapes are: {found}")
    table = np.stack(arrays)
    table[1:][~np.isfinite(table[1:])] = np.nan
    for row in (1, 2):
        known = np.flatnonzero(np.isfinite(table[row]))
        if len(known):
            table[row] -= table[row, known[np.argmin(np.abs(table[0, known]))]]
    return table


def _curve_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    short = {name: name.partition(":")[0].strip() for name in names}
    unique = {name: text if list(short.values()).count(text) == 1 else name for name, text in short.items()}
    others = line_styles(text for name, text in unique.items() if name.lower() != _BASE_LOSS)
    base = LineStyle(BLACK, (0.0, (4.0, 2.0)), "o")
    return {name: base if name.lower() == _BASE_LOSS else others[unique[name]] for name in names}


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[Array, Array]], styles: Mapping[str, LineStyle]) -> None:
    drawn = {name: pair for name, pair in curves.items() if np.isfinite(pair[1]).any()}
    if not drawn:
        empty_axes(axes, "No loss has a finite value here, so there is nothing to draw.")
        return
    axes.axhline(0, color=GREY, linewidth=0.7, label="_zero")
    axes.axvline(0, color=PALE, linewidth=0.7, label="_zero")
    for name, (scores, values) in drawn.items():
        base = name.lower() == _BASE_LOSS
        style = styles[name]
        axes.plot(
            scores, values, color=style.colour, linestyle=style.dashes, linewidth=1.8 if base else 2.0, label=name,
            zorder=4 if base else 3,
        )  # fmt: skip
    axes.set_xlim(-6, 6)
    axes.set_ylim(*_curve_limits(drawn))


def _curve_limits(curves: Mapping[str, tuple[Array, Array]]) -> tuple[float, float]:
    """Show every curve in full up to three times the usual reach: that of BCE, else the median one's."""
    ends = {name: (np.nanmin(values), np.nanmax(values)) for name, (_, values) in curves.items()}
    base = [pair for name, pair in ends.items() if name.lower() == _BASE_LOSS] or list(ends.values())
    reach = 3 * max(float(np.median([max(abs(low), abs(high)) for low, high in base])), 1e-9)
    low = max(min(0.0, *(pair[0] for pair in ends.values())), -reach)
    high = min(max(0.0, *(pair[1] for pair in ends.values())), reach)
    pad = 0.06 * max(high - low, 1e-9)
    return low - pad, high + pad
