"""What the figures share: colours and line styles, plain axes, and labels that keep out of each other's way."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

# Okabe and Ito, "Color universal design" (2008): told apart with any of the usual colour deficiencies
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
INK, GREY, PALE = "#222222", "#6E6E6E", "#D9D9D9"

TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 13.0, 10.0, 8.5
LABEL_STEP = 1.3 * SMALL_SIZE / 72  # inches from one line of small text to the next

NOTHING_TRAINED = "No candidate was trained, so there is nothing to draw."
BASE_LOSS = "bce"  # the loss that everybody knows: black and dashed wherever it appears

Dashes = tuple[float, tuple[float, ...]] | Literal["solid"]


@dataclass(frozen=True)
class LineStyle:
    """How one searcher, or one loss, is drawn in every figure.

    Attributes:
        colour: as ``#RRGGBB``.
        dashes: "solid", or (offset, lengths in line widths).
        marker: a matplotlib marker.
    """

    colour: str
    dashes: Dashes
    marker: str


_KNOWN = {
    "genetic": LineStyle(BLUE, "solid", "o"),
    "rl": LineStyle(VERMILION, (0.0, (5.0, 1.5)), "^"),
    "random": LineStyle(GREEN, (0.0, (1.2, 1.2)), "s"),
}
_FURTHER = (
    LineStyle(ORANGE, (0.0, (6.0, 1.5, 1.2, 1.5)), "D"),
    LineStyle(PURPLE, (0.0, (9.0, 2.0)), "v"),
    LineStyle(SKY, (0.0, (3.0, 1.2, 1.2, 1.2, 1.2, 1.2)), "P"),
    LineStyle(BLUE, (0.0, (2.5, 2.5)), "X"),
    LineStyle(VERMILION, "solid", "<"),
    LineStyle(GREEN, (0.0, (7.0, 3.0)), ">"),
    LineStyle(ORANGE, "solid", "h"),
    LineStyle(PURPLE, (0.0, (1.2, 2.4)), "p"),
)
_FRESH_COLOURS = 3  # the first of the further styles have colours that no searcher of the project has


def line_styles(names: Iterable[str]) -> dict[str, LineStyle]:
    """Give each name its colour, line style and marker.

    The project's searchers have fixed ones. The others share further ones, colours that the searchers do not
    have first; which one depends on the name where it can, so that it looks the same in all figures of a run.

    Args:
        names: searchers or losses; repeated ones count once.

    Returns:
        A style a name; no two are equal up to eight names besides the project's searchers, then they repeat.
    """
    wanted = list(dict.fromkeys(names))
    styles = {name: _KNOWN[name] for name in wanted if name in _KNOWN}
    free: list[int] = []
    for name in sorted(set(wanted) - set(styles)):
        free = free or list(range(len(_FURTHER)))
        fresh = [place for place in free if place < _FRESH_COLOURS] or free
        place = fresh[zlib.crc32(name.encode()) % len(fresh)]
        free.remove(place)
        styles[name] = _FURTHER[place]
    return styles


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Nudge positions apart, moving them as little as possible (least squares).

    Args:
        positions: N wanted places, in any order.
        gap: the least distance between two of them.
        low: none lies below.
        high: none lies above, unless N of them do not fit.

    Returns:
        Shape (N,), in the order of ``positions``; the order along the line is kept.
    """
    wanted = np.asarray(positions, dtype=np.float64)
    order = np.argsort(wanted, kind="stable")
    shifted = wanted[order] - gap * np.arange(len(wanted))
    # pool adjacent violators: the nearest non-decreasing sequence
    blocks: list[tuple[float, int]] = []
    for value in shifted.tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            earlier, size = blocks.pop()
            mean = (earlier * size + mean * count) / (size + count)
            count += size
        blocks.append((mean, count))
    level = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    level = np.maximum(np.minimum(level, high - gap * max(len(wanted) - 1, 0)), low)
    result = np.empty(len(wanted))
    result[order] = level + gap * np.arange(len(wanted))
    return result


def shorten(text: str, width: int) -> str:
    """Cut a text to ``width`` characters; an ellipsis stands for what was left off."""
    return text if len(text) <= width else text[: width - 1].rstrip(" ,(") + "…"


def wrap(text: str, width: int, lines: int) -> list[str]:
    """Break a text, after spaces where it can, into at most ``lines`` lines; an ellipsis ends a cut one."""
    parts = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip(" ,(") + "…"]
    return parts


def readable_on(colour: str) -> str:
    """Return black or white, whichever reads better on a ``#RRGGBB`` background."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.52 else "#FFFFFF"


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """Make an empty figure (inches) with a title and a grey line below it, both at the left edge."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        0.25 / width, 1 - 0.16 / height, title, fontsize=TITLE_SIZE, weight="bold", color=INK, va="top",
        parse_math=False,
    )  # fmt: skip
    if subtitle:
        figure.text(
            0.25 / width, 1 - 0.45 / height, subtitle, fontsize=TEXT_SIZE - 0.5, color=GREY, va="top",
            parse_math=False,
        )  # fmt: skip
    return figure


def text_width(figure: Figure, text: str, size: float, family: str = "sans-serif") -> float:
    """Return the width of one line of text in inches."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    properties = FontProperties(size=size, family=family)
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    width, _, _ = renderer.get_text_width_height_descent(text, properties, False)
    return float(width) / figure.dpi


def plain_axes(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Give axes two thin spines, a faint horizontal grid and left-aligned texts."""
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=TEXT_SIZE - 1, length=3)
    axes.set_title(title, loc="left", fontsize=TEXT_SIZE + 0.5, color=INK, parse_math=False)
    axes.set_xlabel(x_label, fontsize=TEXT_SIZE, color=INK, parse_math=False)
    axes.set_ylabel(y_label, fontsize=TEXT_SIZE, color=INK, parse_math=False)


def empty_axes(axes: Axes, sentence: str) -> None:
    """Say in the middle of a panel why there is nothing in it, and take its ticks away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_color(PALE)
    axes.text(
        0.5, 0.5, textwrap.fill(sentence, 44), transform=axes.transAxes, ha="center", va="center",
        fontsize=TEXT_SIZE, color=GREY, parse_math=False,
    )  # fmt: skip


def legend_columns(width: float, entries: Sequence[str]) -> int:
    """Return how many columns (up to four) a legend of these texts has room for in a figure of so many inches."""
    widest = max((text_width(Figure(dpi=100), text, TEXT_SIZE) for text in entries), default=0.0)
    return int(np.clip((width - 0.3) // (widest + 0.8), 1, 4))


def space_above(width: float, entries: Sequence[str]) -> float:
    """Return the inches that title, subtitle and a legend of these texts take above the panels."""
    return 0.95 + 0.25 * -(-len(entries) // legend_columns(width, entries))


def legend_above(figure: Figure, handles: Sequence[Artist], key_length: float = 2.8) -> None:
    """Put a legend without a frame between the subtitle and the panels, at the left edge."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    columns = legend_columns(width, [str(handle.get_label()) for handle in handles])
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.1 / width, 1 - 0.68 / height), ncols=columns,
        frameon=False, fontsize=TEXT_SIZE, labelcolor=INK, handlelength=key_length, columnspacing=2.0,
    )  # fmt: skip


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes made by ``Figure.add_axes`` belong to."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def by_searcher(evaluations: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a table by its column searcher, in the order of first rows."""
    names = evaluations["searcher"].astype(str)
    return {str(name): evaluations[names == name] for name in pd.unique(names)}


def direction(higher_is_better: bool) -> str:
    """Say in words which end of a metric is the good one."""
    return "higher is better" if higher_is_better else "lower is better"
