"""The pointwise problem: rows, weights, further inputs, and a judge that is the metrics."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.metrics import evaluate
from recmodels.metrics.targets import Targets


def interactions(rows: int, seed: int, weights: npt.ArrayLike | None = None) -> Interactions:
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 5, rows), rng.integers(0, 4, rows), np.arange(rows) % 2
    return Interactions(*columns, 5, 4, weights=weights)  # type: ignore[arg-type]


SPLIT = Split("tiny", interactions(20, 0), interactions(11, 1), interactions(12, 2))
WEIGHTED = Split(
    "weighted",
    replace(SPLIT.train, weights=np.arange(20) + 1.0),
    replace(SPLIT.validation, weights=np.full(11, 21.0)),
    replace(SPLIT.test, weights=np.zeros(12)),
)


def popularity(rows: Interactions, train: Interactions) -> npt.NDArray[Any]:
    return np.bincount(train.items, minlength=train.n_items)[rows.items]


def test_rows_are_the_interactions() -> None:
    problem = PointwiseProblem(SPLIT)
    for part, rows in SPLIT.parts().items():
        found = problem.rows(part)  # type: ignore[arg-type]
        assert dict(found.schema) == {"user": 5, "item": 4} and found.weights is None
        np.testing.assert_array_equal(found.features["user"], rows.users)
        np.testing.assert_array_equal(found.features["item"], rows.items)
        np.testing.assert_array_equal(found.inputs["label"], rows.labels)
        np.testing.assert_array_equal(problem.groups(part), rows.users)  # type: ignore[arg-type]
    assert problem.metric == POINTWISE.metric and list(problem.metrics) == [POINTWISE.metric]


def test_the_judge_is_the_metrics_on_the_part() -> None:
    problem = PointwiseProblem(SPLIT, ("logloss", "gauc"))
    assert problem.metrics == {"logloss": False, "gauc": True} and not problem.higher_is_better
    scores = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    found = problem.judge("test")(scores)
    targets = Targets(SPLIT.test.labels, SPLIT.test.users)
    expected = evaluate(["logloss", "gauc"], scores, targets)
    assert list(found) == ["logloss", "gauc"]
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_weights_are_divided_by_their_mean_over_train() -> None:
    problem = PointwiseProblem(WEIGHTED)
    train, validation, test = (problem.rows(part) for part in ("train", "validation", "test"))
    np.testing.assert_allclose(train.inputs["weight"], (np.arange(20) + 1) / 10.5, rtol=1e-6)
    assert train.weights is not None and validation.weights is not None
    np.testing.assert_array_equal(train.weights, train.inputs["weight"])
    np.testing.assert_array_equal(validation.weights, np.full(11, 2.0))
    assert test.weights is not None and not test.weights.any()
    plain = PointwiseProblem(SPLIT)
    assert problem.describe() != plain.describe()
    scores = torch.randn(2, 11, generator=torch.Generator().manual_seed(1))
    assert torch.equal(problem.judge("validation")(scores)["auc"], plain.judge("validation")(scores)["auc"])


def test_further_inputs_are_a_function_of_rows_and_train() -> None:
    task = POINTWISE.with_input(replace(POINTWISE.inputs[-1], name="popularity"))
    problem = PointwiseProblem(SPLIT, task=task, inputs={"popularity": popularity})
    counts = np.bincount(SPLIT.train.items, minlength=4)
    for part in ("train", "validation"):
        rows = problem.rows(part)
        np.testing.assert_array_equal(rows.inputs["popularity"], counts[rows.features["item"]])
    assert problem.describe() != PointwiseProblem(SPLIT).describe()
    copied = pickle.loads(pickle.dumps(problem))  # noqa: S301
    assert copied.describe() == problem.describe()


def test_inputs_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(DataError, match=r"the task 'pointwise' has no input 'popularity'; .*with_input"):
        PointwiseProblem(SPLIT, inputs={"popularity": popularity})
    with pytest.raises(LookupError, match="nonsense"):
        PointwiseProblem(SPLIT, ("nonsense",))
    short = PointwiseProblem(SPLIT, inputs={"weight": lambda rows, train: np.ones(3)})
    with pytest.raises(DataError, match="weight has 3 entries, but user has 20"):
        short.rows("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, -1.0]}, r"weights\[1\] is -1.0; a weight is a finite number of at least 0"),
        ({"weights": [1.0, np.inf]}, r"weights\[1\] is inf"),
        ({"weights": [1.0]}, "weights has 1 entries, but users has 2"),
        ({"weights": ["a", "b"]}, "numbers are needed"),
    ],
)
def test_weights_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Interactions(np.array([0, 1]), np.array([0, 1]), np.array([0, 1]), 2, 2, **change)


def test_parts_with_and_without_weights_do_not_go_together() -> None:
    with pytest.raises(DataError, match="train and validation must both have weights, or none"):
        replace(WEIGHTED, validation=SPLIT.validation)
    with pytest.raises(DataError, match="weights of the train part are all 0"):
        replace(WEIGHTED, train=replace(SPLIT.train, weights=np.zeros(20)))
    with pytest.raises(DataError, match="cannot be joined with rows without"):
        WEIGHTED.train.followed_by(SPLIT.validation)


def test_weights_go_where_their_rows_go() -> None:
    both = WEIGHTED.train.followed_by(WEIGHTED.validation).take(np.array([25, 3]))
    assert both.weights is not None and both.weights.tolist() == [21.0, 4.0]
    assert WEIGHTED.train.content_hash != SPLIT.train.content_hash
