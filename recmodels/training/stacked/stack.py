"""M copies of one module in one set of tensors.

Most modules can be stacked; `recmodels.training.plain.proof` finds out which. Those of its `torch.nn.Embedding`
tables that are looked up with the batch's own ids are handled by rows: the rows that a batch touches are read first
and given to the module in the table's place, so that neither the gradient nor the optimiser ever sees the whole
table.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch.func import functional_call

from recmodels.models.base import Batch
from recmodels.training.plain.lookups import row_wise_tables
from recmodels.training.plain.proof import OtherwiseError, first_line
from recmodels.training.stacked.steady import make_steady, members_in_front

Tensors: TypeAlias = Mapping[str, torch.Tensor]


class _Rows(torch.nn.Module):
    """Stands in for an embedding table: gives back the rows that were read before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(0, width, device="meta"))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # named as torch.nn.Embedding's
        return self.weight


class Stack:
    """Weights of M members of one architecture.

    All parameters but the row-wise tables are views of one tensor, so that the optimiser takes one step for all.

    Torch's linear layers and batch norms are computed so that a member's bits do not depend on the others; see
    `recmodels.training.stacked.steady`. The same cannot be said of all that a module may do: torch's `sigmoid`, for
    one, rounds by the position in memory.

    Args:
        module: the initial weights of all members; it is left as it is.
        count: M.
        example: a small batch, to see which ids each embedding table is looked up with.
        device: where the stack lives.
        leading: whether the members are a leading dimension of all tensors, which takes a third of the time of
            mapping the module over them and is right for many modules, but not for all.
        idle: names of parameters that are in no gradient.

    Attributes:
        fields: the column of ids that each row-wise table is looked up with.
        tables: (rows, M, d) row-wise embedding tables by parameter name.
        flat: (M, P) all other parameters, one after the other.
        buffers: (M, ...) buffers, and parameters that are not trained, by name.
        idle: those of them that a module might train and does not.

    Raises:
        ValueError: the module does not map a batch to scores, or has nothing to train, or weights that are not
            float32.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        count: int,
        example: Batch,
        device: torch.device,
        *,
        leading: bool = False,
        idle: Collection[str] = (),
    ) -> None:
        _check_types(module)
        self.idle = {name for name, own in module.named_parameters() if own.requires_grad and name in idle}
        found = row_wise_tables(module, example)
        self.fields = {name: column for name, column in found.items() if name not in idle}
        self._columns = tuple(example)
        self._skeleton = _skeleton(module, self.fields)
        self.tables: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        kept = dict(module.named_buffers())
        dense = []
        for name, parameter in module.named_parameters():
            weight = parameter.detach().to(device)
            if name in self.fields:
                self.tables[name] = weight.unsqueeze(1).repeat(1, count, 1)
            elif parameter.requires_grad and name not in idle:
                self._shapes[name] = weight.shape
                dense.append(weight.reshape(-1))
            else:
                kept[name] = parameter
        if not self.tables and not dense:
            raise ValueError(f"{type(module).__name__} has no parameter to train")
        self.flat = torch.cat(dense or [torch.empty(0, device=device)]).repeat(count, 1)
        self.buffers = {
            name: tensor.detach().to(device).unsqueeze(0).repeat(count, *[1] * tensor.ndim)
            for name, tensor in kept.items()
        }
        self._tied = len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters()))
        in_dims = (0, 0 if self.buffers else None, None)
        one = partial(_call, self._skeleton, self._tied)
        self._mapped = torch.vmap(one, in_dims=in_dims, randomness="same")
        self._leading = copy.deepcopy(self._skeleton)
        self._as_they_are = members_in_front(self._leading)
        own = {*self.tables, *self._shapes, *self.buffers}
        self._slots: list[tuple[dict[str, Any], str, str]] = [
            (tensors, leaf, name)
            for path, part in self._leading.named_modules()
            for tensors in (part._parameters, part._buffers)
            for leaf in tensors
            if (name := f"{path}.{leaf}" if path else leaf) in own
        ]
        self._leads = leading

    def __len__(self) -> int:
        return len(self.flat)

    def dense(self) -> dict[str, torch.Tensor]:
        """Return views (M, ...) of the parameters in `flat`, by name."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.split(self.flat, sizes, dim=1) if sizes else ()
        return {
            name: part.view(len(self), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def scores(
        self, batch: Batch, rows: Mapping[str, torch.Tensor], dense: Mapping[str, torch.Tensor], *, training: bool
    ) -> torch.Tensor:
        """Return scores (M, B) of every member for one batch.

        Args:
            batch: ids, shared by all members.
            rows: (M, B, d) by table name: each sample's row.
            dense: (M, ...) all other parameters by name.
            training: batch statistics and dropout (the same mask for all members) are on.

        Raises:
            OtherwiseError: the module cannot do that for many members.
        """
        way = self._lead if self._leads else self._map
        try:
            scores = way({**dense, **rows}, self.buffers, batch, training)
        except torch.OutOfMemoryError:
            raise  # fewer members at a time may do
        except Exception as error:  # whatever the module says to members
            raise OtherwiseError(first_line(error)) from error
        count = len(next(iter(batch.values())))
        if not isinstance(scores, torch.Tensor) or scores.shape != (len(self), count):
            raise OtherwiseError("scores of many members have another shape")
        return scores

    def _map(self, weights: Tensors, buffers: Tensors, batch: Batch, training: bool) -> torch.Tensor:
        """Map the module over the members."""
        if self._skeleton.training != training:
            self._skeleton.train(training)
        return self._mapped(weights, buffers, batch)

    def _lead(self, weights: Tensors, buffers: Tensors, batch: Batch, training: bool) -> torch.Tensor:
        """Call the module once, the members being a leading dimension of all its tensors: three times as fast."""
        if self._leading.training != training:
            self._leading.train(training)
        shaped = {
            name: weight.unsqueeze(1) if name in self._shapes and self._needs_room(name) else weight
            for name, weight in weights.items()
        }
        if self._tied:
            return _call(self._leading, True, shaped, buffers, batch)
        # What functional_call does, whose checks would take longer than the scores of a small batch.
        both = {**shaped, **buffers}
        for tensors, leaf, name in self._slots:
            tensors[leaf] = both[name]
        return cast(torch.Tensor, self._leading(batch))

    def _needs_room(self, name: str) -> bool:
        """Whether a parameter has to be (M, 1, ...), to stand beside (M, B, ...)."""
        return name not in self._as_they_are and len(self._shapes[name]) < 2

    def keep_members(self, index: torch.Tensor) -> None:
        """Drop all members but those of the index (m,)."""
        self.tables = {name: table.index_select(1, index) for name, table in self.tables.items()}
        self.flat = self.flat.index_select(0, index)
        self.buffers = {name: buffer.detach().index_select(0, index) for name, buffer in self.buffers.items()}

    def weights(self, members: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return copies of the weights and buffers of the members of an index (m,), members first, on the CPU."""
        parts = {name: table[:, members].transpose(0, 1) for name, table in self.tables.items()}
        parts |= {name: tensor[members] for name, tensor in (self.dense() | self.buffers).items()}
        return {name: part.detach().cpu().clone() for name, part in parts.items()}

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights as `weights` returned them; 1 member's are given to all.

        Raises:
            ValueError: names or shapes are those of another model.
        """
        own = {name: table.transpose(0, 1) for name, table in self.tables.items()} | self.dense() | self.buffers
        if own.keys() != weights.keys():
            raise ValueError(
                f"these states belong to another model: they hold {sorted(weights)}, not {sorted(own)}"
            )
        for name, tensor in own.items():
            copy_state(name, tensor, weights[name])


def _call(module: torch.nn.Module, tied: bool, weights: Tensors, buffers: Tensors, batch: Batch) -> torch.Tensor:
    """Call a module with given weights."""
    return cast(torch.Tensor, functional_call(module, (dict(weights), dict(buffers)), (batch,), tie_weights=tied))


def copy_state(name: str, target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy one tensor of M states, or of 1 for all.

    Args:
        name: for the message.
        target: (M, ...), written.
        source: (M, ...) or (1, ...).

    Raises:
        ValueError: the shapes differ otherwise.
    """
    if source.shape[1:] != target.shape[1:] or len(source) not in (1, len(target)):
        raise ValueError(
            f"these states belong to another model: {name} has the shape {tuple(source.shape)} there, "
            f"and {tuple(target.shape)} here"
        )
    target.copy_(source)


def _check_types(module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {str(parameter.dtype).removeprefix('torch.')}, not float32")


def _skeleton(module: torch.nn.Module, tables: Iterable[str]) -> torch.nn.Module:
    """Return a copy of the module to call with the members' weights."""
    skeleton = copy.deepcopy(module).train()  # also parts that came in another mode than the whole
    for name in tables:
        path = name.rpartition(".")[0]
        table = cast(torch.nn.Embedding, skeleton.get_submodule(path))
        skeleton.set_submodule(path, _Rows(table.embedding_dim))
    make_steady(skeleton)
    return skeleton
