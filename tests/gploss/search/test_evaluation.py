from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gploss.files.plain import canonical_json
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation, EvaluationKey, Status

numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(st.text(), st.lists(numbers, max_size=5), max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    grammar = draw(st.sampled_from([Grammar.paper(), Grammar.standard()]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return grammar.sample(rng, draw(st.integers(1, 6)))


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    status = draw(st.sampled_from(Status))
    failed = status in (Status.REJECTED, Status.DIVERGED)
    text = st.none() | st.text()
    return Evaluation(
        loss=draw(expressions()),
        status=status,
        reason=draw(st.text(min_size=1) if failed else text),
        reward=None if failed else draw(finite),
        metrics=draw(metrics),
        fingerprint=draw(text),
        scale=draw(st.none() | finite),
        duplicate_of=draw(st.text() if status is Status.DUPLICATE else text),
        cached=draw(st.booleans()),
        seconds=draw(finite),
        candidate_epochs=draw(st.integers(0, 10**6)),
    )


def same(left: Evaluation, right: Evaluation) -> bool:
    # repr tells NaN from numbers and -0.0 from 0.0, and finds NaN equal to NaN.
    return left.expression is right.expression and repr(left) == repr(right)


@given(evaluations())
def test_an_evaluation_survives_json_and_pickle(evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_json(), allow_nan=False)
    assert same(Evaluation.from_json(json.loads(text)), evaluation)
    assert same(pickle.loads(pickle.dumps(evaluation)), evaluation)  # noqa: S301


def test_nan_metrics_become_null() -> None:
    metrics = {"auc": [math.nan, 0.5, math.inf]}
    evaluation = Evaluation(Expression.parse("pred"), Status.TRAINED, reward=0.5, metrics=metrics)
    assert evaluation.to_json()["metrics"] == {"auc": [None, 0.5, "inf"]}


@pytest.mark.parametrize("status", Status)
def test_only_trained_and_diverged_candidates_are_charged(status: Status) -> None:
    reward = 0.5 if status in (Status.TRAINED, Status.DUPLICATE) else None
    evaluation = Evaluation(Expression.parse("pred"), status, "reason", reward, duplicate_of="neg(pred)")
    assert evaluation.charged == (status in (Status.TRAINED, Status.DIVERGED))


@pytest.mark.parametrize(
    "fields",
    [
        {"status": Status.REJECTED, "reason": "zero gradient", "reward": 0.0},
        {"status": Status.DIVERGED, "reason": "nan", "reward": 0.0},
        {"status": Status.REJECTED},
        {"status": Status.TRAINED},
        {"status": Status.TRAINED, "reward": math.nan},
        {"status": Status.TRAINED, "reward": 0.5, "scale": math.inf},
        {"status": Status.DUPLICATE, "reward": 0.5},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="evaluation"):
        Evaluation(Expression.parse("pred"), **fields)


@pytest.mark.parametrize(
    "change", [{"surplus": 1}, {"status": "unheard of"}, {"loss": "add(pred"}, {"kind": "unheard of"}, {"kind": 3}]
)
def test_records_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    record = Evaluation(Expression.parse("pred"), Status.TRAINED, reward=0.5).to_json()
    with pytest.raises((ValueError, LookupError)):
        Evaluation.from_json({**record, **change})
    del record["status"]
    with pytest.raises(ValueError, match=r"missing fields.*status"):
        Evaluation.from_json(record)


@given(st.dictionaries(st.text(), json_values))
def test_a_key_does_not_depend_on_the_order_of_its_fields(fields: dict[str, Any]) -> None:
    key = EvaluationKey(fields)
    assert json.loads(key.canonical_json) == fields
    again = EvaluationKey(dict(reversed(fields.items())))
    assert again == key and hash(again) == hash(key) and again.hash == key.hash
    assert pickle.loads(pickle.dumps(key)) == key  # noqa: S301


@given(st.dictionaries(st.text(), json_values, min_size=1), st.data())
def test_every_field_of_a_key_counts(fields: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(json_values.filter(lambda value: canonical_json(value) != canonical_json(fields[name])))
    without = {other: fields[other] for other in fields if other != name}
    changed = [EvaluationKey({**fields, name: value}), EvaluationKey(without)]
    for other in changed:
        assert other != EvaluationKey(fields)
        assert other.hash != EvaluationKey(fields).hash


def test_a_key_is_compact_sorted_and_keeps_every_digit() -> None:
    key = EvaluationKey({"b": 0.1, "a": [1, 1.0, True, None], "c": 1e-17})
    assert key.canonical_json == '{"a":[1,1.0,true,null],"b":0.1,"c":1e-17}'
    assert len(key.hash) == 32 and set(key.hash) <= set("0123456789abcdef")


def test_a_key_is_not_changed_with_the_dict_that_it_was_made_of() -> None:
    inner = [1, 2]
    key = EvaluationKey({"layers": inner})
    inner.append(3)
    assert key.fields == {"layers": [1, 2]}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"rate": math.nan}, r"value\['rate'\] is nan"),
        ({"rate": [0.5, math.inf]}, r"value\['rate'\]\[1\] is inf"),
        ({"model": {1: "mf"}}, r"value\['model'\] has the key 1, a int"),
        ({"rate": np.float32(0.5)}, r"value\['rate'\] is .*float32"),
        ({"names": {"a"}}, r"value\['names'\] is .*a set"),
        ([1], "needs a dict of fields"),
    ],
)
def test_a_key_names_the_place_of_what_is_not_json(fields: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        EvaluationKey(fields)
