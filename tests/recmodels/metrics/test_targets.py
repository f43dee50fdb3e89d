"""Labels and users: what is taken, and what is refused."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from recmodels.metrics import METRICS, evaluate, require
from recmodels.metrics.targets import Targets
from tests.recmodels.metrics.cases import ALL, make_data, same_bits


def test_targets_take_lists_tensors_booleans_and_read_only_arrays() -> None:
    scores, labels, users = make_data(2)
    labels.flags.writeable = False
    expected = evaluate(ALL, scores, Targets(labels, users))
    for other in [
        Targets(labels.tolist(), users.tolist()),
        Targets(torch.tensor(labels), torch.tensor(users)),
        Targets(labels > 0, pd.Series(users).to_numpy()),
    ]:
        found = evaluate(ALL, scores, other)
        assert all(same_bits(found[name], expected[name]) for name in ALL)


def test_targets_hold_a_copy_of_tensors_too() -> None:
    labels, users = torch.tensor([1.0, 0.0]), torch.tensor([3, 4])
    targets = Targets(labels, users)
    labels[:], users[:] = 0.0, 9
    assert (targets.labels.tolist(), targets.users.tolist()) == ([1.0, 0.0], [3, 4])


def test_counts() -> None:
    targets = Targets([1, 0, 0], users=[2, 2, 9])
    assert (targets.n_rows, targets.n_positives, targets.n_negatives) == (3, 1, 2)
    assert targets.device == torch.device("cpu")
    assert len(targets.all_users.begins) == 2
    assert len(targets.mixed_users.begins) == 1


@pytest.mark.parametrize(
    ("labels", "users", "name", "message"),
    [
        ([1, 1], None, "auc", "'auc'.*2 rows.*2 with label 1, 0 with label 0.*label 1 and rows with label 0"),
        ([0, 0], None, "auc", "label 1 and rows with label 0"),
        ([0, 0], None, "f1", "at least one row with label 1"),
        ([0, 0], None, "accuracy", "at least one row with label 1"),
        ([0, 0], [1, 2], "ndcg@5", "at least one row with label 1"),
        ([1, 0], None, "gauc", r"the user of each row \(Targets\(labels, users\)\)"),
        ([1, 0], None, "hr@10", "the user of each row"),
        ([1, 0], [1, 2], "gauc", "at least one user with rows of both labels"),
    ],
)
def test_targets_that_offer_too_little(labels: list[int], users: list[int] | None, name: str, message: str) -> None:
    targets = Targets(labels, users)
    with pytest.raises(ValueError, match=message):
        require(["rmse", name], targets)
    with pytest.raises(ValueError, match=message):
        evaluate(["mae", name], torch.zeros(1, 2), targets)
    with pytest.raises(ValueError, match=message):
        METRICS[name](torch.zeros(1, 2), targets)


def test_one_class_is_enough_for_pointwise_metrics() -> None:
    targets = Targets([1, 1])
    require(["logloss", "rmse", "mae", "f1"], targets)
    found = evaluate(["logloss", "rmse", "mae", "f1"], torch.zeros(1, 2), targets)
    assert [values.item() for values in found.values()] == pytest.approx([math.log(2), 0.5, 0.5, 1.0])


@pytest.mark.parametrize(
    ("labels", "users", "error", "message"),
    [
        ([], None, ValueError, r"shape \(0,\)"),
        ([[1, 0]], None, ValueError, r"shape \(1, 2\)"),
        ([0, 1, 2], None, ValueError, "row 2 has 2"),
        ([0, math.nan], None, ValueError, "row 1 has nan"),
        (["a", "b"], None, TypeError, "labels are .*must be numbers"),
        ([0, 1], [1], ValueError, "one user a row"),
        ([0, 1], [1.0, 2.0], TypeError, "must be integers"),
        ([0, 1], ["u", "v"], TypeError, "users are .*must be numbers"),
    ],
)
def test_targets_that_make_no_sense(
    labels: list[float], users: list[int] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Targets(labels, users)
