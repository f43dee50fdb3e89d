"""What a person sees of a run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.budget import Budget, Spending
from gploss.search.evaluation import Evaluation, Status
from gploss.search.progress import LiveDisplay, PlainDisplay, QuietDisplay, open_display
from gploss.search.record import Progress
from gploss.searchers.random_search import RandomSearcher
from tests.synthetic import SyntheticEvaluator

BEST = Evaluation(Expression.parse("square(label - pred)"), Status.TRAINED, reward=0.7654)
COUNTS = {
    "proposals": 100,
    "trained": 50,
    "cached": 7,
    "diverged": 1,
    "duplicates": 19,
    "rejected": 30,
    "rejected: non-finite": 10,
    "rejected: zero gradient": 20,
    "below_baseline": 3,
}


def progress(proposals: int = 100, elapsed: float = 2.0, best: Evaluation | None = BEST) -> Progress:
    spending = Spending(proposals=proposals, candidates=51, candidate_epochs=255, elapsed=elapsed)
    return Progress(best, COUNTS, spending, Budget(candidates=200))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_tells_everything() -> None:
    stream = io.StringIO()
    with PlainDisplay("random search, seed 0", "auc", stream, Clock()) as display:
        display.update(progress(proposals=0, elapsed=0.0))
        display.update(progress())
    (line,) = stream.getvalue().splitlines()
    assert line == (
        "random search, seed 0: 51/200 candidates; best auc 0.7654 = (y - sigmoid(s))**2; "
        "50.0 evaluations/s; 50 trained, 7 from cache, 1 diverged, 19 duplicates, "
        "30 rejected (zero gradient 20, non-finite 10), 3 below the baseline"
    )


def test_lines_come_at_most_every_five_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainDisplay("run", "auc", stream, clock) as display:
        written = []
        for _ in range(30):
            clock.now += 0.5
            display.update(progress())
            written.append(stream.getvalue().count("\n"))
        assert written[8:10] == [0, 1] and written[18:20] == [1, 2] and written[-1] == 3
        clock.now += 0.1
        display.update(progress())
    assert stream.getvalue().count("\n") == 4


def test_before_the_first_candidate_there_is_no_best() -> None:
    stream = io.StringIO()
    with PlainDisplay("run", "auc", stream, Clock()) as display:
        display.update(progress(best=None))
    assert "best none yet" in stream.getvalue()


def test_the_panel_shows_the_formula_the_bar_and_the_counts() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    display = LiveDisplay("genetic search, seed 1", "auc", console)
    display.update(progress(proposals=0, elapsed=0.0))
    display.update(progress())
    console.print(display.panel(progress()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    best = "auc 0.7654 = (y - sigmoid(s))**2"
    for part in ("genetic search, seed 1", "51/200 candidates", best, "50.0 evaluations/s"):
        assert part in text
    assert "30 rejected (zero gradient 20, non-finite 10)" in text


def test_brackets_in_a_formula_are_no_markup() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    display = LiveDisplay("run", "auc", console)
    counts = {**COUNTS, "rejected: [bold]odd[/bold]": 5}
    console.print(display.panel(Progress(BEST, counts, Spending(), Budget(seconds=3))))
    assert isinstance(console.file, io.StringIO)
    assert "[bold]odd[/bold]" in console.file.getvalue()


def test_the_live_display_starts_and_stops() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with LiveDisplay("run", "auc", console) as display:
        display.update(progress())
    assert "51/200" in stream.getvalue()


def test_the_display_fits_the_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(open_display("run", "auc", enabled=True, stream=io.StringIO()), PlainDisplay)
    assert isinstance(open_display("run", "auc", enabled=False, stream=Terminal()), QuietDisplay)


def test_a_run_reports_on_the_error_stream_only(capsys: pytest.CaptureFixture[str]) -> None:
    RandomSearcher(Grammar.standard(), SyntheticEvaluator()).run(40)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "40/40 candidates" in captured.err
    RandomSearcher(Grammar.standard(), SyntheticEvaluator()).run(40, progress=False)
    assert capsys.readouterr().err == ""
