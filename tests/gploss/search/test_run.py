"""Runs: budgets that hold exactly, ends that are clean, and exceptions that lose nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.search.budget import Budget
from gploss.search.evaluation import Evaluation
from gploss.search.record import Progress
from gploss.search.result import SearchResult
from gploss.search.run import StopSearch
from tests.gploss.search.runs import TINY, charged, comparable, make, quiet, raise_interrupt, searchers
from tests.synthetic import SyntheticEvaluator


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
        {"candidates": np.float64(5)},
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


def test_budgets_of_numpy_are_like_those_of_python() -> None:
    assert repr(Budget.of(np.int16(5))) == repr(Budget(candidates=np.int64(5))) == repr(Budget(candidates=5))
    assert repr(Budget(seconds=np.float32(2))) == repr(Budget(seconds=2)) == repr(Budget(seconds=2.0))


def test_a_budget_below_one_candidate_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not pay for one candidate"):
        make(evaluator=SyntheticEvaluator(epochs=10)).run(Budget(candidate_epochs=9), checkpoint=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_has_a_path() -> None:
    with pytest.raises(TypeError, match="the path of the checkpoint must be text or a Path, got 5"):
        make().run(10, checkpoint=5)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (print, r"callbacks must be a list of functions, got a single one: write callbacks=\[<built-in"),
        ([print, "print"], "callbacks must be a list of functions, got .*'print'"),
        ("print", "callbacks must be a list of functions, got 'print'"),
        (None, "callbacks must be a list of functions, got None"),
    ],
)
def test_callbacks_are_a_list_of_functions(callbacks: Any, message: str) -> None:
    evaluator = SyntheticEvaluator()
    with pytest.raises(TypeError, match=message):
        quiet(make(evaluator=evaluator), 100, callbacks=callbacks)
    assert evaluator.calls == 0


# Exceptions


@searchers
def test_an_error_in_a_callback_loses_no_record(name: str, tmp_path: Path) -> None:
    turns = []

    def fail(caller: object, new: object, progress: object) -> None:
        turns.append(new)
        if len(turns) == 3:
            raise ZeroDivisionError

    file = tmp_path / "run"
    with pytest.raises(ZeroDivisionError) as caught:
        quiet(make(name), 100, callbacks=[fail], checkpoint=file)
    result = caught.value.search_result  # type: ignore[attr-defined]
    whole = quiet(make(name), 100)
    assert isinstance(result, SearchResult) and result.stopped == "failed"
    assert result.records == whole.records[: 3 * 32]
    assert caught.value.__notes__ == ["96 evaluations were made before this error: they are its `search_result`"]
    evaluator = SyntheticEvaluator()
    assert comparable(quiet(make(name, evaluator), 100, checkpoint=file)) == comparable(whole)
    assert evaluator.calls == whole_calls(whole) - 3


def whole_calls(result: SearchResult) -> int:
    """How often the evaluator was asked, 32 proposals at once."""
    return -(-len(result.records) // 32)


@searchers
def test_an_error_of_a_model_loses_no_record(name: str, tmp_path: Path) -> None:
    def fail(call: int) -> None:
        if call == 2:
            raise RuntimeError("out of memory")

    file = tmp_path / "run"
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        quiet(make(name, SyntheticEvaluator(before=fail)), 100, checkpoint=file)
    result = caught.value.search_result  # type: ignore[attr-defined]
    whole = quiet(make(name), 100)
    assert result.records == whole.records[: 2 * 32]
    assert result.best is not None
    assert comparable(quiet(make(name), 100, checkpoint=file)) == comparable(whole)


def test_an_error_before_any_evaluation_carries_an_empty_result() -> None:
    def fail(call: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError) as caught:
        quiet(make(evaluator=SyntheticEvaluator(before=fail)), 100)
    assert caught.value.search_result.records == ()  # type: ignore[attr-defined]


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

    with pytest.raises(KeyboardInterrupt) as caught:
        quiet(make(), 100, callbacks=[press_twice])
    assert pressed == [0, 1]
    assert len(caught.value.search_result.records) == 32  # type: ignore[attr-defined]
