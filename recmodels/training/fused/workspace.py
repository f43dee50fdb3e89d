"""What one thread needs to train one candidate after the other: its table, its sums, and calls of the kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.cpu import fill_template, import_source, load_kernels
from gploss.compute.program import Program
from gploss.language.terminals import TERMINALS
from recmodels.training.compiled import vectors_source
from recmodels.training.fused.orders import Order
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Member
from recmodels.training.vectors import LANES

Floats = npt.NDArray[np.float32]

_SOURCE: Final = Path(__file__).with_name("mf_kernel.py")

_LINE: Final = 64  # bytes that the processor moves at a time

#: Names of MF's embedding tables and of their biases, users first. The global bias goes by another name in the
#: state of an optimiser, which is kept for all small weights of a model together.
_VECTOR_NAMES: Final = ("user_embedding.weight", "item_embedding.weight")
_BIAS_NAMES: Final = ("user_bias.weight", "item_bias.weight")
_GLOBAL_BIAS: Final = "global_bias"
_DENSE: Final = "dense"


@dataclass(frozen=True)
class Layout:
    """Where MF's weights are in the table of the kernel: users first, then items.

    Attributes:
        n_users: number of users.
        n_items: number of items.
        size: length of a vector.
    """

    n_users: int
    n_items: int
    size: int

    @property
    def rows(self) -> int:
        """Users and items together."""
        return self.n_users + self.n_items

    @property
    def width(self) -> int:
        """Length of a row, which ends in zeros."""
        return -(-self.size // LANES) * LANES

    def sides(self) -> tuple[slice, slice]:
        """Rows of the users, and of the items."""
        return slice(0, self.n_users), slice(self.n_users, self.rows)


@dataclass(frozen=True)
class Table:
    """A number for each weight of one candidate.

    Attributes:
        vectors: (rows, width) float32.
        biases: (rows + 1,) float32; the last is the global bias.
    """

    vectors: Floats
    biases: Floats

    @staticmethod
    def of(layout: Layout) -> Table:
        """Make one of zeros."""
        return Table(aligned(layout.rows, layout.width), aligned(layout.rows + 1))

    def clear(self, value: float) -> None:
        """Write a number everywhere, behind the vectors too."""
        self.vectors.fill(value)
        self.biases.fill(value)

    def put(self, layout: Layout, tensors: Mapping[str, torch.Tensor], suffix: str = "") -> None:
        """Take over one member's tensors by parameter name.

        Args:
            layout: of the table.
            tensors: without a dimension for members.
            suffix: which of the optimiser's tensors.
        """
        for name, rows in zip(_VECTOR_NAMES, layout.sides(), strict=True):
            self.vectors[rows, : layout.size] = tensors[name + suffix].numpy()
        for name, rows in zip(_BIAS_NAMES, layout.sides(), strict=True):
            self.biases[:-1][rows] = tensors[name + suffix].numpy().reshape(-1)
        last = tensors[_GLOBAL_BIAS] if _GLOBAL_BIAS in tensors else tensors[_DENSE + suffix]
        self.biases[-1] = float(last)

    def weights(self, layout: Layout) -> dict[str, torch.Tensor]:
        """Return copies of a candidate's weights, with a dimension of 1 for members."""
        return self._embeddings(layout, "") | {_GLOBAL_BIAS: torch.tensor(self.biases[-1:])}

    def optimizer_state(self, layout: Layout, suffix: str = "") -> dict[str, torch.Tensor]:
        """Return the same in the shape of optimiser state."""
        return self._embeddings(layout, suffix) | {_DENSE + suffix: torch.tensor(self.biases[None, -1:])}

    def _embeddings(self, layout: Layout, suffix: str) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, rows in zip(_VECTOR_NAMES, layout.sides(), strict=True):
            tensors[name + suffix] = torch.tensor(self.vectors[None, rows, : layout.size])
        for name, rows in zip(_BIAS_NAMES, layout.sides(), strict=True):
            tensors[name + suffix] = torch.tensor(self.biases[:-1][None, rows, None])
        return tensors


class Workspace:
    """Trains one candidate at a time; not to be shared between threads.

    Args:
        layout: of the model.
        protocol: optimiser, batch size, clipping.
        loss_slots: most slots of a loss, see `most_slots`.
    """

    def __init__(self, layout: Layout, protocol: Protocol, loss_slots: int) -> None:
        self.layout = layout
        self.protocol = protocol
        self._kernel = load_kernel(layout.width)
        self._optimizer = {"sgd": self._kernel.SGD, "adagrad": self._kernel.ADAGRAD, "adam": self._kernel.ADAM}[
            protocol.optimizer
        ]
        self._table = Table.of(layout)
        unused = Table(np.zeros((1, layout.width), np.float32), np.zeros(1, np.float32))
        self._first = unused if self.is_sgd else Table.of(layout)
        self._second = Table.of(layout) if self.is_adam else unused
        self._steps = np.zeros(layout.rows + 1 if self.is_adam else 1, np.int64)
        self._corrections = _corrections(self._kernel) if self.is_adam else np.ones((1, 2), np.float32)
        capacity = -(-(protocol.batch_size + 1) // LANES) * LANES
        self._samples = aligned(4, capacity)
        self._values = aligned(loss_slots, self._kernel.BLOCK)
        self._adjoints = aligned(loss_slots, self._kernel.BLOCK)
        self._slots = np.zeros(layout.rows, np.int32)
        self._rows = np.zeros(capacity + 1, np.int32)
        self._sums = aligned(capacity + 1, layout.width + LANES)

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
        self._table.clear(0.0)
        self._first.clear(self.protocol.initial_accumulator if self.protocol.optimizer == "adagrad" else 0.0)
        self._second.clear(0.0)
        self._steps.fill(0)
        self._table.put(self.layout, weights)
        if optimizer is None or self.is_sgd:
            return
        if self.is_adam:
            self._first.put(self.layout, optimizer, "/first")
            self._second.put(self.layout, optimizer, "/second")
            for name, rows in zip(_VECTOR_NAMES, self.layout.sides(), strict=True):
                self._steps[:-1][rows] = optimizer[f"{name}/steps"].numpy()
            self._steps[-1] = int(optimizer[f"{_DENSE}/steps"])
        else:
            self._first.put(self.layout, optimizer)

    def train(self, program: Program, member: Member, order: Order) -> bool:
        """Train for an epoch.

        Returns:
            Whether every gradient was finite; if not, training ended there.
        """
        protocol = self.protocol
        k = member.loss
        own = slice(program.instruction_offsets[k], program.instruction_offsets[k + 1])
        constants = slice(program.constant_offsets[k], program.constant_offsets[k + 1])
        with np.errstate(over="ignore"):  # a number beyond float32 is infinite there
            return bool(
                self._kernel.train_epoch(
                    self._optimizer,
                    self._table.vectors,
                    self._table.biases,
                    self._first.vectors,
                    self._first.biases,
                    self._second.vectors,
                    self._second.biases,
                    self._steps,
                    self._corrections,
                    order.users,
                    order.items,
                    order.bounds,
                    order.alone,
                    program.instructions[own],
                    program.constants[constants].astype(np.float32),
                    int(program.roots[k]),
                    int(program.used[k]),
                    bool(program.clamped[k]),
                    np.float32(program.multipliers[k]),
                    self._samples,
                    self._values,
                    self._adjoints,
                    self._slots,
                    self._rows,
                    self._sums,
                    float(member.learning_rate),
                    float(member.weight_decay),
                    float(protocol.loss_decay),
                    np.float32(np.inf if protocol.gradient_clip is None else protocol.gradient_clip),
                )
            )

    def score(self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64], scores: Floats) -> None:
        """Compute the candidate's scores.

        Args:
            users: (N,) ids.
            items: (N,) ids.
            scores: (N,), written.
        """
        table = self._table
        self._kernel.score_samples(table.vectors, table.biases, users, items, self.layout.n_users, scores)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return copies of the weights, with a dimension of 1 for members."""
        return self._table.weights(self.layout)

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the optimiser's state, likewise."""
        if self.is_sgd:
            return {}
        if not self.is_adam:
            return self._first.optimizer_state(self.layout)
        state = self._first.optimizer_state(self.layout, "/first")
        state |= self._second.optimizer_state(self.layout, "/second")
        for name, rows in zip(_VECTOR_NAMES, self.layout.sides(), strict=True):
            state[f"{name}/steps"] = torch.tensor(self._steps[:-1][None, rows])
        return state | {f"{_DENSE}/steps": torch.tensor(self._steps[None, -1:])}


def most_slots(program: Program) -> int:
    """Return the number of slots that the largest loss of a program needs."""
    sizes = np.diff(program.instruction_offsets) + np.diff(program.constant_offsets)
    return len(TERMINALS) + int(sizes.max(initial=0))


def aligned(*shape: int) -> Floats:
    """Return zeros, float32, that begin where a line of the cache begins."""
    size = math.prod(shape) * 4
    memory = np.zeros(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + size].view(np.float32).reshape(shape)


def load_kernel(width: int) -> ModuleType:
    """Return the compiled kernel for rows of a width, a multiple of 16, with today's operator table."""
    return _load_kernel(width, load_kernels("float32").__name__)


@lru_cache(maxsize=8)
def _load_kernel(width: int, interpreter: str) -> ModuleType:
    source = _SOURCE.read_text().replace("from gploss.compute.cpu_template import", f"from {interpreter} import")
    source = fill_template(source, {"width": [f"WIDTH = {width}"]})
    return import_source("gploss_fused_mf", source, depends_on=vectors_source())


def _corrections(kernel: Any) -> Floats:
    """What Adam's moments are to be multiplied with after t steps, until float32 cannot tell it from 1."""
    steps = 1 + math.ceil(math.log(2.0**-25) / math.log(max(kernel.BETA_1, kernel.BETA_2)))
    t = np.arange(steps)
    t[0] = 1  # never asked for
    first = 1 / (1 - float(kernel.BETA_1) ** t)
    second = (1 - float(kernel.BETA_2) ** t) ** -0.5
    return np.stack([first, second], axis=1).astype(np.float32)
