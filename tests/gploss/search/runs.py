"""What the tests of runs share: searchers with a cheap evaluator, and what two equal runs have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gploss.language.grammar import Grammar
from gploss.registry import discover
from gploss.search.budget import Budget
from gploss.search.result import SearchResult
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


def raise_interrupt() -> None:
    raise KeyboardInterrupt
