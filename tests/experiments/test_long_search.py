"""The measurement of long searches, short: its evaluator keeps the contract, and its table says what was done."""

from __future__ import annotations

import pytest

from experiments.bench import long_search
from gploss.language.expression import Expression
from gploss.search.evaluation import Status
from gploss.tasks.pointwise import LOSSES


def test_rewards_say_how_near_a_loss_is_to_the_hidden_one() -> None:
    losses = [LOSSES[name].expression for name in ("bce", "focal", "bce", "mse")]
    losses += [Expression.parse("square(pred)"), LOSSES["hinge"].expression]
    evaluations = long_search.LikenessEvaluator().evaluate(losses, {}, 3)
    assert [one.status for one in evaluations] == [
        *(Status.TRAINED, Status.TRAINED, Status.DUPLICATE, Status.TRAINED, Status.REJECTED)
    ]
    assert evaluations[1].reward == pytest.approx(1.0)
    assert all(one.reward is None or 0.5 < one.reward < 1.0 for one in (evaluations[0], evaluations[3]))


def test_the_table_counts_candidates_bytes_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_search, "STEP", 100)
    monkeypatch.setattr(long_search, "EARLY", (100, 300))
    readings = long_search.measured(400, seed=1)
    assert (
        readings["candidates"].is_monotonic_increasing and (readings["proposals"] >= readings["candidates"]).all()
    )
    table = long_search.summary(readings)
    assert len(table) == 1 and table["candidates"][0].startswith("100 to ")
    assert 0.5 < table["KB written a candidate"][0] < 50
