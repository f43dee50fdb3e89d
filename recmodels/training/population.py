"""Members that are trained together, chunk by chunk, on a device of torch's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.losses import TrainableLosses
from gploss.environment import kind_of_device
from gploss.files.plain import JSON
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import ModelFactory
from recmodels.models.description import describe_model
from recmodels.training.arguments import given_model, given_protocol
from recmodels.training.course import Course, Rules, report_on
from recmodels.training.problem import Judge, Problem
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import (
    EpochsDone,
    Keep,
    Member,
    State,
    Trainer,
    TrainReport,
    choose_device,
    prepared,
)


class Chunk(ABC):
    """Members that share seed, past and batches, while they are trained. Trainers say how; this says for how long.

    Args:
        members: who they are.
        problem: what they learn from.
        rules: how long they are trained, and what is kept.
        origin: seed that their modules are made with.

    Attributes:
        courses: what happened to each member.
        alive: (A,) members that go on: position among them -> member.
        before: epochs that the start states have behind them.
    """

    def __init__(self, members: Sequence[Member], problem: Problem, rules: Rules, origin: int) -> None:
        self.origin = origin
        self.members = list(members)
        self.problem = problem
        self.seed = members[0].seed
        self.rules = rules
        self.courses = [Course(rules) for _ in members]
        self.before = 0
        self.alive = np.arange(len(members))

    @abstractmethod
    def load(self, start: State) -> None:
        """Go on from states of 1 member for all, or of each."""

    @abstractmethod
    def _train_epoch(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Go through the data once; return which of the alive met a non-finite gradient."""

    @abstractmethod
    def _score(self, rows: Rows) -> torch.Tensor:
        """Return scores (A, N) of the alive, on the trainer's device."""

    @abstractmethod
    def _drop(self, going_on: Sequence[int]) -> None:
        """Forget the weights of all members but those at some positions among the alive."""

    @abstractmethod
    def _states_at(self, positions: Sequence[int], epoch: int) -> State:
        """Return the states of the members at some positions among the alive."""

    def batches(self, epoch: int) -> Batches:
        """Return the batches of an epoch, counted from the start states on."""
        return self.problem.batches(self.seed, self.before + epoch, self.members[0].settings)

    def column(self, setting: str) -> torch.Tensor:
        """Return a setting of all members, (M,) float64."""
        return torch.tensor([member.settings[setting] for member in self.members], dtype=torch.float64)

    def run(self, validation: Rows, judge: Judge, progress: EpochsDone | None) -> None:
        """Train until every member has ended."""
        for epoch in range(self.rules.epochs):
            if not len(self.alive):
                break
            broken = self._train_epoch(epoch)
            columns = judge(self._score(validation))
            self._take(epoch, {name: column.cpu().numpy() for name, column in columns.items()}, broken)
            if progress is not None:
                progress(len(self.members))

    def _take(
        self, epoch: int, values: Mapping[str, npt.NDArray[np.float64]], broken: npt.NDArray[np.bool_]
    ) -> None:
        """Tell every course of the alive about an epoch; keep and drop what they say."""
        kept, going_on = [], []
        courses = [self.courses[member] for member in self.alive.tolist()]
        for position, course in enumerate(courses):
            if broken[position]:
                keeps = course.broke(epoch)
            else:
                keeps = course.measured(epoch, {name: float(column[position]) for name, column in values.items()})
            if keeps:
                kept.append(position)
            if not course.ended:
                going_on.append(position)
        if kept:
            states = self._states_at(kept, epoch)
            for row, position in enumerate(kept):
                courses[position].state = states.take([row])
        if 0 < len(going_on) < len(courses):
            self._drop(going_on)
        self.alive = self.alive[going_on]


class ChunkTrainer(Trainer):
    """A trainer on a device of torch's, whose members are trained chunk by chunk. Subclasses make the chunks.

    Args:
        model: makes a module for a number of users and items.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cpu", "cuda" or "cuda:N".
        largest: most members in a chunk.

    Raises:
        ValueError: the device cannot be used.
    """

    def __init__(self, model: ModelFactory, protocol: Protocol, *, device: str, largest: int) -> None:
        self.model = given_model(model)
        self.protocol = given_protocol(protocol)
        self.device = choose_device(device)
        self._largest = largest

    @abstractmethod
    def chunk(
        self, losses: TrainableLosses, members: Sequence[Member], problem: Problem, rules: Rules, origin: int
    ) -> Chunk:
        """Return members that share seed and batches, with the weights that the seed `origin` gives."""

    def _get_ready(self, problem: Problem) -> None:
        """Find out, before anything is trained, how the model can be."""

    def describe(self, schema: Schema) -> dict[str, JSON]:
        """Return what results depend on beside problem, losses and members."""
        return {
            "trainer": self.name,
            "device": kind_of_device(self.device),
            "protocol": self.protocol.describe(),
            "model": describe_model(self.model, schema),
        }

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
        """Train every member; see `Trainer.fit`.

        Raises:
            ValueError: the model is not one that the trainer knows, or an argument is refused by `prepared`.
            MemoryError: one member alone is too large for the device.
        """
        members = prepared(self, losses, members, problem, epochs, start)
        if members:
            self._get_ready(problem)
        judge, validation = problem.judge("validation", self.device), problem.rows("validation")
        rules = Rules(problem.metrics, epochs, self.protocol.patience, keep)
        courses: dict[int, Course] = {}
        seconds = np.zeros(len(members))

        def fit(rows: list[int]) -> None:
            begun = time.perf_counter()
            own = None if start is None else start if len(start) == 1 else start.take(rows)
            first = members[rows[0]].seed if own is None else int(own.seeds[0])

            def make() -> Chunk:
                chunk = self.chunk(losses, [members[row] for row in rows], problem, rules, first)
                if own is not None:
                    chunk.load(own)
                return chunk

            chunk = self._train(make, lambda made: made.run(validation, judge, progress), problem.schema)
            courses.update(zip(rows, chunk.courses, strict=True))
            seconds[rows] = (time.perf_counter() - begun) / len(rows)

        shared = ("batch_size", *problem.settings)
        for rows in chunks(members, start, shared, self._largest):
            fit_halving(rows, fit)
        return report_on([courses[row] for row in range(len(members))], seconds.tolist(), rules)

    def _train(self, make: Callable[[], Chunk], train: Callable[[Chunk], None], schema: Schema) -> Chunk:
        """Make a chunk, train it, and return it."""
        chunk = make()
        train(chunk)
        return chunk


def chunks(members: Sequence[Member], start: State | None, shared: Sequence[str], size: int) -> Iterator[list[int]]:
    """Yield positions of members that meet the same batches, at most `size` at a time.

    Args:
        members: with a value for every setting.
        start: states that they go on from, or None: they must have the same past and the same origin.
        shared: settings that the batches depend on, beside the seed.
        size: most members in a chunk.
    """
    pasts = [(0, 0)] if start is None else list(zip(start.epochs.tolist(), start.seeds.tolist(), strict=True))
    together: dict[tuple[float, ...], list[int]] = {}
    for position, member in enumerate(members):
        past = pasts[position % len(pasts)]
        key = (member.seed, *past, *(member.settings[name] for name in shared))
        together.setdefault(key, []).append(position)
    for positions in together.values():
        for first in range(0, len(positions), size):
            yield positions[first : first + size]


def fit_halving(rows: list[int], fit: Callable[[list[int]], None]) -> None:
    """Fit members together, or in halves where the device has too little memory for that.

    Args:
        rows: positions of the members.
        fit: trains some of them; may run out of memory.

    Raises:
        MemoryError: one member alone is too large for the device.
    """
    waiting = [rows]
    while waiting:
        now = waiting.pop()
        try:
            fit(now)
            continue
        except torch.OutOfMemoryError as error:
            message = str(error)
        # Outside of the except clause, so that the failed attempt's tensors are no longer held by its traceback.
        if len(now) == 1:
            raise MemoryError(f"one model alone does not fit into the device's memory: {message}")
        torch.cuda.empty_cache()
        waiting += [now[len(now) // 2 :], now[: len(now) // 2]]
