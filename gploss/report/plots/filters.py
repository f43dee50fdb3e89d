"""The figure of what became of the proposals: trained, from the cache, duplicate, diverged, rejected and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from gploss.report.plots.layout import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL_SIZE,
    TEXT_SIZE,
    VERMILION,
    YELLOW,
    empty_axes,
    figure_of,
    legend_above,
    new_figure,
    plain_axes,
    readable_on,
    shorten,
    space_above,
    text_width,
    wrap,
)
from gploss.report.trajectories import require_columns

_WIDTH = 11.0  # inches
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
        outcome[(status == "trained") & evaluations["cached"].eq(True)] = "from the cache"
    reasons = evaluations["reason"].fillna("no reason given").astype(str)
    outcome[status == "rejected"] = "rejected: " + reasons[status == "rejected"]
    names = evaluations["searcher"].astype(str)
    counts = pd.crosstab(names.to_numpy(), outcome.to_numpy()).reindex(index=pd.unique(names))
    rejected = [str(column) for column in counts.columns if str(column).startswith("rejected: ")]
    rejected.sort(key=lambda column: (-int(counts[column].to_numpy().sum()), column))
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
    counts = _with_others(outcome_counts(evaluations))
    colours = _outcome_colours([str(column) for column in counts.columns])
    top = space_above(_WIDTH, list(colours))
    figure = new_figure(
        _WIDTH, 0.55 + 1.0 * max(len(counts), 1) + top, "What became of the proposals",
        "all seeds together; a bar holds all proposals of a searcher",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    bottom = 0.55
    totals = counts.sum(axis=1).tolist()
    names = [
        f"{shorten(str(name), 40)}\n{total:,} proposals" for name, total in zip(counts.index, totals, strict=True)
    ]
    lines = [line for name in names for line in name.split("\n")]
    left = 0.3 + max((text_width(figure, line, TEXT_SIZE) for line in lines), default=1.0)
    size = ((width - left - 0.3) / width, (height - bottom - top) / height)
    axes = figure.add_axes((left / width, bottom / height, *size))
    plain_axes(axes, x_label="share of the proposals")
    if counts.empty:
        empty_axes(axes, "Nothing was proposed, so there is nothing to draw.")
        return figure
    axes.grid(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(counts) - 0.38, -0.38)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.set_yticks(range(len(counts)), names)
    axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    axes.spines["left"].set_visible(False)
    for place in range(len(counts)):
        _draw_outcomes(axes, place, dict(zip(colours, counts.iloc[place].tolist(), strict=True)), colours)
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name)
        for name, (colour, hatch) in colours.items()
    ]
    legend_above(figure, handles, key_length=1.4)
    return figure


def _with_others(counts: pd.DataFrame) -> pd.DataFrame:
    """Add up the rarest reasons for which there is no colour."""
    reasons = [name for name in counts.columns if name not in _OUTCOMES]
    if len(reasons) <= len(_REASONS):
        return counts
    rare = reasons[len(_REASONS) - 1 :]
    return counts.drop(columns=rare).assign(**{f"rejected: {len(rare)} further reasons": counts[rare].sum(axis=1)})


def _outcome_colours(columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    colours = {name: _OUTCOMES[name] for name in columns if name in _OUTCOMES}
    for place, name in enumerate(name for name in columns if name not in _OUTCOMES):
        colours[name] = _REASONS[place]
    return colours


def _draw_outcomes(
    axes: Axes, place: int, counts: Mapping[str, int], colours: Mapping[str, tuple[str, str]]
) -> None:
    figure = figure_of(axes)
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
        lines = wrap(text, int(bar_inches / (0.55 * SMALL_SIZE / 72)), 3)
        axes.text(0, place + 0.28, "\n".join(lines), va="top", fontsize=SMALL_SIZE, color=GREY, parse_math=False)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.0005 else "<0.1%"
