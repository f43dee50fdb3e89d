"""Metrics of pairs, errors and thresholds, against scikit-learn, pandas and counting by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, precision_recall_curve, roc_auc_score

from recmodels.metrics import METRICS, evaluate
from recmodels.metrics.targets import Targets
from tests.recmodels.metrics.cases import N_ROWS, make_data, small_cases


def sigmoid(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = 1 / (1 + np.exp(-scores.astype(np.float64)))
    return result


def counted_auc(scores: list[float], labels: list[int]) -> float:
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    negatives = [score for score, label in zip(scores, labels, strict=True) if not label]
    doubled = sum(2 * (p > n) + (p == n) for p in positives for n in negatives)
    return float(Fraction(doubled, 2 * len(positives) * len(negatives)))


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_auc_equals_scikit_learn(levels: int | None) -> None:
    scores, labels, users = make_data(20, levels=levels)
    expected = [roc_auc_score(labels, row) for row in scores.numpy()]
    found = evaluate(["auc"], scores, Targets(labels, users))["auc"]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=5e-16)


@given(small_cases)
@settings(deadline=None)
def test_auc_equals_pair_counting_to_the_last_bit(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, _ = (list(column) for column in zip(*rows, strict=True))
    found = METRICS["auc"](torch.tensor([scores], dtype=torch.float32), Targets(labels))
    assert found.item() == counted_auc([float(score) for score in scores], labels)


finite_floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(finite_floats, st.booleans()), min_size=2).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
@settings(deadline=None)
def test_auc_orders_every_finite_float(rows: list[tuple[float, bool]]) -> None:
    scores = [score for score, _ in rows]
    labels = [int(label) for _, label in rows]
    found = METRICS["auc"](torch.tensor([scores], dtype=torch.float32), Targets(labels))
    assert found.item() == counted_auc(scores, labels)


def test_auc_takes_both_zeros_as_equal_and_keeps_denormals_apart() -> None:
    tiny = 1e-45
    scores = torch.tensor([[0.0, -0.0], [-0.0, 0.0], [tiny, 0.0], [-tiny, -0.0], [3e38, -3e38]])
    assert METRICS["auc"](scores, Targets([1, 0])).tolist() == [0.5, 0.5, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("levels", [None, 2])
def test_gauc_equals_a_groupby(levels: int | None) -> None:
    scores, labels, users = make_data(6, levels=levels)
    expected = []
    for row in scores.numpy():
        frame = pd.DataFrame({"user": users, "label": labels, "score": row})
        mixed = [group for _, group in frame.groupby("user") if group["label"].nunique() == 2]
        values = [roc_auc_score(group["label"], group["score"]) for group in mixed]
        expected.append(np.average(values, weights=[len(group) for group in mixed]))
    found = METRICS["gauc"](scores, Targets(labels, users))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)


def test_gauc_leaves_out_users_with_one_label() -> None:
    targets = Targets([1, 0, 1, 1, 0], users=[5, 5, 6, 6, 7])
    scores = torch.tensor([[2.0, 1.0, 0.0, 9.0, 9.0]])
    assert METRICS["gauc"](scores, targets).item() == 1.0


def test_gauc_of_one_user_is_auc() -> None:
    scores, labels, _ = make_data(5, levels=3)
    found = evaluate(["auc", "gauc"], scores, Targets(labels, np.zeros(N_ROWS, int)))
    torch.testing.assert_close(found["auc"], found["gauc"], rtol=0, atol=1e-15)


def test_pointwise_metrics_equal_scikit_learn_and_numpy() -> None:
    scores, labels, users = make_data(8)
    found = evaluate(["logloss", "rmse", "mae"], scores, Targets(labels, users))
    for row, values in enumerate(scores.numpy()):
        probability = sigmoid(values)
        clipped = np.clip(probability, 1e-6, 1 - 1e-6)
        assert found["logloss"][row].item() == pytest.approx(log_loss(labels, clipped), abs=1e-13)
        assert found["rmse"][row].item() == pytest.approx(np.sqrt(np.mean((probability - labels) ** 2)), abs=1e-14)
        assert found["mae"][row].item() == pytest.approx(np.mean(np.abs(probability - labels)), abs=1e-14)


def test_pointwise_metrics_are_stable_far_from_zero() -> None:
    scores = torch.tensor([[3e38, -3e38], [-3e38, 3e38]])
    found = evaluate(["logloss", "rmse", "mae"], scores, Targets([1, 0]))
    assert found["logloss"].tolist() == pytest.approx([-math.log1p(-1e-6), -math.log(1e-6)], abs=1e-14)
    assert found["rmse"].tolist() == [0.0, 1.0]
    assert found["mae"].tolist() == [0.0, 1.0]


def test_f1_and_accuracy_equal_scikit_learn() -> None:
    scores, labels, _ = make_data(12)
    found = evaluate(["f1", "accuracy"], scores, Targets(labels))
    for row, values in enumerate(scores.numpy()):
        precision, recall, thresholds = precision_recall_curve(labels, values)
        curve = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-300)
        assert found["f1"][row].item() == pytest.approx(curve.max(), abs=1e-14)
        # Rounding in the curve may move its argmax among equals: take the lowest of them, as documented.
        threshold = thresholds[np.flatnonzero(curve > curve.max() - 1e-12)[0]]
        expected = accuracy_score(labels, values >= threshold)
        assert found["accuracy"][row].item() == pytest.approx(expected, abs=1e-14)


@given(small_cases)
@settings(deadline=None)
def test_f1_and_accuracy_try_every_threshold(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, _ = (np.array(column) for column in zip(*rows, strict=True))
    best, accuracy = Fraction(-1), Fraction(0)
    for threshold in sorted(set(scores.tolist())):
        chosen = scores >= threshold
        f1 = Fraction(int(2 * labels[chosen].sum()), int(chosen.sum() + labels.sum()))
        if f1 > best:
            best, accuracy = f1, Fraction(int((chosen == labels).sum()), len(labels))
    found = evaluate(["f1", "accuracy"], torch.from_numpy(scores[None].astype(np.float32)), Targets(labels))
    assert (found["f1"].item(), found["accuracy"].item()) == (float(best), float(accuracy))
