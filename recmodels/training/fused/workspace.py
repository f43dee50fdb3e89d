"""What one thread needs to train one candidate after the other: its table, its sums, and calls of the kernel."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import torch

from gploss.compute.cpu import fill_template, import_source, load_kernels
from gploss.compute.program import Program
from gploss.compute.tables import Tables
from recmodels.training.compiled import vectors_source
from recmodels.training.fused import arguments
from recmodels.training.fused.arguments import (
    ADAGRAD,
    ADAM,
    BETA_1,
    BETA_2,
    SGD,
    Floats,
    LongInts,
    Loss,
    Memory,
    OptimizerState,
    Order,
    Settings,
    Table,
)
from recmodels.training.fused.layout import VECTOR_NAMES, Layout, aligned
from recmodels.training.plain.single import DENSE
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Member
from recmodels.training.vectors import LANES

_SOURCE: Final = Path(__file__).with_name("mf_kernel.py")
_STEPS: Final = Path(__file__).with_name("mf_steps.py")


class Workspace:
    """Trains one candidate at a time; not to be shared between threads.

    Args:
        layout: of the model.
        protocol: optimiser, clipping.
        tables: of the programs that it will train with.
        loss_slots: most slots of a loss, see `Program.most_slots`.
    """

    def __init__(self, layout: Layout, protocol: Protocol, tables: Tables, loss_slots: int) -> None:
        self.layout = layout
        self.protocol = protocol
        self._kernel = load_kernel(layout.width, tables)
        self._inputs = len(tables.inputs)
        self._loss_slots = loss_slots
        self._optimizer = {"sgd": SGD, "adagrad": ADAGRAD, "adam": ADAM}[protocol.optimizer]
        self._table = layout.zeros()
        unused = Table(np.zeros((1, layout.width), np.float32), np.zeros(1, np.float32))
        self._state = OptimizerState(
            first=unused if self.is_sgd else layout.zeros(),
            second=layout.zeros() if self.is_adam else unused,
            steps=np.zeros(layout.rows + 1 if self.is_adam else 1, np.int64),
            corrections=_corrections() if self.is_adam else np.ones((1, 2), np.float32),
        )
        self._memory = self._memory_for(LANES)

    def _memory_for(self, batch: int) -> Memory:
        """Return memory for batches of at most so many samples."""
        capacity = -(-batch // LANES) * LANES
        samples = aligned(self._inputs + 2, capacity)  # the losses, and one row of gradients, come after the inputs
        return Memory(
            samples=samples,
            slopes=samples[-1:],
            values=aligned(self._loss_slots, self._kernel.BLOCK),
            adjoints=aligned(self._loss_slots, self._kernel.BLOCK),
            slots=np.zeros(self.layout.rows, np.int32),
            rows=np.zeros(capacity + 1, np.int32),
            sums=aligned(capacity + 1, self.layout.width + LANES),
        )

    @property
    def is_sgd(self) -> bool:
        """Whether the optimiser keeps no state."""
        return self.protocol.optimizer == "sgd"

    @property
    def is_adam(self) -> bool:
        """Whether the optimiser keeps two moments and counts steps."""
        return self.protocol.optimizer == "adam"

    def begin(self, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor] | None) -> None:
        """Take over a candidate.

        Args:
            weights: of the model, by parameter name.
            optimizer: state of the optimiser to go on from, or None to start anew.
        """
        state, layout = self._state, self.layout
        _fill(self._table, 0.0)
        _fill(state.first, self.protocol.initial_accumulator if self.protocol.optimizer == "adagrad" else 0.0)
        _fill(state.second, 0.0)
        state.steps.fill(0)
        layout.put(self._table, weights)
        if optimizer is None or self.is_sgd:
            return
        if self.is_adam:
            layout.put(state.first, optimizer, "/first")
            layout.put(state.second, optimizer, "/second")
            for name, rows in zip(VECTOR_NAMES, layout.sides(), strict=True):
                state.steps[:-1][rows] = optimizer[f"{name}/steps"].numpy()
            state.steps[-1] = int(optimizer[f"{DENSE}/steps"])
        else:
            layout.put(state.first, optimizer)

    def train(self, losses: Program, member: Member, order: Order) -> bool:
        """Train for an epoch.

        Args:
            losses: of the workspace's tables.
            member: with a value for every setting.
            order: of the epoch, with what the losses read beside the score.

        Returns:
            Whether every gradient was finite; if not, training ended there.
        """
        if order.largest > self._memory.slopes.shape[1]:
            self._memory = self._memory_for(order.largest)
        clip = self.protocol.gradient_clip
        with np.errstate(over="ignore"):  # a number beyond float32 is infinite there
            settings = Settings(
                learning_rate=member.settings["learning_rate"],
                weight_decay=member.settings["weight_decay"],
                loss_decay=float(self.protocol.loss_decay),
                clip=np.float32(np.inf if clip is None else clip),
            )
            loss = _loss_of(losses, member.loss)
            epoch = (self._optimizer, self._table, self._state, order, loss, self._memory, settings)
            return bool(self._kernel.train_epoch(*epoch))

    def score(self, users: LongInts, items: LongInts, scores: Floats) -> None:
        """Compute the candidate's scores.

        Args:
            users: (N,) ids.
            items: (N,) ids.
            scores: (N,), written.
        """
        self._kernel.score_samples(self._table, users, items, self.layout.n_users, scores)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return copies of the weights, with a dimension of 1 for members."""
        return self.layout.weights(self._table)

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the optimiser's state, likewise."""
        if self.is_sgd:
            return {}
        first, second, steps, _ = self._state
        if not self.is_adam:
            return self.layout.optimizer_state(first)
        state = self.layout.optimizer_state(first, "/first")
        state |= self.layout.optimizer_state(second, "/second")
        for name, rows in zip(VECTOR_NAMES, self.layout.sides(), strict=True):
            state[f"{name}/steps"] = torch.tensor(steps[:-1][None, rows])
        return state | {f"{DENSE}/steps": torch.tensor(steps[None, -1:])}


def _fill(table: Table, value: float) -> None:
    """Write a number everywhere, behind the vectors too."""
    table.vectors.fill(value)
    table.biases.fill(value)


def _loss_of(program: Program, k: int) -> Loss:
    """Return what the kernel is given of loss k."""
    own = slice(program.instruction_offsets[k], program.instruction_offsets[k + 1])
    constants = slice(program.constant_offsets[k], program.constant_offsets[k + 1])
    inputs = program.tables.inputs
    return Loss(
        program.instructions[own],
        program.constants[constants].astype(np.float32),
        root=int(program.roots[k]),
        used=int(program.used[k]),
        clamped=bool(program.clamped[k]),
        multiplier=np.float32(program.multipliers[k]),
        score=inputs.index(program.task.score),
        given=np.array([inputs.index(name) for name in inputs_beside_score(program)], np.int64),
    )


def inputs_beside_score(losses: Program) -> tuple[str, ...]:
    """Return the names of what some losses read beside the score."""
    score = losses.task.score
    return tuple(name for name in losses.uses if name != score)


@lru_cache(maxsize=8)
def load_kernel(width: int, tables: Tables) -> ModuleType:
    """Return the compiled kernel for rows of a width, a multiple of 16, and programs with these tables."""
    interpreter = load_kernels("float32", tables).__name__
    depends_on = vectors_source() + inspect.getsource(arguments)
    steps = fill_template(_STEPS.read_text(), {"width": [f"WIDTH = {width}"]})
    steps_name = import_source("gploss_mf_steps", steps, depends_on).__name__
    # A generated module's name is a hash of all that is in it, and so this source's own hash covers theirs.
    source = _SOURCE.read_text().replace("from gploss.compute.cpu_template import", f"from {interpreter} import")
    source = source.replace("from recmodels.training.fused.mf_steps import", f"from {steps_name} import")
    return import_source("gploss_mf_kernel", source, depends_on)


def _corrections() -> Floats:
    """What Adam's moments are to be multiplied with after t steps, until float32 cannot tell it from 1."""
    steps = 1 + math.ceil(math.log(2.0**-25) / math.log(max(BETA_1, BETA_2)))
    t = np.arange(steps)
    t[0] = 1  # never asked for
    first = 1 / (1 - float(BETA_1) ** t)
    second = (1 - float(BETA_2) ** t) ** -0.5
    return np.stack([first, second], axis=1).astype(np.float32)
