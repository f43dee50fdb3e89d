"""The stacked trainer: the contract, any module against a plain torch loop, memory, devices."""

from __future__ import annotations

from collections.abc import Sequence

from recmodels.base import ModelFactory
from recmodels.models.mf import MF
from recmodels.protocol import Protocol
from recmodels.stacked import STACK_SIZE, StackedTrainer
from tests.recmodels.trainer_contract import TrainerContract


class TestStackedTrainer(TrainerContract):
    def trainer(
        self,
        protocol: Protocol,
        *,
        model: ModelFactory | None = None,
        metrics: Sequence[str] = ("auc",),
        group: int | None = None,
    ) -> StackedTrainer:
        size = STACK_SIZE if group is None else group
        return StackedTrainer(model or MF, protocol, device="cpu", metrics=metrics, stack_size=size)
