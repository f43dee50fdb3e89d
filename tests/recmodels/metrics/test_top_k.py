"""Metrics of the first places, against scikit-learn and pandas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import ndcg_score

from recmodels.metrics import evaluate
from recmodels.metrics.targets import Targets
from recmodels.metrics.top_k import CUTOFFS, top_k_metrics
from tests.recmodels.metrics.cases import make_data


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
