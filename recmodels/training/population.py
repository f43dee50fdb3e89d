"""Members that are trained together, chunk by chunk, on a device of torch's."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.program import Program
from recmodels.data.interactions import Interactions
from recmodels.metrics import METRICS, evaluate, require
from recmodels.metrics.targets import Targets
from recmodels.models.base import ModelFactory, describe_model
from recmodels.training.course import Course, Rules, report_on
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Keep, Member, Progress, State, Trainer, TrainReport, choose_device

ORDER: Final = 1  # purpose of random numbers, beside the seed


class Chunk(ABC):
    """Members that share seed and past, while they are trained together. Trainers say how; this says for how long.

    Args:
        members: who they are.
        rules: how long they are trained, and what is kept.

    Attributes:
        courses: what happened to each member.
        alive: (A,) members that go on: position among them -> member.
        before: epochs that the start states have behind them.
    """

    def __init__(self, members: Sequence[Member], rules: Rules) -> None:
        self.members = list(members)
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
    def _score(self, interactions: Interactions) -> torch.Tensor:
        """Return scores (A, N) of the alive."""

    @abstractmethod
    def _drop(self, going_on: Sequence[int]) -> None:
        """Forget the weights of all members but those at some positions among the alive."""

    @abstractmethod
    def _states_at(self, positions: Sequence[int], epoch: int) -> State:
        """Return the states of the members at some positions among the alive."""

    def run(self, validation: Interactions, targets: Targets, progress: Progress | None) -> None:
        """Train until every member has ended."""
        for epoch in range(self.rules.epochs):
            if not len(self.alive):
                break
            broken = self._train_epoch(epoch)
            columns = evaluate(self.rules.metrics, self._score(validation), targets)
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
        metrics: names of validation metrics; the first one steers early stopping.
        largest: most members in a chunk.

    Raises:
        ValueError: the device cannot be used.
        LookupError: a metric is unknown.
    """

    def __init__(
        self, model: ModelFactory, protocol: Protocol, *, device: str, metrics: Sequence[str], largest: int
    ) -> None:
        self.model = model
        self.protocol = protocol
        self.device = choose_device(device)
        self.metrics = tuple(metrics)
        self.higher_is_better = directions(self.metrics)[self.metrics[0]]
        self._largest = largest

    @abstractmethod
    def _chunk(self, program: Program, members: Sequence[Member], train: Interactions, rules: Rules) -> Chunk:
        """Return members that share a seed, with fresh weights."""

    def describe(self, train: Interactions) -> dict[str, object]:
        """Return what results depend on beside data, losses and members."""
        return {
            "trainer": self.name,
            "device": self.device.type,
            "torch": torch.__version__,
            "protocol": self.protocol.describe(),
            "model": describe_model(self.model, train.n_users, train.n_items),
        }

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
        """Train every member; see `Trainer.fit`.

        Raises:
            ValueError: the model is not one that the trainer knows, epochs below 1, a loss row outside of the
                program, or start states that do not fit.
            MemoryError: one member alone is too large for the device.
        """
        check_fit(len(program), len(train), members, epochs, start)
        targets = Targets(validation.labels, validation.users, device=self.device)
        require(self.metrics, targets)
        rules = Rules(directions(self.metrics), epochs, self.protocol.patience, keep)
        courses: dict[int, Course] = {}
        seconds = np.zeros(len(members))

        def fit(rows: list[int]) -> None:
            begun = time.perf_counter()
            chunk = self._chunk(program, [members[row] for row in rows], train, rules)
            if start is not None:
                chunk.load(start if len(start) == 1 else start.take(rows))
            chunk.run(validation, targets, progress)
            courses.update(zip(rows, chunk.courses, strict=True))
            seconds[rows] = (time.perf_counter() - begun) / len(rows)

        for rows in chunks(members, start, self._largest):
            fit_halving(rows, fit)
        return report_on([courses[row] for row in range(len(members))], seconds.tolist(), rules)


def directions(metrics: Sequence[str]) -> dict[str, bool]:
    """Return for each metric whether more of it is better."""
    return {name: METRICS[name].higher_is_better for name in metrics}


def check_fit(n_losses: int, n_samples: int, members: Sequence[Member], epochs: int, start: State | None) -> None:
    """Check the arguments of `Trainer.fit`.

    Raises:
        ValueError: epochs below 1, no data, a loss row outside of the program, or start states that do not fit.
    """
    if epochs < 1:
        raise ValueError("epochs must be at least 1")
    if not n_samples:
        raise ValueError("there are no interactions to learn from")
    if any(not 0 <= member.loss < n_losses for member in members):
        raise ValueError(f"a member's loss must be a row of the program, 0 to {n_losses - 1}")
    if start is not None and len(start) not in (1, len(members)):
        raise ValueError(f"start has {len(start)} states for {len(members)} members; give 1 or as many")


def chunks(members: Sequence[Member], start: State | None, size: int) -> Iterator[list[int]]:
    """Yield positions of members that share a seed and the epochs behind them, at most `size` at a time."""
    before = np.zeros(1, np.int64) if start is None else start.epochs
    together: dict[tuple[int, int], list[int]] = {}
    for position, (member, epochs) in enumerate(zip(members, np.resize(before, len(members)), strict=True)):
        together.setdefault((member.seed, int(epochs)), []).append(position)
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


def epoch_order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the rows of the training part in the order of an epoch, (count,)."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)


def slices(count: int, size: int) -> list[slice]:
    """Cut `count` rows in batches; a last one of a single row joins the one before (batch norm needs two)."""
    firsts = list(range(0, count, size))
    if count - firsts[-1] == 1 and len(firsts) > 1:
        firsts.pop()
    return [slice(first, last) for first, last in zip(firsts, [*firsts[1:], count], strict=True)]
