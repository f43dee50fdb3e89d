"""Which trainer trains a model on a device: the fastest that is seen to train it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gploss.compute.gpu import why_no_triton
from gploss.compute.losses import TrainableLosses
from gploss.files.plain import JSON
from recmodels.data.rows import Rows, Schema
from recmodels.models.base import ModelFactory, build_model
from recmodels.training.arguments import given_model, given_protocol
from recmodels.training.fused.gpu import TritonTrainer
from recmodels.training.fused.layout import OtherModelError, why_other_weights
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.plain.trial import made_up
from recmodels.training.problem import Problem
from recmodels.training.protocol import Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import EpochsDone, Keep, Member, State, Trainer, TrainReport, choose_device


def choose_trainer(model: ModelFactory, protocol: Protocol, *, device: str = "auto") -> Trainer:
    """Return the fastest trainer for a model; the name of what it chooses is part of every result.

    Matrix factorisation goes to the fused trainers: compiled code on the CPU, Triton on a CUDA device (where Triton
    is installed). Every other module goes to the stacked one. Which a model is depends on what it does with its
    weights, not on its class, and is found out when the numbers of users and items are known.

    Args:
        model: makes a module for the columns of a problem.
        protocol: how to train.
        device: "auto" (CUDA where there is a usable device), "cpu", "cuda" or "cuda:N".

    Raises:
        TypeError: the model is no factory, or the protocol none.
        ValueError: the device is unknown or cannot be used.
    """
    return ChosenTrainer(given_model(model), given_protocol(protocol), device=device)


class ChosenTrainer(Trainer):
    """Leaves all to the fastest trainer for a model; see `choose_trainer`.

    Attributes:
        name: of the trainer that was chosen last.
    """

    name = "chosen"

    def __init__(self, model: ModelFactory, protocol: Protocol, *, device: str = "auto") -> None:
        self.model = model
        self.protocol = protocol
        self._general = StackedTrainer(model, protocol, device=device)
        self._fused = self._fused_trainer(device)
        self._chosen: dict[Schema, Trainer] = {}

    def _fused_trainer(self, device: str) -> FusedTrainer | TritonTrainer | None:
        if choose_device(device).type == "cpu":
            return FusedTrainer(self.model, self.protocol, device="cpu")
        if why_no_triton() is None and self.protocol.optimizer in ("sgd", "adagrad"):
            return TritonTrainer(self.model, self.protocol, device=device)
        return None

    def for_columns(self, schema: Schema) -> Trainer:
        """Return the trainer of the model that some columns give."""
        if schema not in self._chosen:
            self._chosen[schema] = self._general
            if self._fused is not None and why_other_weights(build_model(self.model, schema, 0), schema) is None:
                try:
                    self._fused.prove(made_up(schema))
                    self._chosen[schema] = self._fused
                except OtherModelError as error:
                    self._tell(error)
        self.name = self._chosen[schema].name
        return self._chosen[schema]

    def forget(self) -> None:
        """Choose anew; see `Trainer.forget`."""
        self._chosen.clear()
        for trainer in (self._general, self._fused):
            if trainer is not None:
                trainer.forget()

    def _tell(self, error: OtherModelError) -> None:
        warnings.warn(
            f"the model has the weights of MF, but is another one ({error.reason}): it is trained in stacked "
            "tensors, about ten times slower",
            stacklevel=4,
        )

    def fit(
        self,
        losses: TrainableLosses,
        members: Sequence[Member],
        problem: Problem,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: EpochsDone | None = None,
    ) -> TrainReport:
        """Train every member; see `Trainer.fit`."""
        chosen = self.for_columns(problem.schema)
        try:
            return chosen.fit(losses, members, problem, epochs, start=start, keep=keep, progress=progress)
        except OtherModelError as error:  # which made-up ids did not show
            self._tell(error)
        self._chosen[problem.schema] = self._general
        self.name = self._general.name
        return self._general.fit(losses, members, problem, epochs, start=start, keep=keep, progress=progress)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        return self.for_columns(rows.schema).predict(states, rows)

    def describe(self, schema: Schema) -> dict[str, JSON]:
        """Return what results depend on beside problem, losses and members."""
        return self.for_columns(schema).describe(schema)
