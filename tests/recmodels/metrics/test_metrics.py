"""What holds for every metric: rows that must not see each other, directions, faults."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from recmodels import metrics as module
from recmodels.metrics import METRICS, Metric, evaluate, require
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.targets import Targets
from recmodels.metrics.top_k import top_k_metrics
from tests.recmodels.metrics.cases import ALL, N_ROWS, make_data, same_bits


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
