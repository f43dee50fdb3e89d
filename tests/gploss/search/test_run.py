"""Runs: budgets that hold exactly, ends that are clean, and checkpoints that lose nothing."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.registry import discover
from gploss.search.budget import Budget
from gploss.search.checkpoint import CheckpointError
from gploss.search.evaluation import Evaluation
from gploss.search.record import Progress
from gploss.search.result import SearchResult
from gploss.search.reward import BaselineFilter
from gploss.search.run import StopSearch
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from tests.synthetic import SyntheticEvaluator

discover("gploss.searchers")

STANDARD = Grammar.standard()
# Few formulas, so that a run soon proposes nothing new.
TINY = Grammar("tiny", ("add", "neg"), ("pred", "label"), False, "plain", 2, 2)

searchers = pytest.mark.parametrize("name", ["random", "genetic"])


def make(name: str = "genetic", evaluator: SyntheticEvaluator | None = None, **arguments: Any) -> AskTellSearcher:
    arguments.setdefault("grammar", STANDARD)
    arguments.setdefault("seed", 0)
    grammar = arguments.pop("grammar")
    return SEARCHERS[name](grammar, evaluator or SyntheticEvaluator(), **arguments)


def quiet(searcher: AskTellSearcher, budget: int | Budget, **arguments: Any) -> SearchResult:
    return searcher.run(budget, progress=False, **arguments)


def comparable(result: SearchResult) -> tuple[object, ...]:
    """Everything but wall-clock times, and the budget, which a resumed run may have raised."""
    records = [dataclasses.replace(record, seconds=0.0, cached=False) for record in result.records]
    plain = {name: value for name, value in result.settings.items() if name != "budget"}
    counts = {name: count for name, count in result.counts.items() if name != "cached"}
    return result.searcher, result.stopped, counts, plain, records


def charged(result: SearchResult) -> int:
    return sum(record.charged for record in result.records)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["random", "genetic"]),
    budget=st.integers(1, 80),
    at_once=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_a_budget_of_candidates_is_spent_exactly(name: str, budget: int, at_once: int, seed: int) -> None:
    result = quiet(make(name, seed=seed, proposals_at_once=at_once), budget)
    assert result.stopped == "budget"
    assert charged(result) == budget == result.counts["trained"] + result.counts["diverged"]
    assert len(result.records) == result.counts["proposals"]
    fingerprints = [record.fingerprint for record in result.records if record.charged]
    assert len(set(fingerprints)) == budget


@settings(max_examples=30, deadline=None)
@given(
    budget=st.integers(5, 200),
    epochs=st.integers(1, 5),
    early_stop=st.booleans(),
    at_once=st.integers(1, 40),
)
def test_a_budget_of_epochs_is_never_exceeded_and_used_up(
    budget: int, epochs: int, early_stop: bool, at_once: int
) -> None:
    evaluator = SyntheticEvaluator(epochs=epochs, early_stop=early_stop)
    searcher = make("random", evaluator, proposals_at_once=at_once)
    result = quiet(searcher, Budget(candidate_epochs=budget))
    spent = sum(record.candidate_epochs for record in result.records if record.charged)
    assert result.stopped == "budget"
    assert budget - epochs < spent <= budget


def test_a_budget_in_seconds_ends() -> None:
    # A candidate's training takes 0.001 s, by its record.
    result = quiet(make("random"), Budget(seconds=0.1))
    assert result.stopped == "budget"
    assert 0 < charged(result) < 0.1 / 0.001 + 32


def test_the_cache_changes_nothing_but_the_counts() -> None:
    trained = quiet(make(), 60)
    cached = quiet(make(evaluator=SyntheticEvaluator(cached=True)), 60)
    assert comparable(cached) == comparable(trained)
    assert (trained.counts["cached"], cached.counts["cached"]) == (0, 60)


@pytest.mark.parametrize("budget", [0, -3, True, 2.5, "10", None])
def test_what_is_no_budget_is_refused(budget: object) -> None:
    with pytest.raises((TypeError, ValueError), match="budget"):
        make().run(budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "amounts",
    [
        {},
        {"candidates": 5, "seconds": 1.0},
        {"candidates": 1.5},
        {"candidate_epochs": 0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": -1},
    ],
)
def test_a_budget_has_one_positive_amount(amounts: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="budget"):
        Budget(**amounts)


def test_a_budget_below_one_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="does not pay for one candidate"):
        make(evaluator=SyntheticEvaluator(epochs=10)).run(Budget(candidate_epochs=9))


@searchers
def test_a_run_without_news_ends_as_exhausted(name: str) -> None:
    result = quiet(make(name, grammar=TINY), 50)
    assert result.stopped == "exhausted"
    assert len(result.records) == 100 * 50
    assert 0 < charged(result) < 50


class Broken(SyntheticEvaluator):
    """Breaks the contract in one of several ways."""

    def __init__(self, spoil: Callable[[list[Evaluation]], list[Evaluation]]) -> None:
        super().__init__()
        self.spoil = spoil

    def evaluate(
        self, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
    ) -> list[Evaluation]:
        return self.spoil(super().evaluate(expressions, seen, limit))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda evaluations: [], "stopped before its limit"),
        (lambda evaluations: evaluations[:-1], "stopped before its limit"),
        (lambda evaluations: evaluations[::-1], "in their order"),
        (lambda evaluations: evaluations * 2, "in their order"),
    ],
)
def test_an_evaluator_that_breaks_its_contract_is_an_error(
    spoil: Callable[[list[Evaluation]], list[Evaluation]], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        quiet(make("random", Broken(spoil)), 1000)


def test_an_evaluator_that_charges_too_much_is_an_error() -> None:
    class Greedy(SyntheticEvaluator):
        def evaluate(
            self, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
        ) -> list[Evaluation]:
            return super().evaluate(expressions, seen, len(expressions))

    with pytest.raises(RuntimeError, match="the limit was 5"):
        quiet(make("random", Greedy()), 5)


# Callbacks


def test_callbacks_see_every_turn() -> None:
    turns: list[tuple[list[Evaluation], Progress]] = []
    searcher = make()

    def note(caller: object, new: Sequence[Evaluation], progress: Progress) -> None:
        assert caller is searcher
        turns.append((list(new), progress))

    result = quiet(searcher, 50, callbacks=[note])
    assert [evaluation for new, _ in turns for evaluation in new] == list(result.records)
    last = turns[-1][1]
    assert last.counts == result.counts
    assert last.share == 1.0
    assert result.best is not None and last.best is result.best.evaluation
    assert [progress.spending.proposals for _, progress in turns] == sorted(
        progress.spending.proposals for _, progress in turns
    )


def test_a_callback_can_stop_the_run(tmp_path: Path) -> None:
    def stop(caller: object, new: object, progress: Progress) -> None:
        if progress.spending.candidates >= 40:
            raise StopSearch

    file = tmp_path / "run"
    result = quiet(make(), 100, callbacks=[stop], checkpoint=file)
    assert result.stopped == "interrupted"
    assert 40 <= charged(result) < 100
    assert comparable(quiet(make(), 100, checkpoint=file)) == comparable(quiet(make(), 100))


def test_an_error_in_a_callback_is_not_swallowed() -> None:
    def fail(caller: object, new: object, progress: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        quiet(make(), 100, callbacks=[fail])


# Ctrl-C


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler, which a test runner in the background may lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the run must put the handler back"
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


@searchers
@pytest.mark.parametrize("press", [press_ctrl_c, raise_interrupt])
@pytest.mark.parametrize("call", [0, 2])
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_training_keeps_the_turns_before(
    name: str, press: Callable[[], None], call: int, tmp_path: Path
) -> None:
    evaluator = SyntheticEvaluator(before=lambda number: press() if number == call else None)
    file = tmp_path / "run"
    result = quiet(make(name, evaluator), 100, checkpoint=file)
    assert result.stopped == "interrupted"
    assert len(result.records) == 32 * call
    whole = quiet(make(name), 100)
    assert result.records == whole.records[: 32 * call]
    resumed = quiet(make(name), 100, checkpoint=file)
    assert comparable(resumed) == comparable(whole)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_between_trainings_waits_for_the_end_of_the_turn() -> None:
    result = quiet(make(), 100, callbacks=[lambda *_: press_ctrl_c()])
    assert result.stopped == "interrupted"
    assert len(result.records) == 32


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_is_immediate() -> None:
    pressed: list[int] = []

    def press_twice(*_: object) -> None:
        for number in range(2):
            pressed.append(number)
            press_ctrl_c()
        pressed.append(99)

    with pytest.raises(KeyboardInterrupt):
        quiet(make(), 100, callbacks=[press_twice])
    assert pressed == [0, 1]


# Checkpoints


@searchers
def test_a_finished_run_is_returned_at_once(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    first = quiet(make(name), 70, checkpoint=file)
    evaluator = SyntheticEvaluator()
    second = quiet(make(name, evaluator), 70, checkpoint=file)
    assert evaluator.calls == 0
    assert comparable(second) == comparable(first)
    assert second.records == first.records and second.elapsed == first.elapsed


@searchers
@pytest.mark.parametrize("filtered", [False, True])
def test_a_larger_budget_goes_on_as_if_given_at_first(name: str, filtered: bool, tmp_path: Path) -> None:
    def fresh() -> AskTellSearcher:
        return make(name, reward_filter=BaselineFilter(0.6) if filtered else None)

    file = tmp_path / "run"
    for budget in (1, 10, 45, 120):
        result = quiet(fresh(), budget, checkpoint=file)
        assert charged(result) == budget
        assert comparable(result) == comparable(quiet(fresh(), budget))


def test_a_larger_budget_of_epochs_goes_on_as_if_given_at_first(tmp_path: Path) -> None:
    def fresh() -> AskTellSearcher:
        return make(evaluator=SyntheticEvaluator(epochs=4, early_stop=True))

    file = tmp_path / "run"
    for budget in (7, 60, 200):
        result = quiet(fresh(), Budget(candidate_epochs=budget), checkpoint=file)
        assert comparable(result) == comparable(quiet(fresh(), Budget(candidate_epochs=budget)))


def test_an_exhausted_run_is_returned_at_once_and_goes_on_with_more(tmp_path: Path) -> None:
    file = tmp_path / "run"
    first = quiet(make(grammar=TINY), 20, checkpoint=file)
    assert first.stopped == "exhausted"
    assert comparable(quiet(make(grammar=TINY), 20, checkpoint=file)) == comparable(first)
    assert len(quiet(make(grammar=TINY), 30, checkpoint=file).records) == 3000


def test_a_smaller_budget_than_spent_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "run"
    quiet(make(), 30, checkpoint=file)
    with pytest.raises(ValueError, match="has spent 30 candidates, more than the budget of 20"):
        quiet(make(), 20, checkpoint=file)


def test_a_warm_start_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    known = SyntheticEvaluator().evaluate([Expression.parse("neg(mul(label, log(pred)))")], {}, 1)

    def fresh() -> AskTellSearcher:
        searcher = make()
        searcher.tell(known)
        return searcher

    evaluator = SyntheticEvaluator(before=lambda number: raise_interrupt())
    started = make(evaluator=evaluator)
    started.tell(known)
    file = tmp_path / "run"
    assert quiet(started, 80, checkpoint=file).records == ()
    # Not told again: the checkpoint knows.
    assert comparable(quiet(make(), 80, checkpoint=file)) == comparable(quiet(fresh(), 80))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: make("random"), "settings.searcher"),
        (lambda: make(seed=1), "settings.seed"),
        (lambda: make(grammar=Grammar.paper()), "settings.grammar.max_size"),
        (lambda: make(evaluator=SyntheticEvaluator(epochs=3)), "settings.evaluator.epochs"),
        (lambda: make(population_size=60), "settings.arguments.population_size"),
        (lambda: make(reward_filter=BaselineFilter(0.5)), "settings.reward_filter"),
    ],
)
def test_a_checkpoint_of_other_settings_is_an_error_that_names_them(
    other: Callable[[], AskTellSearcher], difference: str, tmp_path: Path
) -> None:
    file = tmp_path / "run"
    quiet(make(), 30, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=difference):
        quiet(other(), 30, checkpoint=file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_an_error_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not to be lost")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        quiet(make(), 30, checkpoint=file)
    assert file.read_text() == "not to be lost"


def run_slowly(name: str, file: Path) -> None:
    evaluator = SyntheticEvaluator(before=lambda number: time.sleep(0.005))
    quiet(make(name, evaluator), 200, checkpoint=file)


@searchers
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_run_killed_at_any_moment_goes_on_and_ends_the_same(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    moments = random.Random(0)
    killed = 0
    for attempt in range(1, 13):
        process = multiprocessing.get_context("fork").Process(target=run_slowly, args=(name, file))
        process.start()
        # Later attempts are given more time, so that a slow machine gets on, too.
        process.join(moments.uniform(0.0, 0.03 * attempt))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        killed += 1
    else:
        run_slowly(name, file)
    assert killed > 0
    assert comparable(quiet(make(name), 200, checkpoint=file)) == comparable(quiet(make(name), 200))
