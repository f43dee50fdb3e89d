"""The contract of a trainer: a population of independent models, each with its own loss, trained together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.gpu import why_no_triton
from gploss.compute.program import Program
from recmodels.data.interactions import Interactions
from recmodels.models.base import ModelFactory
from recmodels.training.protocol import Protocol

Keep = Literal["none", "last", "best"]

#: Called after each epoch of a chunk with the number of member-epochs that this has completed.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One model of the population.

    Attributes:
        loss: row of the program.
        seed: of initial weights, order of batches, and dropout; all losses with one seed meet the same luck.
        learning_rate: of the protocol's optimiser.
        weight_decay: as the protocol defines it.
    """

    loss: int
    seed: int
    learning_rate: float
    weight_decay: float


class Outcome(StrEnum):
    """How a member's training ended."""

    TRAINED = "trained"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class State:
    """Weights and optimiser state of M members, to go on from or to predict with.

    Attributes:
        weights: (M, ...) tensors by parameter or buffer name, on the CPU.
        optimizer: (M, ...) tensors by parameter name; empty for plain SGD.
        epochs: (M,) int64, how many epochs each has been trained for.
    """

    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    epochs: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.epochs)

    @cached_property
    def content_hash(self) -> str:
        """Hash of weights, optimiser state and epochs: 32 hexadecimal digits."""
        digest = blake2b(digest_size=16)
        for group in (self.weights, self.optimizer):
            for name in sorted(group):
                values = group[name].detach().cpu().contiguous()
                digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(values.numpy().tobytes())
            digest.update(b"end of group")
        digest.update(self.epochs.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, rows: Sequence[int]) -> State:
        """Return the states of some members, in that order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return State(
            {name: tensor[index] for name, tensor in self.weights.items()},
            {name: tensor[index] for name, tensor in self.optimizer.items()},
            self.epochs[np.asarray(rows, np.int64)],
        )

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """Return the members of several states, one after the other."""
        first = states[0]
        return State(
            {name: torch.cat([state.weights[name] for state in states]) for name in first.weights},
            {name: torch.cat([state.optimizer[name] for state in states]) for name in first.optimizer},
            np.concatenate([state.epochs for state in states]),
        )


@dataclass(frozen=True)
class TrainReport:
    """What came out of training M members.

    Attributes:
        metrics: (M, epochs) validation values by metric name; NaN after a member stopped.
        outcomes: (M,) trained or diverged.
        reasons: (M,) what diverged, and when; None for trained members.
        stopped_at: (M,) epochs that each member went through.
        seconds: (M,) wall time, shared equally in a chunk.
        states: at the last or best epoch, in the order of members, if asked for.
    """

    metrics: Mapping[str, npt.NDArray[np.float64]]
    outcomes: list[Outcome]
    reasons: list[str | None]
    stopped_at: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    states: State | None = field(default=None, repr=False)


class Trainer(ABC):
    """Trains populations. A member's results are the same for any grouping, chunk or order of the others."""

    #: As recorded in keys and results.
    name: ClassVar[str]

    model: ModelFactory
    protocol: Protocol
    metrics: tuple[str, ...]

    @abstractmethod
    def fit(
        self,
        program: Program,
        members: Sequence[Member],
        train: Interactions,
        validation: Interactions,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: Progress | None = None,
    ) -> TrainReport:
        """Train every member and measure it on the validation part after each epoch.

        Args:
            program: K losses.
            members: M models; their `loss` names a row of the program.
            train: what to learn from.
            validation: what to measure on.
            epochs: at most so many; the protocol's patience may end a member earlier.
            start: M states to go on from, or 1 for all; without it, fresh weights from each member's seed.
            keep: which states the report holds.
            progress: called as member-epochs are done.
        """

    @abstractmethod
    def predict(self, states: State, interactions: Interactions) -> npt.NDArray[np.float32]:
        """Return scores, shape (M, N), of M trained members for N interactions."""

    @abstractmethod
    def describe(self, train: Interactions) -> dict[str, object]:
        """Return what results depend on beside data, losses and members: for keys and records."""


def choose_device(device: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device that works.

    "auto" takes a CUDA device where there is one that can be used. Losses run there through Triton, which PyTorch
    for CUDA brings along on Linux.

    Raises:
        ValueError: the device is unknown or cannot be used here; the message says why.
    """
    if device == "auto":
        usable = torch.cuda.is_available() and why_no_triton() is None
        return torch.device("cuda" if usable else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda, or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else "finds no usable GPU"
        raise ValueError(f"device {device!r} cannot be used: this PyTorch ({torch.__version__}) {built}; use cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} cannot be used: there are {torch.cuda.device_count()} CUDA devices")
    reason = why_no_triton()
    if chosen.type == "cuda" and reason is not None:
        raise ValueError(f"device {device!r} cannot be used: {reason}; use cpu")
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is not supported: use auto, cpu, cuda, or cuda:N")
    return chosen
