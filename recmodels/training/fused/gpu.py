"""The fused trainer for CUDA devices: one persistent Triton program trains one factorisation model for an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import whole_number
from gploss.compute.gpu import interpreted, load_triton_kernels, why_no_triton
from gploss.compute.losses import TrainableLosses
from gploss.compute.on_tensors import launching_on
from gploss.compute.program import Program
from gploss.compute.tables import Tables
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.models.base import ModelFactory, build_model
from recmodels.training.arguments import given_protocol
from recmodels.training.course import Rules
from recmodels.training.epoch_index import EpochIndex
from recmodels.training.fused.layout import OtherModelError, check_lookups, vector_size
from recmodels.training.plain.proof import Proof
from recmodels.training.plain.pulls import formulas
from recmodels.training.population import Chunk, ChunkTrainer, fit_halving
from recmodels.training.problem import Problem, bounds_of
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Member, State, formulas_only

#: Most candidates in one launch. A GPU is full from about a thousand.
CHUNK_SIZE: Final = 4096

#: Rows that a program gathers at a time, and its warps.
ROWS_AT_A_TIME: Final = 32
WARPS: Final = 4

#: Most registers of a thread: four programs then share a multiprocessor.
REGISTERS: Final = 128

#: Sources of the kernels, for `load_triton_kernels`.
KERNELS: Final = tuple(Path(__file__).with_name(name) for name in ("triton_steps.py", "triton_kernel.py"))
_VECTORS: Final = ("user_embedding.weight", "item_embedding.weight")
_BIASES: Final = ("user_bias.weight", "item_bias.weight")
_GLOBAL: Final = "global_bias"
_DENSE: Final = "dense"  # name of the global bias in the optimiser state, as in the stacked trainer


class TritonTrainer(ChunkTrainer):
    """Trains matrix factorisation (`MF`) on a CUDA device, thousands of candidates at once.

    Weights, batches and steps are those of `StackedTrainer`; results differ by rounding only. With
    ``TRITON_INTERPRET=1`` in the environment it runs on the CPU, slowly: for tests.

    Args:
        model: makes an `MF` for a number of users and items.
        protocol: optimiser, batch size, clipping, patience.
        device: "auto", "cuda" or "cuda:N".
        chunk_size: most candidates in one launch, which bounds memory; halved where the device has too little.

    Raises:
        ValueError: the device or the protocol's optimiser cannot be used, or Triton is not there.
    """

    name = "triton"

    def __init__(
        self, model: ModelFactory, protocol: Protocol, *, device: str = "auto", chunk_size: int = CHUNK_SIZE
    ) -> None:
        chunk_size = whole_number("chunk_size", chunk_size, least=1)
        if given_protocol(protocol).optimizer not in ("sgd", "adagrad"):
            raise ValueError(f"the Triton trainer knows no optimizer {protocol.optimizer!r}; use 'adagrad'")
        reason = why_no_triton()
        if reason is not None:
            raise ValueError(f"the Triton trainer cannot be used: {reason}")
        super().__init__(model, protocol, device=device, largest=chunk_size)
        if self.device.type != "cuda" and not interpreted():
            raise ValueError("the Triton trainer needs a CUDA device; on the CPU use another trainer")
        self.chunk_size = chunk_size
        self._proven: set[Schema] = set()

    def forget(self) -> None:
        """Prove the model anew; see `Trainer.forget`."""
        self._proven.clear()

    def prove(self, batches: Batches, task: Task = POINTWISE) -> None:
        """Hold the kernel to the user's own module, on a few batches; see `FusedTrainer.prove`.

        Raises:
            OtherModelError: the model is not matrix factorisation as the kernel computes it.
        """
        self._module(batches.rows.schema, seed=0)
        proof = Proof(self.model, self.protocol, batches, str(self.device), formulas(task))
        check_lookups(self.name, proof)
        candidate = TritonTrainer(self.model, proof.protocol, device=str(self.device))
        candidate._proven.add(batches.rows.schema)
        reason = proof.why_not(candidate)
        if reason is not None:
            raise OtherModelError(self.name, reason)

    def _get_ready(self, problem: Problem) -> None:
        settings = {name: own.default for name, own in self.settings(problem).items()}
        self._prove_once(problem.batches(0, 0, settings), problem.task)

    def _prove_once(self, batches: Batches, task: Task = POINTWISE) -> None:
        """Prove it once for all problems with the same columns."""
        if batches.rows.schema not in self._proven:
            self.prove(batches, task)
            self._proven.add(batches.rows.schema)

    def chunk(
        self, losses: TrainableLosses, members: Sequence[Member], problem: Problem, rules: Rules, origin: int
    ) -> Chunk:
        """Return members that share seed and batches, with the weights that the seed `origin` gives."""
        return _Chunk(self, formulas_only(losses, self.name), members, problem, rules, origin)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        """Return scores (M, N); see `Trainer.predict`."""
        scores = np.empty((len(states), len(rows)), np.float32)
        self._prove_once(Batches(rows, bounds_of(len(rows), self.protocol.batch_size)))

        def predict(places: list[int]) -> None:
            part = states.take(places)
            weights = Weights.of(self._module(rows.schema, seed=0), len(part), self.device)
            weights.load(part.weights)
            own = torch.arange(len(part), device=self.device)
            scores[places] = weights.score(own, _Ids.of(rows, self.device)).cpu().numpy()

        for first in range(0, len(states), self.chunk_size):
            fit_halving(list(range(first, min(first + self.chunk_size, len(states)))), predict)
        return scores

    def _module(self, schema: Schema, seed: int) -> torch.nn.Module:
        module = build_model(self.model, schema, seed)
        vector_size(module, schema)
        return module

    def new_weights(self, schema: Schema, seed: int, count: int) -> Weights:
        """Return `count` copies of the model as the seed initialises it."""
        return Weights.of(self._module(schema, seed), count, self.device)


@dataclass(frozen=True)
class _Ids:
    """Users and items (N,) int64 of examples, on a device."""

    users: torch.Tensor
    items: torch.Tensor

    @staticmethod
    def of(rows: Rows, device: torch.device) -> _Ids:
        users, items = (torch.tensor(rows.features[name], device=device) for name in ("user", "item"))
        return _Ids(users, items)


@dataclass
class Weights:
    """Weights of M factorisation models on a device, members first.

    Attributes:
        tables: (M, rows, d) vectors and (M, rows, 1) biases by parameter name, and (M, 1) global biases as "dense".
    """

    tables: dict[str, torch.Tensor]

    @staticmethod
    def of(module: torch.nn.Module, count: int, device: torch.device) -> Weights:
        """Return `count` copies of a model."""
        state = module.state_dict()
        shared = {name: state[name] for name in (*_VECTORS, *_BIASES)} | {_DENSE: state[_GLOBAL].reshape(1)}
        return Weights(
            {name: weight.to(device).expand(count, *weight.shape).contiguous() for name, weight in shared.items()}
        )

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights by parameter name; 1 member's are given to all.

        Raises:
            ValueError: names or shapes are those of another model.
        """
        expected = {_GLOBAL if name == _DENSE else name: table for name, table in self.tables.items()}
        if weights.keys() != expected.keys():
            raise ValueError(f"these states belong to another model: they hold {', '.join(weights)}")
        for name, table in expected.items():
            source = weights[name].reshape(-1, 1) if name == _GLOBAL else weights[name]
            table.copy_(_fitting(source, table, name))

    def state(self, places: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return copies of some members' weights on the CPU, by parameter name."""
        parts = {name: table.index_select(0, places).cpu() for name, table in self.tables.items()}
        parts[_GLOBAL] = parts.pop(_DENSE).reshape(-1)
        return parts

    def arguments(self) -> tuple[torch.Tensor, ...]:
        """Return the tables in the order of the kernels' arguments."""
        return tuple(self.tables[name] for name in (*_VECTORS, *_BIASES, _DENSE))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of users, of items, and length of a vector."""
        users, items = (self.tables[name] for name in _VECTORS)
        return users.shape[1], items.shape[1], users.shape[2]

    def score(self, places: torch.Tensor, ids: _Ids) -> torch.Tensor:
        """Return scores (A, N) of some members."""
        samples = len(ids.users)
        scores = torch.empty((len(places), samples), device=places.device)
        n_users, n_items, size = self.shape
        block = _power_of_two(size)
        rows = max(1, min(128, 8192 // block))
        pieces = -(-samples // rows)
        if scores.numel():
            with launching_on(places.device):
                load_triton_kernels(Tables.of(POINTWISE), KERNELS).score[(len(places) * pieces,)](
                    places,
                    *self.arguments(),
                    ids.users,
                    ids.items,
                    scores,
                    samples,
                    pieces,
                    n_users,
                    n_items,
                    D=size,
                    BLOCK_D=block,
                    CHUNK=rows,
                    num_warps=WARPS,
                    num_stages=1,
                )
        return scores


class _Chunk(Chunk):
    """Candidates in one launch an epoch."""

    def __init__(
        self,
        trainer: TritonTrainer,
        losses: Program,
        members: Sequence[Member],
        problem: Problem,
        rules: Rules,
        origin: int,
    ) -> None:
        protocol = trainer.protocol
        super().__init__(members, problem, rules, origin)
        self.protocol = protocol
        self.device = trainer.device
        self.validation: tuple[Rows, _Ids] | None = None
        self.weights = trainer.new_weights(problem.schema, origin, len(members))
        self.is_adagrad = protocol.optimizer == "adagrad"
        self.sums = (
            {
                name: torch.full_like(table, protocol.initial_accumulator)
                for name, table in self.weights.tables.items()
            }
            if self.is_adagrad
            else self.weights.tables  # never read: plain SGD keeps no state
        )
        self.places = torch.arange(len(members), device=self.device)
        rates, decays = self.column("learning_rate"), self.column("weight_decay")
        self.rates = rates.to(self.device, torch.float32)
        self.decays = decays.to(self.device, torch.float32)
        self.log_shrink = torch.log1p(-rates * (decays + 2 * protocol.loss_decay)).unsqueeze(-1)
        self.program = losses.on_device([member.loss for member in members], self.device)
        self.bounds = np.empty(0, np.int64)  # of the batches that the next three are for
        self.shrink = self.workspace = torch.empty(0, device=self.device)
        self.block = 0

    def _make_room(self, bounds: npt.NDArray[np.int64]) -> None:
        """Make ready for batches of these bounds."""
        if np.array_equal(bounds, self.bounds):
            return
        counts = torch.arange(len(bounds), dtype=torch.float64)
        self.shrink = torch.expm1(counts * self.log_shrink).to(self.device, torch.float32)
        self.block = _power_of_two(int(np.diff(bounds).max()))
        size = self.block * (2 + self.weights.shape[2] + 2 * self.program.slots)
        self.workspace = torch.empty((len(self.members), size), device=self.device)
        self.bounds = bounds

    def load(self, start: State) -> None:
        """Go on from states of 1 member for all, or of each."""
        expected = self.sums if self.is_adagrad else {}
        if expected.keys() != start.optimizer.keys():
            raise ValueError("these states belong to another model or optimizer")
        self.weights.load(start.weights)
        self.before = int(start.epochs[0])
        for name, own in expected.items():
            own.copy_(_fitting(start.optimizer[name], own, f"optimizer state {name}"))

    def _train_epoch(self, epoch: int) -> npt.NDArray[np.bool_]:
        batches = self.batches(epoch)
        self._make_room(batches.bounds)
        index = EpochIndex.of(batches, self.device)
        diverged = torch.zeros(len(self.places), dtype=torch.int32, device=self.device)
        self._launch(index, diverged)
        if not self.is_adagrad:
            sides = (index.sides["user"], index.sides["item"])
            for name, side in zip((*_VECTORS, *_BIASES), sides * 2, strict=True):
                behind = self.shrink[:, len(batches) - side.steps_done]
                table = self.weights.tables[name]
                table.addcmul_(table, behind.unsqueeze(-1))
        found: npt.NDArray[np.bool_] = diverged.cpu().numpy() != 0
        return found

    def _launch(self, index: EpochIndex, diverged: torch.Tensor) -> None:
        n_users, n_items, size = self.weights.shape
        clip = np.inf if self.protocol.gradient_clip is None else self.protocol.gradient_clip
        block = _power_of_two(size)
        sums = Weights(self.sums)
        inputs = self.program.inputs(index.inputs)
        with launching_on(self.device):
            load_triton_kernels(self.program.tables, KERNELS).train_epoch[(len(self.places),)](
                *self.program.arrays,
                self.program.rows,
                self.places,
                *self.weights.arguments(),
                *sums.arguments(),
                self.rates,
                self.decays,
                self.shrink,
                index.planes(),
                inputs,
                self.program.given,
                inputs if index.weights is None else index.weights,
                index.bounds,
                index.sides["user"].groups.to(torch.int32),
                index.sides["item"].groups.to(torch.int32),
                diverged,
                self.workspace,
                index.samples,
                len(self.bounds) - 1,
                n_users,
                n_items,
                self.workspace.shape[1],
                2 * self.protocol.loss_decay,
                float(clip),
                D=size,
                BLOCK_D=block,
                BLOCK=self.block,
                CHUNK=min(self.block, max(1, ROWS_AT_A_TIME * 64 // block)),
                ADAGRAD=self.is_adagrad,
                WEIGHTED=index.weights is not None,
                num_warps=WARPS,
                num_stages=1,
                maxnreg=REGISTERS,
            )

    def _score(self, rows: Rows) -> torch.Tensor:
        if self.validation is None or self.validation[0] is not rows:
            self.validation = rows, _Ids.of(rows, self.device)
        return self.weights.score(self.places, self.validation[1])

    def _drop(self, going_on: Sequence[int]) -> None:
        index = torch.tensor(going_on, dtype=torch.int64, device=self.device)
        self.places = self.places[index]
        self.program = self.program.take(index)

    def _states_at(self, positions: Sequence[int], epoch: int) -> State:
        places = self.places[torch.tensor(positions, dtype=torch.int64, device=self.device)]
        sums = {name: own.index_select(0, places).cpu() for name, own in self.sums.items() if self.is_adagrad}
        done = np.full(len(positions), self.before + epoch + 1, np.int64)
        return State(self.weights.state(places), sums, done, np.full(len(positions), self.origin, np.int64))


def _power_of_two(size: int) -> int:
    return 1 << (int(size) - 1).bit_length()


def _fitting(source: torch.Tensor, table: torch.Tensor, name: str) -> torch.Tensor:
    if source.shape[1:] != table.shape[1:] or len(source) not in (1, len(table)):
        raise ValueError(
            f"these states belong to another model: {name} has the shape {tuple(source.shape)}, not "
            f"{tuple(table.shape)}"
        )
    return source
