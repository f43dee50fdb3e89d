"""A task of its own in one file: estimates of sizes, with a problem, a metric and a model that know no labels.

It goes all the way: search, cache, checkpoint, verdict, page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.terminals import TERMINALS, register_terminal, terminal
from gploss.report.page import Page, Section, Table
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.searchers.genetic import GeneticSearcher
from gploss.tasks import Input, Task
from recmodels.data.interactions import DataError, IntegerArray
from recmodels.data.rows import Rows, Schema
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.base import Batch
from recmodels.training.choice import choose_trainer
from recmodels.training.problem import Judge, Part, Problem
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import TrainReport
from recmodels.verdict.confirmation import confirm
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tables import verdict_sentence, verdict_table

SHOPS, DAYS = 12, 7


@pytest.fixture(scope="module")
def toy() -> Iterator[Task]:
    """Losses are given an estimate a, the true value b, and how much c the example matters."""
    names = ("guess", "goal", "size")
    register_terminal(terminal("guess", "a", ("a",), {"a": "1"}))
    register_terminal(terminal("goal", "b", ("b",)))
    register_terminal(terminal("size", "c", ("c",)))
    spread = np.linspace(-2, 2, 32)
    yield Task(
        name="toy",
        inputs=(
            Input("a", tuple(spread), differentiable=True),
            Input("b", tuple(np.roll(spread, 7)), altered=tuple(np.roll(spread, 12))),
            Input("c", tuple(1 + np.cos(np.arange(32)))),
        ),
        terminals=names,
        leaves=("guess", "goal", "size", "1"),
        metric="miss",
    )
    for name in names:
        TERMINALS.unregister(name)


class Sales(Problem):
    """What each shop sells on each day, in three parts."""

    name = "sales"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.metrics = {"miss": False, "near": True}
        rng = np.random.default_rng(0)
        shops, days = rng.normal(size=SHOPS), rng.normal(size=DAYS)
        self._rows: dict[str, Rows] = {}
        for part, count in {"train": 300, "validation": 100, "test": 120}.items():
            shop, day = rng.integers(0, SHOPS, count), rng.integers(0, DAYS, count)
            sold = shops[shop] + days[day] + rng.normal(0, 0.3, count)
            schema = Schema({"shop": SHOPS, "day": DAYS})
            self._rows[part] = Rows(schema, {"shop": shop, "day": day}, {"b": sold, "c": rng.random(count)})

    def rows(self, part: Part) -> Rows:
        return self._rows[part]

    def judge_of(self, rows: Rows, groups: IntegerArray | None, device: torch.device | str = "cpu") -> Judge:
        wanted = torch.tensor(rows.inputs["b"], device=device)

        def judge(scores: torch.Tensor) -> dict[str, torch.Tensor]:
            away = (scores - wanted).abs().double()
            return {"miss": away.mean(1), "near": (away < 0.5).double().mean(1)}

        return judge

    def groups(self, part: Part) -> IntegerArray:
        return self.rows(part).features["shop"]


class TwoEffects(torch.nn.Module):
    """Estimate = effect of the shop + effect of the day."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.shop = torch.nn.Embedding(schema["shop"], 1)
        self.day = torch.nn.Embedding(schema["day"], 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        estimates: torch.Tensor = self.shop(batch["shop"]) + self.day(batch["day"])
        return estimates.squeeze(-1)


PROTOCOL = replace(STANDARD, batch_size=32, patience=None)


class BreaksOff(StackedTrainer):
    """Is gone after some calls."""

    calls_left = 10**9

    def fit(self, *arguments: object, **options: object) -> TrainReport:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise OSError("the machine went away")
        return super().fit(*arguments, **options)  # type: ignore[arg-type]


def search(
    toy: Task, budget: int, *, cache: Cache | None = None, checkpoint: Path | None = None, calls: int = 10**9
) -> SearchResult:
    trainer = BreaksOff(TwoEffects, PROTOCOL, device="cpu")
    trainer.calls_left = calls
    evaluator = LossEvaluator(Sales(toy), trainer, epochs=3, cache=cache)
    initial = [Expression.parse("size * square(guess - goal)")]
    searcher = GeneticSearcher(Grammar.standard(toy), evaluator, seed=0, population_size=8, initial=initial)
    return searcher.run(budget, checkpoint=checkpoint, progress=False)


def told(result: SearchResult) -> list[tuple[str, str, float | None, str | None]]:
    return [(str(one.expression), str(one.status), one.reward, one.reason) for one in result.records]


def test_a_search_learns_lower_is_better(toy: Task) -> None:
    result = search(toy, 20)
    rewards = [one.reward for one in result.records if one.reward is not None]
    assert result.metric == "miss" and not result.higher_is_better
    assert result.best is not None and result.best.reward == min(rewards) < max(rewards)
    reasons = {one.reason for one in result.records if one.reason is not None}
    assert reasons and reasons <= {"no dependence on b", "zero gradient", "non-finite"}


def test_cache_and_checkpoint(toy: Task, tmp_path: Path) -> None:
    whole = search(toy, 16)
    with Cache(tmp_path / "cache") as cache:
        with pytest.raises(OSError, match="went away"):
            search(toy, 16, cache=cache, checkpoint=tmp_path / "run", calls=1)
        resumed = search(toy, 16, cache=cache, checkpoint=tmp_path / "run")
        again = search(toy, 16, cache=cache)
    assert told(resumed) == told(again) == told(whole)
    assert all(one.cached for one in again.records if one.charged)
    assert not any(one.cached for one in whole.records)


def test_verdict_and_page(toy: Task, tmp_path: Path) -> None:
    found = search(toy, 12).top(2)
    rivals = [
        Rival("squares", HAND_MADE, Expression.parse("square(guess - goal)")),
        Rival("absolute", HAND_MADE, Expression.parse("abs(guess - goal)")),
        Rival("blind", HAND_MADE, Expression.parse("square(guess - size)")),
        *(Rival(f"found {k}", "genetic", one.expression) for k, one in enumerate(found)),
    ]
    trainer = StackedTrainer(TwoEffects, PROTOCOL, device="cpu")
    options = {"epochs": 2, "tuning_seeds": 1, "fresh_seeds": 2, "resamples": 50}
    for metric in ("miss", "near"):
        verdict = confirm(rivals, trainer, Sales(toy), metric=metric, **options)  # type: ignore[arg-type]
        assert verdict.metric == metric and verdict.n_units == SHOPS and not verdict.by_row
        assert verdict.left_out == {"blind": "no dependence on b"}
        means = [one.test.mean() for one in verdict.comparisons[1:]]
        assert means == sorted(means, reverse=metric == "near")
        table = Table(verdict_table(verdict))
        Page("Sales", verdict_sentence(verdict), [Section("Losses", [table])]).save(tmp_path.joinpath)
        written = (tmp_path / "summary.md").read_text()
        assert f"test {metric}" in written and "squares" in written
        assert not re.search(r"label|auc", written, re.IGNORECASE)


def test_a_model_of_other_columns_gets_the_general_trainer(toy: Task) -> None:
    assert choose_trainer(TwoEffects, PROTOCOL, device="cpu").describe(Sales(toy).schema)["trainer"] == "stacked"
    weighed = LossEvaluator(Sales(toy), StackedTrainer(TwoEffects, PROTOCOL, device="cpu"), epochs=1)
    assert weighed.evaluate([Expression.parse("size * abs(guess - goal)")], {}, 1)[0].reward is not None


def test_a_part_that_is_judged_by_other_rows_is_told_in_one_line(toy: Task) -> None:
    class Wrong(Sales):
        def judge(self, part: Part, device: torch.device | str = "cpu") -> Judge:
            return super().judge("test", device)

    evaluator = LossEvaluator(Wrong(toy), StackedTrainer(TwoEffects, PROTOCOL, device="cpu"), epochs=1)
    with pytest.raises(DataError, match=r"sales, validation part of 100 rows: .*same length") as told_so:
        evaluator.evaluate([Expression.parse("square(guess - goal)")], {}, 1)
    assert "\n" not in str(told_so.value)
