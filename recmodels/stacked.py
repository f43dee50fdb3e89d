"""The general trainer: stacked parameters in torch, for any module, on the CPU or a CUDA device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.program import Program
from recmodels.base import Batch, ModelFactory, build_model, describe_model
from recmodels.interactions import Interactions
from recmodels.metrics import METRICS, Targets, evaluate
from recmodels.optimizers import Optimizer, Places
from recmodels.protocol import Protocol
from recmodels.stack import Stack
from recmodels.trainer import Keep, Member, Outcome, Progress, State, Trainer, TrainReport, choose_device

#: Members in one set of tensors: enough to hide torch's overhead, few enough to stay in the caches.
STACK_SIZE: Final = 32

#: Interactions scored at a time outside of training.
SCORING_BATCH: Final = 1024

_ORDER, _DROPOUT = 1, 2  # purposes of random numbers, beside the seed
_DENSE: Final = "dense"  # name of the stack's flat parameters in the optimiser state


class StackedTrainer(Trainer):
    """Trains any `torch.nn.Module`, members with the same seed together.

    Weights of a chunk of members are stacked in one tensor a parameter, scores come from
    `torch.vmap` over `torch.func.functional_call`, d loss/d score from the compiled loss programs, and one backward
    pass carries it to the weights. Members that share a seed share initial weights, batches and dropout masks.

    Args:
        model: makes a module for a number of users and items.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cpu", "cuda" or "cuda:N".
        metrics: names of validation metrics; the first one steers early stopping.
        stack_size: most members in one set of tensors, which bounds memory.

    Raises:
        ValueError: the device cannot be used.
        LookupError: a metric is unknown.
    """

    name: ClassVar[str] = "stacked"

    def __init__(
        self,
        model: ModelFactory,
        protocol: Protocol,
        *,
        device: str = "auto",
        metrics: Sequence[str] = ("auc",),
        stack_size: int = STACK_SIZE,
    ) -> None:
        if stack_size < 1:
            raise ValueError("stack_size must be at least 1")
        self.model = model
        self.protocol = protocol
        self.device = choose_device(device)
        self.metrics = tuple(metrics)
        self.higher_is_better = METRICS[self.metrics[0]].higher_is_better
        self.stack_size = stack_size

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
            ValueError: epochs below 1, a loss row outside of the program, or start states that do not fit.
        """
        if epochs < 1:
            raise ValueError("epochs must be at least 1")
        if any(not 0 <= member.loss < len(program) for member in members):
            raise ValueError(f"a member's loss must be a row of the program, 0 to {len(program) - 1}")
        if start is not None and len(start) not in (1, len(members)):
            raise ValueError(f"start has {len(start)} states for {len(members)} members; give 1 or as many")
        targets = Targets(validation.labels, validation.users, metrics=self.metrics, device=self.device)
        report = _Record.empty(self.metrics, len(members), epochs)
        for rows in _chunks(members, self.stack_size):
            begun = time.perf_counter()
            chunk = _Chunk(self, program, [members[row] for row in rows], train, epochs, keep)
            if start is not None:
                chunk.load(start if len(start) == 1 else start.take(rows))
            chunk.run(validation, targets, progress)
            report.fill(rows, chunk, (time.perf_counter() - begun) / len(rows))
        return report.finish(keep)

    def predict(self, states: State, interactions: Interactions) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        parts = []
        for first in range(0, len(states), self.stack_size):
            part = states.take(range(first, min(first + self.stack_size, len(states))))
            stack = self.new_stack(interactions, seed=0, count=len(part))
            stack.load(part.weights)
            parts.append(self.score(stack, interactions).cpu().numpy())
        return np.concatenate(parts)

    def new_stack(self, train: Interactions, seed: int, count: int) -> Stack:
        """Return `count` copies of the model as the seed initialises it."""
        module = build_model(self.model, train.n_users, train.n_items, seed)
        some = slice(0, min(4, len(train)))
        example = Batch(torch.tensor(train.users[some]), torch.tensor(train.items[some]))
        return Stack(module, count, example, self.device)

    def score(self, stack: Stack, interactions: Interactions) -> torch.Tensor:
        """Return scores (M, N) of a stack, dropout off, on the trainer's device."""
        users = torch.tensor(interactions.users, device=self.device)
        items = torch.tensor(interactions.items, device=self.device)
        parts = []
        dense = stack.dense()
        with torch.no_grad():
            for first in range(0, len(interactions), SCORING_BATCH):
                batch = Batch(users[first : first + SCORING_BATCH], items[first : first + SCORING_BATCH])
                rows = {
                    name: table.index_select(0, getattr(batch, stack.fields[name])).transpose(0, 1)
                    for name, table in stack.tables.items()
                }
                parts.append(stack.scores(batch, rows, dense, training=False))
        return torch.cat(parts, dim=1).float()


class _Chunk:
    """Members that share a seed, while they are trained together."""

    def __init__(
        self,
        trainer: StackedTrainer,
        program: Program,
        members: Sequence[Member],
        train: Interactions,
        epochs: int,
        keep: Keep,
    ) -> None:
        self.trainer = trainer
        self.program = program
        self.train = train
        self.epochs = epochs
        self.keep = keep
        self.seed = members[0].seed
        count = len(members)
        self.stack = trainer.new_stack(train, self.seed, count)
        self.members = list(members)
        self.optimizer = self._new_optimizer()
        self.accumulators = self.optimizer.fresh_state(self.stack.tables | {_DENSE: self.stack.flat})
        self.metrics = {name: np.full((count, epochs), np.nan) for name in trainer.metrics}
        self.outcomes = [Outcome.TRAINED] * count
        self.reasons: list[str | None] = [None] * count
        self.stopped_at = np.zeros(count, np.int64)
        self.best = np.full(count, np.nan)
        self.best_epoch = np.zeros(count, np.int64)
        self.before = np.zeros(count, np.int64)  # epochs that the start states have behind them
        self.alive = np.arange(count)  # position in the stack -> member
        self.kept: list[State | None] = [None] * count

    def _new_optimizer(self) -> Optimizer:
        rates = torch.tensor([member.learning_rate for member in self.members], dtype=torch.float64)
        decays = torch.tensor([member.weight_decay for member in self.members], dtype=torch.float64)
        steps = -(-len(self.train) // self.trainer.protocol.batch_size)
        return Optimizer(self.trainer.protocol, rates, decays, steps, self.trainer.device)

    def load(self, start: State) -> None:
        """Go on from states of 1 member for all, or of each."""
        self.stack.load(start.weights)
        self.before += start.epochs
        for name, accumulator in self.accumulators.items():
            value = start.optimizer[name]
            accumulator.copy_(value.transpose(0, 1) if name in self.stack.tables else value)

    def run(self, validation: Interactions, targets: Targets, progress: Progress | None) -> None:
        """Train until every member has stopped."""
        for epoch in range(self.epochs):
            if not len(self.alive):
                break
            diverged = self._train_epoch(epoch)
            self._validate(epoch, validation, targets, diverged)
            if progress is not None:
                progress(len(self.outcomes))

    def _train_epoch(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Go through the data once; return which members met a non-finite gradient."""
        rows = np.array([self.members[position].loss for position in self.alive], np.int64)
        diverged = np.zeros(len(self.alive), np.bool_)
        past = int(self.before.min()) + epoch
        generator = _global_generator(self.trainer.device)  # dropout has no other
        before = generator.get_state()
        try:
            for number, batch in enumerate(self._batches(past)):
                generator.manual_seed(_random_seed(self.seed, _DROPOUT, past, number))
                self._train_batch(batch, rows, diverged)
        finally:
            generator.set_state(before)
        self.optimizer.end_epoch(self.stack.tables)
        return diverged

    def _batches(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each batch; a last batch of one row joins the one before (batch norm needs two)."""
        order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.train))
        size = self.trainer.protocol.batch_size
        bounds = list(range(0, len(order), size))
        if len(order) - bounds[-1] == 1 and len(bounds) > 1:
            bounds.pop()
        for first, last in zip(bounds, [*bounds[1:], len(order)], strict=True):
            yield order[first:last]

    def _train_batch(
        self, batch_rows: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], diverged: npt.NDArray[np.bool_]
    ) -> None:
        stack, optimizer, device = self.stack, self.optimizer, self.trainer.device
        ids = {"user": self.train.users[batch_rows], "item": self.train.items[batch_rows]}
        labels = self.train.labels[batch_rows]
        batch = Batch(torch.from_numpy(ids["user"]).to(device), torch.from_numpy(ids["item"]).to(device))
        places = {field: Places.of(own, device) for field, own in ids.items()}
        rows_read = {
            name: optimizer.read_rows(name, table, places[stack.fields[name]]).requires_grad_()
            for name, table in stack.tables.items()
        }
        dense = {name: weight.requires_grad_() for name, weight in stack.dense().items()}
        scores = stack.scores(batch, rows_read, dense, training=True)
        pull = self._pull(scores, labels, rows, diverged)
        leaves = [*rows_read.values(), *dense.values()]
        gradients = torch.autograd.grad(scores, leaves, pull, materialize_grads=True)
        with torch.no_grad():
            for (name, table), gradient in zip(stack.tables.items(), gradients, strict=False):
                own = self.accumulators.get(name)
                optimizer.step_rows(name, table, own, places[stack.fields[name]], gradient)
            if dense:
                flat = torch.cat([part.reshape(len(stack), -1) for part in gradients[len(stack.tables) :]], dim=1)
                optimizer.step_dense(stack.flat, self.accumulators.get(_DENSE), flat)
        optimizer.end_batch()

    def _pull(
        self,
        scores: torch.Tensor,
        labels: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        diverged: npt.NDArray[np.bool_],
    ) -> torch.Tensor:
        """Return d (mean loss)/d score, (M, B); members with a non-finite one are marked and no longer moved."""
        _, gradients = self.program.losses(scores.detach().float().cpu().numpy(), labels, rows)
        diverged |= ~np.isfinite(gradients).all(axis=1)
        gradients[diverged] = 0.0
        gradients /= len(labels)
        return torch.from_numpy(gradients).to(scores)

    def _validate(
        self, epoch: int, validation: Interactions, targets: Targets, diverged: npt.NDArray[np.bool_]
    ) -> None:
        scores = self.trainer.score(self.stack, validation)
        values = {
            name: column.cpu().numpy() for name, column in evaluate(self.trainer.metrics, scores, targets).items()
        }
        sign = 1.0 if self.trainer.higher_is_better else -1.0
        going_on = []
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
            value = sign * own[self.trainer.metrics[0]]
            if not value <= self.best[member]:  # a first value beats NaN
                self.best[member], self.best_epoch[member] = value, epoch
                if self.keep == "best":
                    self.kept[member] = self._state_at(position, epoch)
            patience = self.trainer.protocol.patience
            if patience is None or epoch - self.best_epoch[member] < patience:
                going_on.append(position)
        ended = set(range(len(self.alive))) - set(going_on)
        if self.keep == "last":
            for position in ended if epoch + 1 < self.epochs else range(len(self.alive)):
                self.kept[int(self.alive[position])] = self._state_at(position, epoch)
        if self.keep == "best":
            for position in ended:  # a member that never had a value keeps its last weights
                if self.kept[int(self.alive[position])] is None:
                    self.kept[int(self.alive[position])] = self._state_at(position, epoch)
        if ended:
            self._drop(going_on)

    def _drop(self, going_on: Sequence[int]) -> None:
        index = torch.tensor(going_on, dtype=torch.int64, device=self.trainer.device)
        self.accumulators = {
            name: tensor.index_select(1 if name in self.stack.tables else 0, index)
            for name, tensor in self.accumulators.items()
        }
        self.stack.keep_members(index)
        self.optimizer.keep_members(index)
        self.alive = self.alive[list(going_on)]

    def _state_at(self, position: int, epoch: int) -> State:
        one = slice(position, position + 1)

        accumulators = {
            name: (tensor[:, one].transpose(0, 1) if name in self.stack.tables else tensor[one]).cpu().clone()
            for name, tensor in self.accumulators.items()
        }
        before = int(self.before[self.alive[position]])
        return State(self.stack.weights(one), accumulators, np.array([before + epoch + 1], np.int64))


@dataclass
class _Record:
    """Collects the chunks' results in the order of the members."""

    metrics: dict[str, npt.NDArray[np.float64]]
    outcomes: list[Outcome]
    reasons: list[str | None]
    stopped_at: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    states: list[State | None]

    @staticmethod
    def empty(metrics: Sequence[str], count: int, epochs: int) -> _Record:
        return _Record(
            {name: np.full((count, epochs), np.nan) for name in metrics},
            [Outcome.TRAINED] * count,
            [None] * count,
            np.zeros(count, np.int64),
            np.zeros(count),
            [None] * count,
        )

    def fill(self, rows: Sequence[int], chunk: _Chunk, seconds: float) -> None:
        for name, column in chunk.metrics.items():
            self.metrics[name][list(rows)] = column
        for position, row in enumerate(rows):
            self.outcomes[row] = chunk.outcomes[position]
            self.reasons[row] = chunk.reasons[position]
            self.stopped_at[row] = chunk.stopped_at[position]
            self.states[row] = chunk.kept[position]
            self.seconds[row] = seconds

    def finish(self, keep: Keep) -> TrainReport:
        states = [state for state in self.states if state is not None]
        joined = State.join(states) if keep != "none" and states else None
        return TrainReport(self.metrics, self.outcomes, self.reasons, self.stopped_at, self.seconds, joined)


def _chunks(members: Sequence[Member], size: int) -> Iterator[list[int]]:
    """Yield positions of members that share a seed, at most `size` at a time."""
    by_seed: dict[int, list[int]] = {}
    for position, member in enumerate(members):
        by_seed.setdefault(member.seed, []).append(position)
    for positions in by_seed.values():
        for first in range(0, len(positions), size):
            yield positions[first : first + size]


def _random_seed(*entropy: int) -> int:
    """A seed for torch from whole numbers of at least 0."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
