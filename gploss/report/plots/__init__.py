"""Figures of a comparison: search efficiency, what was filtered out, Pareto fronts, loss curves.

Each function takes plain tables and returns a ``matplotlib.figure.Figure`` that belongs to no window: nothing
here touches pyplot, so figures can be made on a machine without a display.

Tables hold one row a proposal, as in ``SearchResult.evaluations``, with the columns searcher and seed added.
"""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from gploss.files.whole import write_bytes_atomic
from gploss.report.plots.ablation import ablation
from gploss.report.plots.curves import Curves, loss_curves
from gploss.report.plots.efficiency import efficiency
from gploss.report.plots.filters import filters, outcome_counts
from gploss.report.plots.heat_map import heat_map
from gploss.report.plots.pareto import pareto
from gploss.report.plots.rounds import rounds

__all__ = [
    "Curves",
    "ablation",
    "efficiency",
    "filters",
    "heat_map",
    "loss_curves",
    "outcome_counts",
    "pareto",
    "rounds",
    "save",
]


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
