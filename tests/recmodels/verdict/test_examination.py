"""Models on the test part: resamples in one pass and by copied rows are the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from recmodels.data.pointwise import PointwiseProblem
from recmodels.metrics import METRICS
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import STANDARD
from recmodels.verdict.examination import Examination
from tests.recmodels.training.trainer_contract import SPLIT, mf_for


@pytest.mark.parametrize("name", ["ndcg@5", "gauc", "logloss"])
def test_a_user_who_was_drawn_twice_counts_as_two_users_in_copied_rows_as_well(name: str) -> None:
    METRICS.register("slow", dataclasses.replace(METRICS[name], name="slow", resampled=None))
    try:
        problem = PointwiseProblem(SPLIT, (name, "slow"))
        trainer = FusedTrainer(mf_for(STANDARD), STANDARD, device="cpu")
        scores = torch.randn(3, len(SPLIT.test), generator=torch.Generator().manual_seed(0))
        fast, slow = (
            Examination(trainer, problem, metric, epochs=1, resamples=25, seed=0, cache=None)._resample(scores)
            for metric in (name, "slow")
        )
    finally:
        METRICS.unregister("slow")
    assert fast.shape == (3, 25) and np.isfinite(fast).all()
    np.testing.assert_allclose(slow, fast, rtol=0, atol=1e-12)
