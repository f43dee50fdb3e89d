"""Bookkeeping of members that are trained together: metrics, who has stopped and why, which states are kept."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.program import Program
from recmodels.data.interactions import Interactions
from recmodels.metrics import METRICS, Targets, evaluate
from recmodels.models.base import ModelFactory, describe_model
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Keep, Member, Outcome, Progress, State, Trainer, TrainReport, choose_device

ORDER: Final = 1  # purpose of random numbers, beside the seed


class Chunk(ABC):
    """Members that share seed and past, while they are trained together. Trainers say how; this says for how long.

    Args:
        members: who they are.
        metrics: names of validation metrics; the first one steers early stopping.
        patience: epochs without a better value after which a member stops, or None.
        epochs: most epochs.
        keep: which states to keep.

    Attributes:
        alive: (A,) members that go on: position among them -> member.
        before: epochs that the start states have behind them.
    """

    def __init__(
        self, members: Sequence[Member], metrics: Sequence[str], patience: int | None, epochs: int, keep: Keep
    ) -> None:
        count = len(members)
        self.members = list(members)
        self.seed = members[0].seed
        self.patience = patience
        self.epochs = epochs
        self.keep = keep
        self.sign = 1.0 if METRICS[metrics[0]].higher_is_better else -1.0
        self.metrics = {name: np.full((count, epochs), np.nan) for name in metrics}
        self.outcomes = [Outcome.TRAINED] * count
        self.reasons: list[str | None] = [None] * count
        self.stopped_at = np.zeros(count, np.int64)
        self.best = np.full(count, np.nan)
        self.best_epoch = np.zeros(count, np.int64)
        self.before = 0
        self.alive = np.arange(count)
        self.kept: list[State | None] = [None] * count

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
        """Train until every member has stopped."""
        for epoch in range(self.epochs):
            if not len(self.alive):
                break
            diverged = self._train_epoch(epoch)
            self._validate(epoch, validation, targets, diverged)
            if progress is not None:
                progress(len(self.outcomes))

    def _validate(
        self, epoch: int, validation: Interactions, targets: Targets, diverged: npt.NDArray[np.bool_]
    ) -> None:
        columns = evaluate(self.metrics, self._score(validation), targets)
        values = {name: column.cpu().numpy() for name, column in columns.items()}
        first = next(iter(values))
        improved, going_on = [], []
        for position, member in enumerate(self.alive.tolist()):
            own = {name: float(column[position]) for name, column in values.items()}
            broken = bool(diverged[position]) or not all(np.isfinite(value) for value in own.values())
            self.stopped_at[member] = epoch + 1
            if broken:
                self.outcomes[member] = Outcome.DIVERGED
                what = "gradient" if diverged[position] else "validation score"
                self.reasons[member] = f"non-finite {what} in epoch {epoch + 1}"
                continue
            for name, value in own.items():
                self.metrics[name][member, epoch] = value
            value = self.sign * own[first]
            if not value <= self.best[member]:  # a first value beats NaN
                self.best[member], self.best_epoch[member] = value, epoch
                improved.append(position)
            if self.patience is None or epoch - self.best_epoch[member] < self.patience:
                going_on.append(position)
        ended = sorted(set(range(len(self.alive))) - set(going_on))
        if self.keep == "last":
            self._keep(ended if epoch + 1 < self.epochs else range(len(self.alive)), epoch)
        if self.keep == "best":
            self._keep(improved, epoch)
            # A member that never had a value keeps its last weights.
            self._keep([position for position in ended if self.kept[int(self.alive[position])] is None], epoch)
        if ended:
            self._drop(going_on)
            self.alive = self.alive[going_on]

    def _keep(self, positions: Sequence[int], epoch: int) -> None:
        if positions:
            states = self._states_at(positions, epoch)
            for row, position in enumerate(positions):
                self.kept[int(self.alive[position])] = states.take([row])


@dataclass
class Record:
    """Collects the chunks' results in the order of the members."""

    metrics: dict[str, npt.NDArray[np.float64]]
    outcomes: list[Outcome]
    reasons: list[str | None]
    stopped_at: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    states: list[State | None]

    @staticmethod
    def empty(metrics: Sequence[str], count: int, epochs: int) -> Record:
        """Return a record of members that have not been trained."""
        return Record(
            {name: np.full((count, epochs), np.nan) for name in metrics},
            [Outcome.TRAINED] * count,
            [None] * count,
            np.zeros(count, np.int64),
            np.zeros(count),
            [None] * count,
        )

    def fill(self, rows: Sequence[int], chunk: Chunk, seconds: float) -> None:
        """Take over a chunk's results.

        Args:
            rows: its members' positions.
            chunk: trained.
            seconds: for each member.
        """
        for name, column in chunk.metrics.items():
            self.metrics[name][list(rows)] = column
        for position, row in enumerate(rows):
            self.outcomes[row] = chunk.outcomes[position]
            self.reasons[row] = chunk.reasons[position]
            self.stopped_at[row] = chunk.stopped_at[position]
            self.states[row] = chunk.kept[position]
            self.seconds[row] = seconds

    def finish(self, keep: Keep) -> TrainReport:
        """Return the report."""
        states = [state for state in self.states if state is not None]
        joined = State.join(states) if keep != "none" and states else None
        return TrainReport(self.metrics, self.outcomes, self.reasons, self.stopped_at, self.seconds, joined)


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
        self.higher_is_better = METRICS[self.metrics[0]].higher_is_better
        self._largest = largest

    @abstractmethod
    def _chunk(
        self, program: Program, members: Sequence[Member], train: Interactions, epochs: int, keep: Keep
    ) -> Chunk:
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
        targets = Targets(validation.labels, validation.users, metrics=self.metrics, device=self.device)
        report = Record.empty(self.metrics, len(members), epochs)

        def fit(rows: list[int]) -> None:
            begun = time.perf_counter()
            chunk = self._chunk(program, [members[row] for row in rows], train, epochs, keep)
            if start is not None:
                chunk.load(start if len(start) == 1 else start.take(rows))
            chunk.run(validation, targets, progress)
            report.fill(rows, chunk, (time.perf_counter() - begun) / len(rows))

        for rows in chunks(members, start, self._largest):
            fit_halving(rows, fit)
        return report.finish(keep)


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
