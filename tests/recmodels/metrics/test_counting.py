"""Two ways of counting wins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from recmodels.metrics import counting, evaluate, pointwise, predictions
from recmodels.metrics.predictions import Predictions
from recmodels.metrics.targets import Targets
from tests.recmodels.metrics.cases import ALL, make_data, same_bits, small_cases


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
