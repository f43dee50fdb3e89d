"""Metrics against scikit-learn, pandas and counting by hand; rows that must not see each other; faults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    ndcg_score,
    precision_recall_curve,
    roc_auc_score,
)
from torch import Tensor

from recmodels import metrics as module
from recmodels.metrics import METRICS, Metric, counting, evaluate, pointwise, predictions, require
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.targets import Targets
from recmodels.metrics.top_k import CUTOFFS, top_k_metrics

ALL = METRICS.names()
N_ROWS = 333  # odd on purpose: vector instructions then end at different elements of different rows
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def make_data(n_models: int, seed: int = 0, levels: int | None = None) -> tuple[Tensor, Floats, Integers]:
    """Return scores (M, N), labels (N,), users (N,); with `levels` the scores have many ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_models, N_ROWS)) * 3
    if levels is not None:
        scores = rng.integers(-levels, levels + 1, size=scores.shape) / 2
    labels = (rng.random(N_ROWS) < 0.3).astype(np.float32)
    users = rng.integers(0, 40, size=N_ROWS) * 1_000_003 - 5
    return torch.from_numpy(scores.astype(np.float32)), labels, users


def same_bits(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.view(torch.int64), right.view(torch.int64))


def sigmoid(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = 1 / (1 + np.exp(-scores.astype(np.float64)))
    return result


def counted_auc(scores: list[float], labels: list[int]) -> float:
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    negatives = [score for score, label in zip(scores, labels, strict=True) if not label]
    doubled = sum(2 * (p > n) + (p == n) for p in positives for n in negatives)
    return float(Fraction(doubled, 2 * len(positives) * len(negatives)))


small_cases = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label, _ in rows}) == 2)


# --- values, against oracles ---------------------------------------------------------------------------------


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


@given(small_cases)
@settings(deadline=None)
def test_the_two_ways_of_counting_wins_agree(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, users = (list(column) for column in zip(*rows, strict=True))
    targets = Targets(labels, users)
    predictions = Predictions(torch.tensor([scores, scores[::-1]], dtype=torch.float32), targets)
    for keys, segments in [
        (predictions.by_score, targets.everything),
        (predictions.by_user, targets.all_users),
        (predictions.by_user, targets.mixed_users),
    ]:
        by_loop = counting.doubled_wins(keys, segments)
        assert torch.equal(by_loop, counting.doubled_wins_by_scans(keys, segments))


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


@pytest.mark.parametrize("k", [1, 3, *CUTOFFS])
def test_top_k_metrics_equal_oracles_where_nothing_ties(k: int) -> None:
    scores, labels, users = make_data(4)
    targets = Targets(labels, users)
    ndcg, hit_rate, recall = (metric(scores, targets) for metric in top_k_metrics(k))
    for row, values in enumerate(scores.numpy()):
        frame = pd.DataFrame({"user": users, "label": labels.astype(float), "score": values})
        gains, hits, shares = [], [], []
        for _, group in frame.groupby("user"):
            if group["label"].sum() == 0:
                continue
            top = group.sort_values("score", ascending=False)["label"].head(k)
            hits.append(top.max())
            shares.append(top.sum() / group["label"].sum())
            # scikit-learn refuses lists of one; such a list is in perfect order
            alone = len(group) == 1
            gains.append(1.0 if alone else ndcg_score([group["label"]], [group["score"]], k=k))
        assert ndcg[row].item() == pytest.approx(np.mean(gains), abs=1e-13)
        assert hit_rate[row].item() == pytest.approx(np.mean(hits), abs=1e-14)
        assert recall[row].item() == pytest.approx(np.mean(shares), abs=1e-14)


def test_ties_in_a_list_put_negatives_first() -> None:
    targets = Targets([1, 0, 0, 1], users=[3, 3, 3, 3])
    constant = torch.zeros(1, 4)
    _, hits_at_2, _ = top_k_metrics(2)
    ndcg_at_3, hits_at_3, recall_at_3 = top_k_metrics(3)
    assert hits_at_2(constant, targets).item() == 0.0
    assert hits_at_3(constant, targets).item() == 1.0
    assert recall_at_3(constant, targets).item() == 0.5
    assert ndcg_at_3(constant, targets).item() == pytest.approx(0.5 / (1 + 1 / math.log2(3)), abs=1e-15)


def test_users_without_positives_are_left_out_of_lists() -> None:
    targets = Targets([1, 0, 0, 0], users=[1, 1, 2, 2])
    found = evaluate(["ndcg@5", "hr@5", "recall@5"], torch.tensor([[2.0, 1.0, 5.0, 6.0]]), targets)
    assert [values.item() for values in found.values()] == [1.0, 1.0, 1.0]


# --- contracts of every metric -------------------------------------------------------------------------------


def variants() -> Iterator[tuple[str, Tensor]]:
    """Rows in several orders and groupings: a name, and which rows are evaluated together."""
    order = np.random.default_rng(5).permutation(41)
    yield "shuffled", torch.from_numpy(order)
    yield "reversed", torch.arange(40, -1, -1)
    yield "every third", torch.arange(0, 41, 3)
    yield "an odd few", torch.from_numpy(order[:7])
    yield "repeated", torch.tensor([4, 4, 4, 9])
    for row in range(0, 41, 8):
        yield f"only row {row}", torch.tensor([row])


@pytest.mark.parametrize("levels", [None, 2])
def test_grouping_of_rows_changes_no_bit(levels: int | None) -> None:
    scores, labels, users = make_data(41, levels=levels)
    targets = Targets(labels, users)
    whole = evaluate(ALL, scores, targets)
    for name, rows in variants():
        part = evaluate(ALL, scores[rows], targets)
        for metric in ALL:
            assert same_bits(part[metric], whole[metric][rows]), (metric, name)


def test_threads_chunks_and_memory_layout_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, users = make_data(110)  # more elements than torch leaves to one thread
    whole = evaluate(ALL, scores, Targets(labels, users))
    threads = torch.get_num_threads()
    try:
        for n_threads, elements in [(1, 1), (2, 10**9), (3, 10**9), (1, 7 * N_ROWS)]:
            torch.set_num_threads(n_threads)
            monkeypatch.setitem(module._ELEMENTS_AT_A_TIME, "cpu", elements)
            found = evaluate(ALL, scores, Targets(labels, users))
            assert all(same_bits(found[name], whole[name]) for name in ALL), (n_threads, elements)
    finally:
        torch.set_num_threads(threads)
    transposed = evaluate(ALL, scores.T.contiguous().T, Targets(labels, users))
    assert all(same_bits(transposed[name], whole[name]) for name in ALL)


def test_elementwise_rounding_does_not_depend_on_the_position_in_memory() -> None:
    # Vector instructions and the scalar code for what they leave over may round differently; a mean can hide it.
    scores, labels, _ = make_data(500)
    targets = Targets(labels)
    together = Predictions(scores, targets).errors
    alone = torch.cat([Predictions(row, targets).errors for row in torch.split(scores, 1)])
    assert same_bits(together, alone)


@pytest.mark.parametrize("levels", [None, 1])
def test_order_of_examples_changes_no_bit(levels: int | None) -> None:
    scores, labels, users = make_data(9, levels=levels)
    order = np.random.default_rng(3).permutation(N_ROWS)
    one = evaluate(ALL, scores, Targets(labels, users))
    other = evaluate(ALL, scores[:, torch.from_numpy(order)], Targets(labels[order], users[order]))
    for name in ALL:
        assert same_bits(one[name], other[name]), name


@pytest.mark.parametrize("poison", [math.nan, -math.nan, math.inf, -math.inf])
def test_a_bad_score_spoils_its_own_row_only(poison: float) -> None:
    scores, labels, users = make_data(5)
    targets = Targets(labels, users)
    clean = evaluate(ALL, scores, targets)
    spoilt = scores.clone()
    spoilt[1, 17] = poison
    spoilt[3] = poison
    found = evaluate(ALL, spoilt, targets)
    kept = torch.tensor([0, 2, 4])
    for name in ALL:
        assert found[name][[1, 3]].isnan().all(), name
        assert same_bits(found[name][kept], clean[name][kept]), name


@pytest.mark.parametrize("name", ALL)
def test_direction_and_range(name: str) -> None:
    _, labels, _ = make_data(1)
    users = np.arange(N_ROWS) % 5  # enough rows a user for the longest list to leave some out
    perfect = torch.from_numpy(labels * 40 - 20)
    worst_to_best = torch.stack([-perfect, torch.zeros(N_ROWS), perfect])
    values = METRICS[name](worst_to_best, Targets(labels, users))
    if not METRICS[name].higher_is_better:
        values = -values
    assert values[2] > values[0]
    assert values[2] >= values[1] >= values[0]
    if METRICS[name].higher_is_better and not name.startswith("recall"):
        assert values[2].item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_names_shapes_and_no_models(name: str) -> None:
    scores, labels, users = make_data(3)
    targets = Targets(labels, users)
    assert METRICS[name].name == name
    values = METRICS[name](scores, targets)
    assert values.shape == (3,)
    assert values.dtype == torch.float64
    assert same_bits(values, evaluate([name], scores, targets)[name])
    assert METRICS[name](scores[:0], targets).shape == (0,)


def test_scores_and_targets_are_left_as_they_were() -> None:
    scores, labels, users = make_data(3)
    before = scores.clone()
    targets = Targets(labels, users)
    first = evaluate(ALL, scores.requires_grad_(), targets)
    assert torch.equal(scores, before)
    assert not any(values.requires_grad for values in first.values())
    labels[:] = 1  # the targets hold a copy
    again = evaluate(ALL, scores, targets)
    assert all(same_bits(first[name], again[name]) for name in ALL)


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


def test_counts() -> None:
    targets = Targets([1, 0, 0], users=[2, 2, 9])
    assert (targets.n_rows, targets.n_positives, targets.n_negatives) == (3, 1, 2)
    assert targets.device == torch.device("cpu")
    assert len(targets.all_users.begins) == 2
    assert len(targets.mixed_users.begins) == 1


@pytest.mark.parametrize("levels", [None, 2])
def test_the_code_for_other_devices_agrees_with_that_for_the_cpu(
    levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, labels, users = make_data(7, levels=levels)
    targets = Targets(labels, users)
    expected = evaluate(ALL, scores, targets)
    monkeypatch.setattr(pointwise, "doubled_wins", counting.doubled_wins_by_scans)
    monkeypatch.setattr(predictions, "sorted_rows", lambda keys: keys.sort(dim=1).values)
    found = evaluate(ALL, scores, targets)
    assert all(same_bits(found[name], expected[name]) for name in ALL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_agrees_with_the_cpu_and_with_itself() -> None:
    scores, labels, users = make_data(41, levels=6)
    here = evaluate(ALL, scores, Targets(labels, users))
    targets = Targets(labels, users, device="cuda")
    whole = evaluate(ALL, scores.cuda(), targets)
    for name in ALL:
        torch.testing.assert_close(whole[name].cpu(), here[name], rtol=0, atol=1e-13)
    for variant, rows in variants():
        part = evaluate(ALL, scores[rows].cuda(), targets)
        for name in ALL:
            assert same_bits(part[name].cpu(), whole[name].cpu()[rows]), (name, variant)


# --- faults --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (torch.zeros(2), ValueError, r"expected \(M, 2\)"),
        (torch.zeros(1, 3), ValueError, r"\(1, 3\); expected \(M, 2\)"),
        (torch.zeros(1, 2, dtype=torch.float64), TypeError, r"scores\.float\(\)"),
        (torch.zeros(1, 2, device="meta"), ValueError, "scores are on meta, targets on cpu"),
    ],
)
def test_scores_that_do_not_fit(scores: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(["auc"], scores, Targets([0, 1]))


def test_unknown_names_and_lists_without_places() -> None:
    with pytest.raises(LookupError, match="no metric is named 'uac'; choose from: auc, gauc"):
        evaluate(["uac"], torch.zeros(1, 2), Targets([0, 1]))
    with pytest.raises(LookupError, match="no metric is named"):
        require(["uac"], Targets([0, 1]))
    with pytest.raises(ValueError, match="k = 0"):
        top_k_metrics(0)


def test_a_metric_of_ones_own() -> None:
    def mean_score(predictions: Predictions) -> Tensor:
        return predictions.scores.to(torch.float64).mean(dim=1)

    metric = Metric("mean score", mean_score, higher_is_better=True)
    METRICS.register(metric.name, metric)
    try:
        assert evaluate(["mean score"], torch.ones(2, 2), Targets([1, 1]))["mean score"].tolist() == [1.0, 1.0]
    finally:
        METRICS.unregister(metric.name)
