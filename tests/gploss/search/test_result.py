"""Results: what they say about a run, and that files give back exactly what was saved, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation, Status
from gploss.search.record import RunRecord, pareto_front
from gploss.search.result import ResultError, SearchResult
from gploss.search.reward import BaselineFilter
from gploss.searchers.genetic import GeneticSearcher
from tests.synthetic import SyntheticEvaluator

STANDARD = Grammar.standard()


@pytest.fixture(scope="module")
def result() -> SearchResult:
    searcher = GeneticSearcher(STANDARD, SyntheticEvaluator(epochs=2), seed=4, reward_filter=BaselineFilter(0.6))
    return searcher.run(80, progress=False)


def trained(text: str, reward: float) -> Evaluation:
    return Evaluation(STANDARD.parse(text), Status.TRAINED, reward=reward)


def test_a_file_gives_back_exactly_what_was_saved(result: SearchResult, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "result.json"
    result.save(file)
    loaded = SearchResult.load(file)
    assert loaded == result
    pd.testing.assert_frame_equal(loaded.evaluations, result.evaluations)
    assert loaded.best == result.best
    assert loaded.pareto == result.pareto
    assert [path.name for path in file.parent.iterdir()] == ["result.json"]


def test_a_failed_save_leaves_the_older_file(
    result: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    result.save(file)

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        result.save(file)
    assert SearchResult.load(file) == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_still_the_same(
    result: SearchResult, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "result.json"
    result.save(file)
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(content[:place])
    else:
        byte = data.draw(st.integers(0, 255))
        file.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        loaded = SearchResult.load(file)
    except ResultError as error:
        assert str(file) in str(error)
    else:
        # Only a blank for a blank, or the same byte, or an escape written in another way.
        assert loaded == result


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "12", '{"format": "something else"}', "\x00\xff"])
def test_another_file_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ResultError, match=r"other\.json"):
        SearchResult.load(file)


def test_a_newer_format_is_an_error_that_says_so(result: SearchResult, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    result.save(file)
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(ResultError, match="version 99"):
        SearchResult.load(file)


def test_a_missing_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SearchResult.load(tmp_path / "nothing.json")


def test_the_table_has_a_row_a_proposal(result: SearchResult) -> None:
    table = result.evaluations
    assert list(table.columns) == [
        "step",
        "expression",
        "status",
        "reason",
        "reward",
        "fingerprint",
        "duplicate_of",
        "cached",
        "seconds",
        "candidate_epochs",
        "complexity",
        "elapsed",
    ]
    assert list(table["step"]) == list(range(1, len(result.records) + 1))
    assert [Expression.parse(text) for text in table["expression"]] == [r.expression for r in result.records]
    by_status = table["status"].value_counts()
    assert by_status["trained"] == result.counts["trained"]
    assert by_status["duplicate"] == result.counts["duplicates"]
    assert by_status["rejected"] == result.counts["rejected"]
    assert table["reward"].notna().sum() == result.counts["trained"] + result.counts["duplicates"]
    assert table["elapsed"].is_monotonic_increasing
    assert (table.loc[table["status"] == "rejected", "reason"] == "zero gradient").all()


def test_a_table_without_rows_has_all_columns_and_types(result: SearchResult) -> None:
    empty = make(result, ())
    assert empty.best is None and empty.pareto == []
    assert empty.evaluations.dtypes.equals(result.evaluations.dtypes) or len(empty.evaluations) == 0
    assert list(empty.evaluations.columns) == list(result.evaluations.columns)
    assert "no candidate was trained" in str(empty)


def make(result: SearchResult, records: tuple[Evaluation, ...], **changes: Any) -> SearchResult:
    fields: dict[str, Any] = {
        "searcher": result.searcher,
        "seed": result.seed,
        "stopped": result.stopped,
        "metric": result.metric,
        "higher_is_better": True,
        "counts": {},
        "settings": {},
        "records": records,
        "elapsed": tuple(0.0 for _ in records),
    }
    return SearchResult(**{**fields, **changes})


def test_counts_add_up(result: SearchResult) -> None:
    counts = result.counts
    kinds = ("trained", "diverged", "duplicates", "rejected")
    assert counts["proposals"] == sum(counts[kind] for kind in kinds) == len(result.records)
    assert counts["rejected"] == sum(count for name, count in counts.items() if name.startswith("rejected: "))
    assert 0 < counts["below_baseline"] < counts["proposals"]


def test_settings_name_what_made_the_run(result: SearchResult) -> None:
    assert set(result.settings["versions"]) >= {"python", "numpy", "torch", "gploss"}  # type: ignore[arg-type]
    assert result.settings["budget"] == {"candidates": 80}
    assert result.settings["seed"] == 4
    assert result.settings["evaluator"]["kind"] == "synthetic"  # type: ignore[index, call-overload]


def test_the_best_is_readable_and_usable(result: SearchResult) -> None:
    best = result.best
    assert best is not None
    assert best.reward == max(record.reward for record in result.records if record.reward is not None)
    assert best.expression.readable() in str(best) and f"{best.reward:.4f}" in str(best)
    assert str(best) in str(result)
    score = torch.tensor([0.5, -1.0], requires_grad=True)
    loss = best.loss(score, torch.tensor([1.0, 0.0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.shape == () and score.grad is not None


def test_of_equals_the_less_complex_is_the_best_and_then_the_first(result: SearchResult) -> None:
    records = (
        trained("square(square(pred))", 0.8),
        trained("square(pred)", 0.8),
        trained("exp(pred)", 0.8),
        trained("pred", 0.7),
    )
    best = make(result, records).best
    assert best is not None and str(best.expression) == "square(pred)"
    worst = make(result, records, higher_is_better=False).best
    assert worst is not None and str(worst.expression) == "pred"


@settings(max_examples=200, deadline=None)
@given(
    members=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), max_size=20),
    higher_is_better=st.booleans(),
)
def test_the_pareto_front_is_what_nothing_dominates(members: list[tuple[int, int]], higher_is_better: bool) -> None:
    expression = STANDARD.leaf("logit")
    ladder = [expression := Expression.apply("square", expression) for _ in range(8)]
    evaluations = [Evaluation(ladder[size], Status.TRAINED, reward=float(reward)) for size, reward in members]
    sign = 1 if higher_is_better else -1

    def dominated(size: int, reward: int) -> bool:
        return any(
            s <= size and sign * r >= sign * reward and (s < size or sign * r > sign * reward) for s, r in members
        )

    expected = sorted({(size, reward) for size, reward in members if not dominated(size, reward)})
    front = pareto_front(evaluations, higher_is_better)
    assert [(ladder.index(e.expression), e.reward) for e in front] == expected


def test_only_trained_candidates_are_best_or_on_the_front() -> None:
    duplicate = Evaluation(STANDARD.leaf("pred"), Status.DUPLICATE, reward=0.9, duplicate_of="logit")
    rejected = Evaluation(STANDARD.leaf("label"), Status.REJECTED, "zero gradient")
    record = RunRecord(higher_is_better=True)
    record.add([duplicate, rejected], 1.0)
    assert record.best is None
    assert pareto_front([duplicate, rejected], True) == []


def test_parts_that_do_not_fit_are_refused(result: SearchResult) -> None:
    with pytest.raises(ValueError, match="stopped"):
        make(result, (), stopped="tired")
    with pytest.raises(ValueError, match="elapsed"):
        make(result, (trained("pred", 0.5),), elapsed=())
