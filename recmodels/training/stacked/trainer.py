"""The general trainer: stacked parameters in torch, for any module, on the CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import whole_number
from gploss.compute.losses import Losses, LossKernel
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.training.course import Rules
from recmodels.training.population import Chunk, ChunkTrainer
from recmodels.training.problem import Problem, bounds_of
from recmodels.training.protocol import Protocol
from recmodels.training.stacked.compiled_optimizer import CompiledOptimizer
from recmodels.training.stacked.feed import Feed, feeds
from recmodels.training.stacked.optimizers import Optimizer
from recmodels.training.stacked.recorded import RecordedBatches
from recmodels.training.stacked.stack import Stack, copy_state
from recmodels.training.trainer import Member, State

#: Members in one set of tensors: enough to hide torch's overhead, few enough to stay in the caches.
STACK_SIZE: Final = 32

#: Examples scored at a time outside of training.
SCORING_BATCH: Final = 1024

_DROPOUT: Final = 2  # purpose of random numbers, beside the seed
_DENSE: Final = "dense"  # name of the stack's flat parameters in the optimiser state


class StackedTrainer(ChunkTrainer):
    """Trains any `torch.nn.Module`, members with the same seed together.

    Weights of a chunk of members are stacked in one tensor a parameter, scores come from
    `torch.vmap` over `torch.func.functional_call`, d loss/d score from the compiled loss programs, and one backward
    pass carries it to the weights. Members that share a seed share initial weights, batches and dropout masks.

    Args:
        model: makes a module for the columns of a problem.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cpu", "cuda" or "cuda:N".
        stack_size: most members in one set of tensors, which bounds memory.

    Raises:
        ValueError: the device cannot be used.
    """

    name: ClassVar[str] = "stacked"

    def __init__(
        self, model: ModelFactory, protocol: Protocol, *, device: str = "auto", stack_size: int = STACK_SIZE
    ) -> None:
        stack_size = whole_number("stack_size", stack_size, least=1)
        super().__init__(model, protocol, device=device, largest=stack_size)
        self.stack_size = stack_size

    def _chunk(self, losses: Losses, members: Sequence[Member], problem: Problem, rules: Rules) -> Chunk:
        return _Chunk(self, losses, members, problem, rules)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        parts = []
        for first in range(0, len(states), self.stack_size):
            part = states.take(range(first, min(first + self.stack_size, len(states))))
            stack = self.new_stack(rows.schema, seed=0, count=len(part))
            stack.load(part.weights)
            parts.append(self.score(stack, rows).cpu().numpy())
        return np.concatenate(parts)

    def new_stack(self, schema: Schema, seed: int, count: int) -> Stack:
        """Return `count` copies of the model as the seed initialises it."""
        module = build_model(self.model, schema, seed)
        example = Batch(**{name: torch.arange(4) % size for name, size in schema.items()})
        return Stack(module, count, example, self.device)

    def score(self, stack: Stack, rows: Rows) -> torch.Tensor:
        """Return scores (M, N) of a stack, dropout off, on the trainer's device."""
        columns = {name: torch.tensor(ids, device=self.device) for name, ids in rows.features.items()}
        parts = []
        dense = stack.dense()
        with torch.no_grad():
            for own in Batches(rows, bounds_of(len(rows), SCORING_BATCH)).slices:
                batch = Batch(**{name: ids[own] for name, ids in columns.items()})
                read = {
                    name: table.index_select(0, batch[stack.fields[name]]).transpose(0, 1)
                    for name, table in stack.tables.items()
                }
                parts.append(stack.scores(batch, read, dense, training=False))
        return torch.cat(parts, dim=1).float()


class _Chunk(Chunk):
    """Members that share seed, past and batches, while they are trained together."""

    def __init__(
        self,
        trainer: StackedTrainer,
        losses: Losses,
        members: Sequence[Member],
        problem: Problem,
        rules: Rules,
    ) -> None:
        super().__init__(members, problem, rules)
        self.trainer = trainer
        self.losses = losses
        self.stack = trainer.new_stack(problem.schema, self.seed, len(members))
        self.optimizer = self._new_optimizer()
        self.accumulators = self.optimizer.fresh_state(self.stack.tables | {_DENSE: self.stack.flat})

    def _new_optimizer(self) -> Optimizer:
        rates, decays = self.column("learning_rate"), self.column("weight_decay")
        kind = CompiledOptimizer if self.trainer.device.type == "cpu" else Optimizer
        return kind(self.trainer.protocol, rates, decays, self.trainer.device)

    def load(self, start: State) -> None:
        """Go on from states of 1 member for all, or of each."""
        if self.accumulators.keys() != start.optimizer.keys():
            raise ValueError("these states belong to another model or optimizer")
        self.stack.load(start.weights)
        self.before = int(start.epochs[0])
        for name, accumulator in self.accumulators.items():
            own = accumulator.transpose(0, 1) if name in self.stack.tables else accumulator
            copy_state(f"optimizer state {name}", own, start.optimizer[name])

    def _train_epoch(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Go through the data once; return which members met a non-finite gradient."""
        device = self.trainer.device
        rows = [self.members[position].loss for position in self.alive]
        losses = self.losses.kernel(rows, device)
        batches = self.batches(epoch)
        seeds = _random_seeds(len(batches), self.seed, _DROPOUT, self.before + epoch)
        self.optimizer.begin_epoch(len(batches))
        dense = {name: weight.requires_grad_() for name, weight in self.stack.dense().items()}
        generator = _global_generator(device)  # dropout has no other
        before = generator.get_state()

        def work(feed: Feed) -> None:
            self._train_batch(feed, dense, losses)

        run = _runner(work, generator, device)
        try:
            for feed, seed in zip(feeds(batches, device), seeds, strict=True):
                run(feed, seed)
        finally:
            generator.set_state(before)
        self.optimizer.end_epoch(self.stack.tables)
        return losses.diverged()

    def _train_batch(self, feed: Feed, dense: Mapping[str, torch.Tensor], losses: LossKernel) -> None:
        stack, optimizer, places = self.stack, self.optimizer, feed.places
        rows_read = {
            name: optimizer.read_rows(name, table, places[stack.fields[name]]).requires_grad_()
            for name, table in stack.tables.items()
        }
        scores = stack.scores(feed.batch, rows_read, dense, training=True)
        slopes = losses.slopes(scores, feed.inputs, feed.weights)
        leaves = [*rows_read.values(), *dense.values()]
        gradients = torch.autograd.grad(scores, leaves, slopes, materialize_grads=True)
        with torch.no_grad():
            for (name, table), gradient in zip(stack.tables.items(), gradients, strict=False):
                own = self.accumulators.get(name)
                optimizer.step_rows(name, table, own, places[stack.fields[name]], gradient)
            if dense:
                flat = torch.cat([part.reshape(len(stack), -1) for part in gradients[len(stack.tables) :]], dim=1)
                optimizer.step_dense(stack.flat, self.accumulators.get(_DENSE), flat)
        optimizer.end_batch()

    def _score(self, rows: Rows) -> torch.Tensor:
        return self.trainer.score(self.stack, rows)

    def _drop(self, going_on: Sequence[int]) -> None:
        index = torch.tensor(going_on, dtype=torch.int64, device=self.trainer.device)
        self.accumulators = {
            name: tensor.index_select(1 if name in self.stack.tables else 0, index)
            for name, tensor in self.accumulators.items()
        }
        self.stack.keep_members(index)
        self.optimizer.keep_members(index)

    def _states_at(self, positions: Sequence[int], epoch: int) -> State:
        index = torch.tensor(positions, dtype=torch.int64, device=self.trainer.device)
        accumulators = {
            name: tensor.index_select(1, index).transpose(0, 1)
            if name in self.stack.tables
            else tensor.index_select(0, index)
            for name, tensor in self.accumulators.items()
        }
        return State(
            self.stack.weights(index),
            {name: tensor.contiguous().cpu() for name, tensor in accumulators.items()},
            np.full(len(positions), self.before + epoch + 1, np.int64),
        )


def _random_seeds(count: int, *entropy: int) -> list[int]:
    """Seeds for torch from whole numbers of at least 0."""
    seeds = np.random.SeedSequence(entropy).generate_state(count, np.uint64) >> np.uint64(1)
    return [int(seed) for seed in seeds]


def _runner(
    work: Callable[[Feed], None], generator: torch.Generator, device: torch.device
) -> Callable[[Feed, int], None]:
    """Return what does the work for a batch with random numbers from a seed."""
    if device.type == "cuda":
        return RecordedBatches(work, generator, device).run

    def run(feed: Feed, seed: int) -> None:
        generator.manual_seed(seed)
        work(feed)

    return run


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator
