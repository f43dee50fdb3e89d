"""Problems: their batches, and what is said before anything is trained with one that does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import DataError
from recmodels.data.rows import Rows, Schema
from recmodels.training.problem import Judge, Part, Problem, bounds_of

COUNTS = {"train": 7, "validation": 5, "test": 3}


class Small(Problem):
    """One column and one input; the judge can be changed."""

    name = "small"
    task = POINTWISE
    metrics: Mapping[str, bool] = {"mean": True, "error": False}

    def __init__(self, judged: Callable[[torch.Tensor], Any] | None = None, **counts: int) -> None:
        self.judged = judged
        self.counts = {**COUNTS, **counts}

    def rows(self, part: Part) -> Rows:
        ids = np.arange(self.counts[part]) % 2
        return Rows(Schema({"shop": 2}), {"shop": ids}, {"label": ids})

    def judge_of(self, rows: Rows, groups: Any, device: torch.device | str = "cpu") -> Judge:
        if self.judged is not None:
            return self.judged
        wanted = torch.arange(5.0) / 5
        return lambda scores: {"mean": scores.mean(1), "error": (scores - wanted).square().mean(1)}


@given(st.integers(1, 200), st.integers(1, 30))
def test_batches_cover_the_data_and_none_but_a_lone_one_has_a_single_row(count: int, size: int) -> None:
    lengths = np.diff(bounds_of(count, size)).tolist()
    assert sum(lengths) == count
    assert all(length == size for length in lengths[:-1])
    assert size == 1 or lengths[-1] > 1 or count == 1


def test_an_epoch_is_the_train_part_in_an_order_of_its_own() -> None:
    class Numbered(Small):
        def rows(self, part: Part) -> Rows:
            return Rows(Schema({"shop": 7}), {"shop": np.arange(7)}, {"label": np.zeros(7)})

    problem = Numbered()
    orders = [
        problem.batches(seed, epoch, {"batch_size": 3.0}).rows.features["shop"].tolist()
        for seed in range(3)
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 6
    assert problem.batches(1, 2, {"batch_size": 3.0}).bounds.tolist() == [0, 3, 7]
    np.testing.assert_array_equal(orders[5], np.random.default_rng([1, 1, 2]).permutation(7))


def test_a_sound_problem_passes() -> None:
    Small().check(["label"])
    assert Small().metric == "mean" and Small().higher_is_better


@pytest.mark.parametrize(
    ("problem", "inputs", "message"),
    [
        (Small(train=0), [], "small: the train part is empty"),
        (Small(), ["price"], "small: the losses read the input 'price', which the train part lacks; it has label"),
        (
            Small(validation=4),
            [],
            "small, validation part of 4 rows: cannot be judged by mean, error .*same length",
        ),
        (Small(lambda scores: {"mean": scores.mean(1)}), [], "the judge gives mean, the problem's metrics are"),
        (
            Small(lambda scores: {"mean": scores.mean(), "error": scores.mean(1)}),
            [],
            r"mean of one model has the shape \(\); give \(1,\)",
        ),
        (
            Small(lambda scores: {"mean": scores.mean(1), "error": scores.mean(1) / 0}),
            [],
            "small, validation part of 5 rows: error is nan; choose another metric or split",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(problem: Small, inputs: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        problem.check(inputs)
    assert "\n" not in str(told.value)


def test_the_test_part_can_be_checked_as_well() -> None:
    with pytest.raises(DataError, match="small, test part of 3 rows"):
        Small().check([], "test")


def test_an_edited_problem_has_another_key() -> None:
    class Edited(Small):
        def judge_of(self, rows: Rows, groups: Any, device: torch.device | str = "cpu") -> Judge:
            return lambda scores: {"mean": -scores.mean(1), "error": scores.std(1)}

    assert Small().describe() == Small().describe()
    assert Edited().describe() != Small().describe()
    assert Small(train=9).describe() != Small().describe() != Small(validation=9).describe()
