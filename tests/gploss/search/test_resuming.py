"""Runs that go on after any end: checkpoints lose nothing, and refuse what is not theirs."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.operators import OPERATORS, Operator, register_operator, unary
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.search.budget import Budget
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import AskTellSearcher
from tests.gploss.search.runs import STANDARD, TINY, charged, comparable, make, quiet, raise_interrupt, searchers
from tests.synthetic import SyntheticEvaluator


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


def settings_with(operators: tuple[str, ...] = (), terminals: tuple[str, ...] = ()) -> dict[str, JSON]:
    grammar = replace(
        STANDARD, operators=(*STANDARD.operators, *operators), terminals=(*STANDARD.terminals, *terminals)
    )
    return make(grammar=grammar).settings()


def test_a_changed_operator_is_noticed_by_its_formulas(softramp: Operator, tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "run") as checkpoint:
        checkpoint.begin(settings_with(operators=("softramp",)))
        OPERATORS.unregister("softramp")
        register_operator(unary("softramp", "0.5 * x", "0.5"))
        value = r"settings\.grammar\.formulas\.softramp\.value: .*log.* in the file, '0\.5 \* x' now"
        with pytest.raises(CheckpointError, match=value):
            checkpoint.begin(settings_with(operators=("softramp",)))


def test_a_changed_terminal_is_noticed_by_its_formulas(tmp_path: Path) -> None:
    register_terminal(terminal("doubt", "score + 1", ["score"], {"score": "1"}))
    try:
        with Checkpoint(tmp_path / "run") as checkpoint:
            checkpoint.begin(settings_with(terminals=("doubt",)))
            TERMINALS.unregister("doubt")
            register_terminal(terminal("doubt", "score + 2", ["score"], {"score": "1"}))
            value = r"settings\.grammar\.formulas\.doubt\.value: 'score \+ 1' in the file, 'score \+ 2' now"
            with pytest.raises(CheckpointError, match=value):
                checkpoint.begin(settings_with(terminals=("doubt",)))
    finally:
        TERMINALS.unregister("doubt")


def test_a_file_that_is_no_checkpoint_is_an_error_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not to be lost")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        quiet(make(), 30, checkpoint=file)
    assert file.read_text() == "not to be lost"


def damage(file: Path, *steps: int) -> None:
    """Change evaluations behind the back of the run that wrote them."""
    connection = sqlite3.connect(file)
    for step in steps:
        connection.execute("UPDATE evaluations SET elapsed = elapsed + 1 WHERE step = ?", (step,))
    connection.commit()
    connection.close()


@searchers
def test_damaged_evaluations_are_named_and_the_run_goes_on(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    whole = quiet(make(name), 100, checkpoint=file)
    damage(file, 3, 40)
    with pytest.warns(UserWarning, match=r"damaged evaluations, which are left out: 2 in all, of step 3, 40$"):
        resumed = quiet(make(name), 100, checkpoint=file)
    rest = [record for step, record in enumerate(whole.records, start=1) if step not in (3, 40)]
    assert list(resumed.records[: len(rest)]) == rest
    assert charged(resumed) == 100


@searchers
def test_a_damaged_evaluation_of_an_open_turn_is_made_again(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    first = quiet(make(name, proposals_at_once=100), 30, checkpoint=file)
    damage(file, len(first.records) - 2)
    with pytest.warns(UserWarning, match="damaged evaluations, .* 1 in all"):
        resumed = quiet(make(name, proposals_at_once=100), 120, checkpoint=file)
    assert comparable(resumed) == comparable(quiet(make(name, proposals_at_once=100), 120))
    evaluator = SyntheticEvaluator()
    again = quiet(make(name, evaluator, proposals_at_once=100), 120, checkpoint=file)
    assert comparable(again) == comparable(resumed)
    assert evaluator.calls == 0


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
