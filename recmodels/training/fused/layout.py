"""Where matrix factorisation's weights are: in a module, and in the table of the kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from recmodels.data.rows import Schema
from recmodels.training.fused.arguments import Floats, Table
from recmodels.training.plain.proof import Proof
from recmodels.training.plain.single import DENSE
from recmodels.training.vectors import LANES

_LINE: Final = 64  # bytes that the processor moves at a time

#: Names of MF's embedding tables and of their biases, users first. The global bias goes by another name in the
#: state of an optimiser, which is kept for all small weights of a model together.
VECTOR_NAMES: Final = ("user_embedding.weight", "item_embedding.weight")
BIAS_NAMES: Final = ("user_bias.weight", "item_bias.weight")
GLOBAL_BIAS: Final = "global_bias"


class OtherModelError(ValueError):
    """A model is not matrix factorisation as a fused trainer computes it.

    Args:
        trainer: its name.
        reason: what the model does otherwise.
    """

    def __init__(self, trainer: str, reason: str) -> None:
        super().__init__(
            f"the {trainer} trainer knows matrix factorisation only (MF), and this model is another one: {reason}; "
            "use StackedTrainer"
        )
        self.trainer = trainer
        self.reason = reason

    def __reduce__(self) -> tuple[type[OtherModelError], tuple[str, str]]:
        return OtherModelError, (self.trainer, self.reason)


def why_other_weights(module: torch.nn.Module, schema: Mapping[str, int]) -> str | None:
    """Return in which way a module has not the weights of `MF`, all of them to be trained; None if it has."""
    if not {"user", "item"} <= schema.keys():
        return f"it is made of {', '.join(schema)}"
    own = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    users, items = schema["user"], schema["item"]
    size = own.get(VECTOR_NAMES[0], (0, 0))[-1]
    shapes = ((users, size), (items, size), (users, 1), (items, 1), ())
    if own != dict(zip((*VECTOR_NAMES, *BIAS_NAMES, GLOBAL_BIAS), shapes, strict=True)) or not size:
        return f"{type(module).__name__} has other weights"
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            return f"{name} is not to be trained"
        if weight.dtype != torch.float32:
            return f"{name} is {str(weight.dtype).removeprefix('torch.')}"
    buffers = [name for name, _ in module.named_buffers()]
    return f"it has the buffer {buffers[0]}" if buffers else None


def check_lookups(trainer: str, proof: Proof) -> None:
    """Check that each table is looked up once, with its own ids.

    Args:
        trainer: its name.
        proof: what plain torch makes of the model.

    Raises:
        OtherModelError: one is not.
    """
    for name in (*VECTOR_NAMES, *BIAS_NAMES):
        if proof.fields.get(name) != name.partition("_")[0] or name in proof.idle:
            raise OtherModelError(trainer, f"{name} is used otherwise than in one lookup of the batch's own ids")


def vector_size(module: torch.nn.Module, schema: Schema) -> int:
    """Return the length of the vectors of a module that has the weights of `MF`.

    Raises:
        OtherModelError: it has not.
    """
    reason = why_other_weights(module, schema)
    if reason is not None:
        raise OtherModelError("fused", reason)
    return int(module.get_parameter(VECTOR_NAMES[0]).shape[1])


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

    def zeros(self) -> Table:
        """Make a table of zeros."""
        return Table(aligned(self.rows, self.width), aligned(self.rows + 1))

    def put(self, table: Table, tensors: Mapping[str, torch.Tensor], suffix: str = "") -> None:
        """Write one member's tensors into a table.

        Args:
            table: written.
            tensors: by parameter name, without a dimension for members.
            suffix: which of the optimiser's tensors.
        """
        for name, rows in zip(VECTOR_NAMES, self.sides(), strict=True):
            table.vectors[rows, : self.size] = tensors[name + suffix].numpy()
        for name, rows in zip(BIAS_NAMES, self.sides(), strict=True):
            table.biases[:-1][rows] = tensors[name + suffix].numpy().reshape(-1)
        last = tensors[GLOBAL_BIAS] if GLOBAL_BIAS in tensors else tensors[DENSE + suffix]
        table.biases[-1] = float(last)

    def weights(self, table: Table) -> dict[str, torch.Tensor]:
        """Return copies of a candidate's weights, with a dimension of 1 for members."""
        return self._embeddings(table, "") | {GLOBAL_BIAS: torch.tensor(table.biases[-1:])}

    def optimizer_state(self, table: Table, suffix: str = "") -> dict[str, torch.Tensor]:
        """Return the same in the shape of optimiser state."""
        return self._embeddings(table, suffix) | {DENSE + suffix: torch.tensor(table.biases[None, -1:])}

    def _embeddings(self, table: Table, suffix: str) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, rows in zip(VECTOR_NAMES, self.sides(), strict=True):
            tensors[name + suffix] = torch.tensor(table.vectors[None, rows, : self.size])
        for name, rows in zip(BIAS_NAMES, self.sides(), strict=True):
            tensors[name + suffix] = torch.tensor(table.biases[:-1][None, rows, None])
        return tensors


def check_tensors(what: str, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Compare names and shapes, but for the number of members.

    Args:
        what: they are.
        found: by name.
        wanted: by name.

    Raises:
        ValueError: they differ.
    """
    if found.keys() != wanted.keys():
        raise ValueError(
            f"these states belong to another model or optimizer: "
            f"their {what} hold {sorted(found)}, not {sorted(wanted)}"
        )
    for name, tensor in wanted.items():
        if found[name].shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"these states belong to another model: {what} {name} of a member has the shape "
                f"{tuple(found[name].shape[1:])} there, and {tuple(tensor.shape[1:])} here"
            )


def aligned(*shape: int) -> Floats:
    """Return zeros, float32, that begin where a line of the cache begins."""
    size = math.prod(shape) * 4
    memory = np.zeros(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + size].view(np.float32).reshape(shape)
