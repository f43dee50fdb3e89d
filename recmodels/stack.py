"""M copies of one module in one set of tensors.

Any module works. Those of its `torch.nn.Embedding` tables that are looked up with the batch's own ids are handled
by rows: the rows that a batch touches are read first and given to the module in the table's place, so that neither
the gradient nor the optimiser ever sees the whole table.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch.func import functional_call

from recmodels.base import Batch

FieldName = Literal["user", "item"]


class _Rows(torch.nn.Module):
    """Stands in for an embedding table: gives back the rows that were read before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(0, width, device="meta"))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight


class Stack:
    """Weights of M members of one architecture.

    All parameters but the row-wise tables are views of one tensor, so that the optimiser takes one step for all.

    Args:
        module: the initial weights of all members.
        count: M.
        example: a small batch, to see which ids each embedding table is looked up with.
        device: where the stack lives.

    Attributes:
        fields: which ids of the batch each row-wise table is looked up with.
        tables: (rows, M, d) row-wise embedding tables by parameter name.
        flat: (M, P) all other parameters, one after the other.
        buffers: (M, ...) buffers by name.

    Raises:
        ValueError: the module does not map a batch to scores.
    """

    def __init__(self, module: torch.nn.Module, count: int, example: Batch, device: torch.device) -> None:
        self.fields = _row_wise(module, example)
        skeleton = copy.deepcopy(module)
        self.tables: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        dense = []
        for name, parameter in module.named_parameters():
            weight = parameter.detach().to(device)
            if name in self.fields:
                self.tables[name] = weight.unsqueeze(1).repeat(1, count, 1)
                skeleton.set_submodule(name.rpartition(".")[0], _Rows(parameter.shape[1]))
            else:
                self._shapes[name] = weight.shape
                dense.append(weight.reshape(-1))
        self.flat = torch.cat(dense or [torch.empty(0, device=device)]).repeat(count, 1)
        self.buffers = {
            name: buffer.detach().to(device).unsqueeze(0).repeat(count, *[1] * buffer.ndim)
            for name, buffer in module.named_buffers()
        }
        self._skeleton = skeleton.to("meta")

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
        """
        if self._skeleton.training != training:
            self._skeleton.train(training)

        def one(parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]) -> Any:
            return functional_call(self._skeleton, (parameters, buffers), (batch,))

        mapped = torch.vmap(one, in_dims=(0, 0 if self.buffers else None), randomness="same")
        return cast(torch.Tensor, mapped({**dense, **rows}, self.buffers))

    def keep_members(self, index: torch.Tensor) -> None:
        """Drop all members but those of the index (m,)."""
        self.tables = {name: table.index_select(1, index) for name, table in self.tables.items()}
        self.flat = self.flat.index_select(0, index)
        self.buffers = {name: buffer.index_select(0, index) for name, buffer in self.buffers.items()}

    def weights(self, members: slice) -> dict[str, torch.Tensor]:
        """Return copies of the weights and buffers of some members, members first, on the CPU."""
        parts = {name: table[:, members].transpose(0, 1) for name, table in self.tables.items()}
        parts |= {name: tensor[members] for name, tensor in (self.dense() | self.buffers).items()}
        return {name: part.detach().cpu().clone() for name, part in parts.items()}

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights as `weights` returned them; 1 member's are given to all.

        Raises:
            ValueError: names or shapes are those of another model.
        """
        try:
            for name, table in self.tables.items():
                table.copy_(weights[name].transpose(0, 1))
            for name, tensor in (self.dense() | self.buffers).items():
                tensor.copy_(weights[name])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"these states belong to another model: {error}") from error


def _row_wise(module: torch.nn.Module, example: Batch) -> dict[str, FieldName]:
    """Find embedding tables that are looked up exactly once a batch, with its own user or item ids."""
    seen: dict[str, list[FieldName | None]] = {}
    hooks = []
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.Embedding) and part.padding_idx is None and part.max_norm is None:

            def note(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...], path: str = path) -> None:
                ids = arguments[0]
                field: FieldName | None = "user" if ids is example.user else None
                seen.setdefault(path, []).append("item" if ids is example.item else field)

            hooks.append(part.register_forward_pre_hook(note))
    was_training = module.training
    try:
        with torch.no_grad():
            scores = module.eval()(example)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    if not isinstance(scores, torch.Tensor) or scores.shape != example.user.shape:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"{type(module).__name__} must map a batch of {len(example.user)} interactions to scores of shape "
            f"({len(example.user)},), but it returned {found}"
        )
    shared = [id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)]
    fields: dict[str, FieldName] = {}
    for path, found_fields in seen.items():
        table = cast(torch.nn.Embedding, module.get_submodule(path))
        if len(found_fields) == 1 and found_fields[0] is not None and shared.count(id(table.weight)) == 1:
            fields[f"{path}.weight"] = found_fields[0]
    return fields
