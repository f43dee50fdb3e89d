"""The contract of a trainer: a population of independent models, each with its own loss, trained together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import each, instance, seed_number, whole_number
from gploss.compute.gpu import why_no_triton
from gploss.compute.losses import TrainableLosses
from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.setting import Setting, complete
from recmodels.data.rows import Rows, Schema
from recmodels.models.base import ModelFactory
from recmodels.training.problem import Problem
from recmodels.training.protocol import Protocol

Keep = Literal["none", "last", "best"]

#: Called with the number of member-epochs that have been done since the last call.
EpochsDone = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One model of the population.

    Attributes:
        loss: row of the losses.
        seed: of initial weights, order of batches, and dropout; all losses with one seed meet the same luck.
        settings: values by name, such as "learning_rate"; protocol and problem have defaults for the others.
    """

    loss: int
    seed: int
    settings: Mapping[str, float] = field(default_factory=dict)


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
        seeds: (M,) int64, that each member's module was made with: what a module draws and keeps elsewhere than in
            parameters and buffers comes from there again. By default 0.
    """

    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    epochs: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", np.resize(self.seeds, len(self.epochs)))

    def __len__(self) -> int:
        return len(self.epochs)

    @cached_property
    def content_hash(self) -> str:
        """Hash of everything in here: 32 hexadecimal digits."""
        digest = blake2b(digest_size=16)
        for group in (self.weights, self.optimizer):
            for name in sorted(group):
                values = group[name].detach().cpu().contiguous()
                digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(
                    values.reshape(-1).view(torch.uint8).numpy().tobytes()
                )  # numpy knows fewer types than torch
            digest.update(b"end of group")
        digest.update(self.epochs.astype("<i8").tobytes())
        digest.update(self.seeds.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, rows: Sequence[int]) -> State:
        """Return the states of some members, in that order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return State(
            {name: tensor[index] for name, tensor in self.weights.items()},
            {name: tensor[index] for name, tensor in self.optimizer.items()},
            self.epochs[np.asarray(rows, np.int64)],
            self.seeds[np.asarray(rows, np.int64)],
        )

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """Return the members of several states, one after the other."""
        first = states[0]
        return State(
            {name: torch.cat([state.weights[name] for state in states]) for name in first.weights},
            {name: torch.cat([state.optimizer[name] for state in states]) for name in first.optimizer},
            np.concatenate([state.epochs for state in states]),
            np.concatenate([state.seeds for state in states]),
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
    name: str

    model: ModelFactory
    protocol: Protocol

    @abstractmethod
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
        """Train every member and measure it on the validation part after each epoch.

        Args:
            losses: K of them.
            members: M models; their `loss` names a row of the losses.
            problem: what to learn from, and what to be measured by.
            epochs: at most so many; the protocol's patience may end a member earlier.
            start: M states to go on from, or 1 for all; without it, fresh weights from each member's seed.
            keep: which states the report holds.
            progress: called as member-epochs are done.
        """

    @abstractmethod
    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores, shape (M, N), of M trained members for N examples."""

    @abstractmethod
    def describe(self, schema: Schema) -> dict[str, JSON]:
        """Return what results depend on beside problem, losses and members: for keys and records."""

    def forget(self) -> None:
        """Drop what was found out about the model: its code has been edited since."""
        return

    def settings(self, problem: Problem) -> dict[str, Setting]:
        """Return what may differ from member to member: the protocol's settings, and the problem's."""
        return {**self.protocol.settings(), **problem.settings}


def prepared(
    trainer: Trainer,
    losses: TrainableLosses,
    members: Sequence[Member],
    problem: Problem,
    epochs: int,
    start: State | None,
) -> list[Member]:
    """Check the arguments of `Trainer.fit`, before anything is trained.

    Returns:
        The members with a value for every setting.

    Raises:
        TypeError: epochs or a seed that is no whole number, or a problem or members that are none.
        ValueError: epochs below 1, a loss that is no row of the losses, a setting that is unknown or makes no
            sense, or start states that do not fit.
        DataError: rows, losses and judge of the problem do not fit each other.
    """
    whole_number("epochs", epochs, least=1)
    instance("problem", problem, Problem, "a Problem, such as PointwiseProblem(split)")
    for member in each("members", members, Member, "a Member"):
        seed_number("the seed of a member", member.seed)
        whole_number("the loss of a member", member.loss, least=0)
    if any(not 0 <= member.loss < len(losses) for member in members):
        raise ValueError(f"a member's loss must be a row of the losses, 0 to {len(losses) - 1}")
    if start is not None and len(start) not in (1, len(members)):
        raise ValueError(f"start has {len(start)} states for {len(members)} members; give 1 or as many")
    problem.check([name for name in losses.uses if name != losses.task.score])
    declared = trainer.settings(problem)
    return [replace(member, settings=complete(member.settings, declared)) for member in members]


def formulas_only(losses: TrainableLosses, trainer_name: str) -> Program:
    """Return losses that are a program, for a trainer whose kernels interpret formulas.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(losses, Program):
        raise ValueError(
            f"the {trainer_name} trainer knows formulas only, not {type(losses).__name__}; use StackedTrainer"
        )
    return losses


def choose_device(device: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device that works.

    "auto" takes a CUDA device where there is one that can be used. Losses run there through Triton, which PyTorch
    for CUDA brings along on Linux.

    Raises:
        TypeError: it is no text.
        ValueError: the device is unknown or cannot be used here; the message says why.
    """
    device = str(device) if isinstance(device, torch.device) else device
    instance("device", device, str, "a text: 'auto', 'cpu', 'cuda' or 'cuda:N'")
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
