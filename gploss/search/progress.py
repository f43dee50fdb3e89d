"""How a run goes, for a person who waits for it: a live panel on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gploss.search.budget import Budget, Spending
from gploss.search.record import Progress

SECONDS_BETWEEN_LINES = 5.0


class Display(ABC):
    """Shows how one run goes; use it in a ``with`` statement."""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 (a display that needs no tidying up is complete without)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @abstractmethod
    def update(self, progress: Progress) -> None:
        """Show where the run stands."""
        ...


class QuietDisplay(Display):
    """Shows nothing."""

    def update(self, progress: Progress) -> None:
        """Do nothing."""


class PlainDisplay(Display):
    """One line at most every five seconds, and one at the end: for log files and pipes.

    Args:
        title: what runs.
        metric: name of the reward's metric.
        stream: where to write.
        clock: seconds, ever rising.
    """

    def __init__(
        self, title: str, metric: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._metric = metric
        self._stream = stream
        self._clock = clock
        self._rate = Rate()
        self._next_line = clock() + SECONDS_BETWEEN_LINES
        self._unwritten: Progress | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the last state, if no line has shown it."""
        if self._unwritten is not None:
            self._write(self._unwritten)

    def update(self, progress: Progress) -> None:
        """Write a line, unless the last one is less than five seconds old."""
        self._rate.update(progress.spending)
        self._unwritten = progress
        if self._clock() >= self._next_line:
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        parts = [
            f"{self._title}: {budget_text(progress)}",
            f"best {best_text(progress, self._metric)}",
            self._rate.text(),
            counts_text(progress.counts),
        ]
        print("; ".join(part for part in parts if part), file=self._stream, flush=True)
        self._unwritten = None
        self._next_line = self._clock() + SECONDS_BETWEEN_LINES


class LiveDisplay(Display):
    """A panel that a terminal keeps up to date.

    Args:
        title: what runs.
        metric: name of the reward's metric.
        console: where to draw.
    """

    def __init__(self, title: str, metric: str, console: Console) -> None:
        self._title = title
        self._metric = metric
        self._rate = Rate()
        self._live = Live(Text(f"{title}: starting"), console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """Draw the state."""
        self._rate.update(progress.spending)
        self._live.update(self.panel(progress))

    def panel(self, progress: Progress) -> RenderableType:
        """Return the panel for a state."""
        # Text, because plain strings are read as markup.
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=progress.share), Text(budget_text(progress)))
        rows = Table.grid(padding=(0, 1))
        rows.add_row("best", Text(best_text(progress, self._metric), style="bold green"))
        rows.add_row("speed", Text(self._rate.text()))
        rows.add_row("counts", Text(counts_text(progress.counts)))
        return Panel(Group(bar, rows), title=Text(self._title))


class Rate:
    """Evaluations a second since the first update."""

    def __init__(self) -> None:
        self._first: Spending | None = None
        self._last = Spending()

    def update(self, spending: Spending) -> None:
        """Take note of what is spent now."""
        self._first = self._first or spending
        self._last = spending

    def text(self) -> str:
        """Return the rate; empty before there is one."""
        if self._first is None or self._last.elapsed <= self._first.elapsed:
            return ""
        proposals = self._last.proposals - self._first.proposals
        return f"{proposals / (self._last.elapsed - self._first.elapsed):.1f} evaluations/s"


def budget_text(progress: Progress) -> str:
    """Return spent and budgeted amounts, such as ``"128/500 candidates"``."""
    budget: Budget = progress.budget
    return f"{budget.spent(progress.spending):.0f}/{budget.amount:.0f} {budget.unit.replace('_', '-')}"


def best_text(progress: Progress, metric: str) -> str:
    """Return the best reward so far with its formula."""
    if progress.best is None or progress.best.reward is None:
        return "none yet"
    return f"{metric} {progress.best.reward:.4f} = {progress.best.loss.readable()}"


def counts_text(counts: dict[str, int]) -> str:
    """Return the counts that are not zero; rejections by reason, the most frequent first."""
    names = {"trained": "trained", "cached": "from cache", "diverged": "diverged", "duplicates": "duplicates"}
    parts = [f"{counts[name]} {words}" for name, words in names.items() if counts.get(name)]
    if counts.get("rejected"):
        reasons = [(count, name.partition(": ")[2]) for name, count in counts.items() if ": " in name]
        reasons.sort(key=lambda pair: (-pair[0], pair[1]))
        parts.append(f"{counts['rejected']} rejected ({', '.join(f'{reason} {n}' for n, reason in reasons)})")
    if counts.get("below_baseline"):
        parts.append(f"{counts['below_baseline']} below the baseline")
    return ", ".join(parts)


def open_display(title: str, metric: str, *, enabled: bool, stream: TextIO | None = None) -> Display:
    """Choose the display: a panel on a terminal, lines elsewhere, nothing where it is not wanted.

    Args:
        title: what runs.
        metric: name of the reward's metric.
        enabled: whether to show anything.
        stream: where to write; the standard error stream by default.
    """
    if not enabled:
        return QuietDisplay()
    stream = sys.stderr if stream is None else stream
    console = Console(file=stream)
    if console.is_terminal:
        return LiveDisplay(title, metric, console)
    return PlainDisplay(title, metric, stream)
