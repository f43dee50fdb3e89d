"""The general trainer: stacked parameters in torch, for any module, on the CPU or a CUDA device."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import whole_number
from gploss.compute.losses import LossKernel, TrainableLosses
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import Batch, ModelFactory, build_model
from recmodels.training.course import Rules
from recmodels.training.plain.proof import OtherwiseError, Proof, draws_alike, first_line
from recmodels.training.plain.single import DENSE
from recmodels.training.plain.trainer import SCORING_BATCH, PlainTrainer, batch_seeds, random_numbers, stop_dropout
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


class Way(StrEnum):
    """How a module is trained, the fastest first."""

    LEADING = "the members are a leading dimension"
    MAPPED = "mapped over the members"
    ONE_BY_ONE = "one by one"


@dataclass(frozen=True)
class Plan:
    """What was found out about a module.

    Attributes:
        way: how it is trained.
        reason: why no faster.
        idle: names of parameters that are in no gradient.
    """

    way: Way
    reason: str | None = None
    idle: frozenset[str] = frozenset()


class StackedTrainer(ChunkTrainer):
    """Trains any `torch.nn.Module`, members with the same seed together.

    Weights of a chunk of members are stacked in one tensor a parameter, scores come from
    `torch.vmap` over `torch.func.functional_call`, d loss/d score from the compiled loss programs, and one backward
    pass carries it to the weights. Members that share a seed share initial weights, batches and dropout masks.

    Before a model is first trained, a few batches of the problem show whether that gives what plain torch gives
    with the user's own module (`recmodels.training.plain.proof`). Where it does not, members are trained one by one
    in plain torch, and a warning says why.

    Args:
        model: makes a module for the columns of a problem.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cpu", "cuda" or "cuda:N".
        stack_size: most members in one set of tensors, which bounds memory.

    Raises:
        ValueError: the device cannot be used.
    """

    name = "stacked"

    def __init__(
        self, model: ModelFactory, protocol: Protocol, *, device: str = "auto", stack_size: int = STACK_SIZE
    ) -> None:
        stack_size = whole_number("stack_size", stack_size, least=1)
        super().__init__(model, protocol, device=device, largest=stack_size)
        self.stack_size = stack_size
        self.plans: dict[Schema, Plan] = {}
        self._is_tried = False
        self._plain = PlainTrainer(model, protocol, device=device, together=stack_size)

    def forget(self) -> None:
        """Find out anew how the model is trained; see `Trainer.forget`."""
        self.plans.clear()

    def plan(self, batches: Batches) -> Plan:
        """Find out how the model is trained: once for all problems with the same columns.

        Args:
            batches: of the problem, real ones.

        Raises:
            ValueError: the model cannot be trained at all.
        """
        schema = batches.rows.schema
        if schema not in self.plans:
            proof = Proof(self.model, self.protocol, batches, str(self.device))
            self._plain.carried |= proof.carried
            plan = Plan(Way.MAPPED, None, proof.idle)
            reason = proof.why_not(self._with(schema, plan, proof.protocol))
            if reason is None:
                leading = replace(plan, way=Way.LEADING)
                reason = proof.why_not(self._with(schema, leading, proof.protocol))
                plan = leading if reason is None else replace(plan, reason=reason)
            else:
                plan = self._one_by_one(reason, schema)
            self.plans[schema] = plan
        return self.plans[schema]

    def _with(self, schema: Schema, plan: Plan, protocol: Protocol) -> StackedTrainer:
        other = StackedTrainer(self.model, protocol, device=str(self.device), stack_size=2)
        other.plans[schema] = plan
        other._is_tried = True
        return other

    def _one_by_one(self, reason: str, schema: Schema) -> Plan:
        warnings.warn(
            f"{self._plain.described(schema)} is trained one by one in plain torch, some 5 to 15 times slower than "
            f"in stacked tensors: {reason}",
            stacklevel=2,
        )
        return Plan(Way.ONE_BY_ONE, reason)

    def _get_ready(self, problem: Problem) -> None:
        self.plan(problem.batches(0, 0, {name: own.default for name, own in self.settings(problem).items()}))

    def chunk(
        self, losses: TrainableLosses, members: Sequence[Member], problem: Problem, rules: Rules, origin: int
    ) -> Chunk:
        """Return members that share seed and batches, with the weights that the seed `origin` gives."""
        if self._plan_of(problem.schema).way is Way.ONE_BY_ONE:
            return self._plain.chunk(losses, members, problem, rules, origin)
        return _Chunk(self, losses, members, problem, rules, origin)

    def _plan_of(self, schema: Schema) -> Plan:
        return self.plans.get(schema, Plan(Way.MAPPED))

    def _train(self, make: Callable[[], Chunk], train: Callable[[Chunk], None], schema: Schema) -> Chunk:
        try:
            return super()._train(make, train, schema)
        except OtherwiseError as error:
            self._go_slower(error, schema)
        return self._train(make, train, schema)

    def _go_slower(self, error: OtherwiseError, schema: Schema) -> None:
        """Give up a way that a batch has shown to be none."""
        if self._is_tried:
            raise error
        plan = self._plan_of(schema)
        if plan.way is Way.LEADING:
            self.plans[schema] = replace(plan, way=Way.MAPPED, reason=str(error))
        else:
            self.plans[schema] = self._one_by_one(str(error), schema)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        if not len(states):
            return np.empty((0, len(rows)), np.float32)
        if self.plan(Batches(rows, bounds_of(len(rows), self.protocol.batch_size))).way is Way.ONE_BY_ONE:
            return self._plain.predict(states, rows)
        try:
            return self._predict_stacked(states, rows)
        except OtherwiseError as error:
            self._go_slower(error, rows.schema)
        return self.predict(states, rows)

    def _predict_stacked(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        scores = np.empty((len(states), len(rows)), np.float32)
        for seed in np.unique(states.seeds):
            places = np.flatnonzero(states.seeds == seed)
            for first in range(0, len(places), self.stack_size):
                own = places[first : first + self.stack_size].tolist()
                stack = self.new_stack(rows.schema, int(seed), len(own))
                stack.load(states.take(own).weights)
                scores[own] = self.score(stack, rows).cpu().numpy()
        return scores

    def new_stack(self, schema: Schema, seed: int, count: int) -> Stack:
        """Return `count` copies of the model as the seed initialises it."""
        module = build_model(self.model, schema, seed)
        example = Batch(**{name: torch.arange(4) % size for name, size in schema.items()})
        plan = self._plan_of(schema)
        leading = plan.way is Way.LEADING
        if self._is_tried and not draws_alike(self.device):
            module = copy.deepcopy(module)
            stop_dropout(module)
        return Stack(module, count, example, self.device, leading=leading, idle=plan.idle)

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
        losses: TrainableLosses,
        members: Sequence[Member],
        problem: Problem,
        rules: Rules,
        origin: int,
    ) -> None:
        super().__init__(members, problem, rules, origin)
        self.trainer = trainer
        self.losses = losses
        self.stack = trainer.new_stack(problem.schema, origin, len(members))
        self.optimizer = self._new_optimizer()
        self.accumulators = self.optimizer.fresh_state(self.stack.tables | {DENSE: self.stack.flat})

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
        seeds = batch_seeds(self.seed, self.before + epoch, len(batches))
        self.optimizer.begin_epoch(len(batches))
        dense = {name: weight.requires_grad_() for name, weight in self.stack.dense().items()}

        def work(feed: Feed) -> None:
            self._train_batch(feed, dense, losses)

        with random_numbers(device) as generator:  # dropout has no other
            run = _runner(work, generator, device)
            for feed, seed in zip(feeds(batches, device), seeds, strict=True):
                run(feed, seed)
        self.optimizer.end_epoch(self.stack.tables)
        return losses.diverged()

    def _train_batch(self, feed: Feed, dense: Mapping[str, torch.Tensor], losses: LossKernel) -> None:
        stack, optimizer, places = self.stack, self.optimizer, feed.places
        rows_read = {
            name: optimizer.read_rows(name, table, places[stack.fields[name]]).requires_grad_()
            for name, table in stack.tables.items()
        }
        gradients = self._gradients(feed, rows_read, dense, losses)
        with torch.no_grad():
            for (name, table), gradient in zip(stack.tables.items(), gradients, strict=False):
                own = self.accumulators.get(name)
                optimizer.step_rows(name, table, own, places[stack.fields[name]], gradient)
            if dense:
                flat = torch.cat([part.reshape(len(stack), -1) for part in gradients[len(stack.tables) :]], dim=1)
                optimizer.step_dense(stack.flat, self.accumulators.get(DENSE), flat)
        optimizer.end_batch()

    def _gradients(
        self, feed: Feed, rows: Mapping[str, torch.Tensor], dense: Mapping[str, torch.Tensor], losses: LossKernel
    ) -> tuple[torch.Tensor, ...]:
        """Return the gradients of rows and dense weights; idle ones must still be in none."""
        stack = self.stack
        idle = {name: stack.buffers[name].requires_grad_() for name in stack.idle}
        names = [*rows, *dense, *idle]
        leaves = [*rows.values(), *dense.values(), *idle.values()]
        scores = stack.scores(feed.batch, rows, dense, training=True)
        slopes = losses.slopes(scores, feed.inputs, feed.weights)
        try:
            gradients = torch.autograd.grad(scores, leaves, slopes, allow_unused=True)
        except torch.OutOfMemoryError:
            raise  # fewer members at a time may do
        except Exception as error:  # whatever the module says to members
            raise OtherwiseError(first_line(error)) from error
        for name, gradient in zip(names, gradients, strict=True):
            if (gradient is None) is not (name in idle):
                raise OtherwiseError(f"only some batches give {name} a gradient")
        return gradients[: len(names) - len(idle)]

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
            np.full(len(positions), self.origin, np.int64),
        )


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
