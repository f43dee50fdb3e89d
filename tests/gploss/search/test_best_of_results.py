"""The best of one result or of several: distinct losses in the right order, joined only where rewards compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation, Status
from gploss.search.result import SearchResult
from gploss.searchers.genetic import GeneticSearcher
from gploss.searchers.random_search import RandomSearcher
from tests.synthetic import SyntheticEvaluator

LADDER = [Expression.parse("logit")]
for _ in range(5):
    LADDER.append(Expression.apply("square", LADDER[-1]))

statuses = st.sampled_from([Status.TRAINED, Status.TRAINED, Status.DUPLICATE, Status.REJECTED])


def evaluation(status: Status, complexity: int, reward: float, fingerprint: str | None) -> Evaluation:
    return Evaluation(
        LADDER[complexity],
        status,
        reason="zero gradient" if status is Status.REJECTED else None,
        reward=None if status is Status.REJECTED else reward,
        fingerprint=fingerprint,
        duplicate_of="logit" if status is Status.DUPLICATE else None,
    )


rewards = st.sampled_from([0.1, 0.2, 0.3])
fingerprints = st.sampled_from([None, "a", "b", "c"])
evaluations = st.builds(evaluation, statuses, st.integers(0, 5), rewards, fingerprints)


def result_of(records: list[Evaluation], **changes: Any) -> SearchResult:
    fields: dict[str, Any] = {
        "searcher": "random",
        "seed": 0,
        "stopped": "budget",
        "metric": "auc",
        "higher_is_better": True,
        "counts": {"proposals": len(records)},
        "settings": {"searcher": "random", "evaluator": {"data": "toy", "seed": 7}},
        "records": tuple(records),
        "elapsed": tuple(float(step) for step in range(len(records))),
    }
    return SearchResult(**{**fields, **changes})


@given(st.lists(evaluations, max_size=12), st.booleans(), st.integers(1, 6))
def test_the_top_is_the_best_of_each_loss_in_order(
    records: list[Evaluation], higher_is_better: bool, k: int
) -> None:
    sign = -1.0 if higher_is_better else 1.0
    by_loss: dict[str, list[tuple[float, int, int]]] = {}
    for place, record in enumerate(records):
        if record.status is Status.TRAINED and record.reward is not None:
            rank = (sign * record.reward, record.expression.complexity, place)
            by_loss.setdefault(record.fingerprint or str(record.expression), []).append(rank)
    expected = [records[place] for _, _, place in sorted(min(ranks) for ranks in by_loss.values())]
    found = result_of(records, higher_is_better=higher_is_better)
    assert [loss.evaluation for loss in found.top(k)] == expected[:k]
    assert [found.best] == (found.top(1) or [None])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_how_many_is_a_whole_number(k: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="k must be"):
        result_of([]).top(k)


@given(st.lists(st.lists(evaluations, max_size=5), min_size=1, max_size=4))
def test_joined_runs_are_one_run_after_the_other(runs: list[list[Evaluation]]) -> None:
    joined = SearchResult.join(result_of(records) for records in runs)
    assert joined.records == tuple(record for records in runs for record in records)
    assert list(joined.elapsed) == sorted(joined.elapsed)
    assert joined.counts == {"proposals": len(joined.records)}
    assert joined.top(9) == result_of(list(joined.records)).top(9)
    assert joined.settings == {"joined": [result_of([]).settings] * len(runs)}


def test_runs_of_different_searchers_and_seeds_join(tmp_path: Path) -> None:
    grammar = Grammar.standard()
    genetic = GeneticSearcher(grammar, SyntheticEvaluator(), seed=0).run(40, progress=False)
    first, second = (
        RandomSearcher(grammar, SyntheticEvaluator(), seed=seed).run(20, progress=False) for seed in (0, 1)
    )
    joined = SearchResult.join([genetic, SearchResult.join([first, second])])
    assert (joined.searcher, joined.seed) == ("genetic + random", None)
    assert joined.settings["joined"] == [genetic.settings, first.settings, second.settings]
    assert joined.counts["trained"] == 80
    assert joined.best is not None and genetic.best is not None
    assert joined.best.reward == max(one.reward for one in (*genetic.top(1), *first.top(1), *second.top(1)))
    fingerprints = [loss.evaluation.fingerprint for loss in joined.top(100)]
    assert len(set(fingerprints)) == len(fingerprints)
    joined.save(tmp_path / "joined.json")
    assert SearchResult.load(tmp_path / "joined.json") == joined


def test_a_joined_run_ended_as_the_least_complete_one() -> None:
    def ends(*stopped: str) -> str:
        return SearchResult.join(result_of([], stopped=one) for one in stopped).stopped

    assert ends("budget", "budget") == "budget"
    assert ends("exhausted", "budget") == "exhausted"
    assert ends("budget", "interrupted", "exhausted") == "interrupted"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"metric": "rmse"}, r"problem\.metric: 'auc' in result 1, 'rmse' in result 2"),
        ({"higher_is_better": False}, r"problem\.higher_is_better: True in result 1, False in result 2"),
        (
            {"settings": {"searcher": "random", "evaluator": {"data": "other", "seed": 7}}},
            r"problem\.evaluator\.data: 'toy' in result 1, 'other' in result 2",
        ),
    ],
)
def test_results_of_different_problems_do_not_join(changes: dict[str, Any], difference: str) -> None:
    with pytest.raises(ValueError, match=f"different problems cannot be joined:\n{difference}$"):
        SearchResult.join([result_of([]), result_of([], **changes)])


def test_the_luck_of_training_is_no_other_problem() -> None:
    other = {"searcher": "random", "evaluator": {"data": "toy", "seed": 8}}
    assert SearchResult.join([result_of([]), result_of([], settings=other)]).seed == 0


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="at least one result"):
        SearchResult.join([])


# How results are shown


def test_a_result_is_shown_in_a_few_lines_however_long_it_was() -> None:
    text = "logit"
    for number in range(40):
        text = f"add(mul({number}, {text}), pred)"
    long = Expression.parse(text)
    records = [Evaluation(long, Status.TRAINED, reward=0.5 + n / 1e5, fingerprint=str(n)) for n in range(2000)]
    result = result_of(records)
    assert len(repr(result)) < 1000 and len(repr(result).splitlines()) == 6
    assert repr(result).startswith("<SearchResult: random (seed 0) ended as budget; 2000 proposals\n   1. ")
    assert len(result._repr_html_()) < 3000
    assert result._repr_html_().count("<tr") == 6


def test_what_a_notebook_shows_is_text_and_no_markup() -> None:
    result = result_of([Evaluation(Expression.parse("pred"), Status.TRAINED, reward=0.75)], searcher="<b>mine</b>")
    page = result._repr_html_()
    assert "&lt;b&gt;mine" in page and "<b>mine" not in page
    assert "0.7500" in page and "<td>sigmoid(s)</td>" in page


def test_a_result_without_a_loss_can_be_shown() -> None:
    assert repr(result_of([])) == "<SearchResult: random (seed 0) ended as budget>"
    assert "no candidate was trained" in result_of([])._repr_html_()
