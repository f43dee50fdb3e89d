"""The optimiser's steps in compiled code, on the CPU: each pass goes over memory once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from recmodels.training.compiled import flat_array, load_compiled
from recmodels.training.stacked.optimizers import Optimizer, Places

_SOURCE: Final = Path(__file__).with_name("row_kernels.py")


class CompiledOptimizer(Optimizer):
    """`Optimizer` by `recmodels.training.stacked.row_kernels`; arguments as there."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._kernels = load_compiled(_SOURCE)
        self._clip = np.float32(self.clip)
        self._loss_decay = np.float32(self.protocol.loss_decay)
        self._step = 0
        self._tables: dict[str, tuple[torch.Tensor, Any, Any]] = {}

    def begin_epoch(self, steps: int) -> None:
        """Make ready for an epoch of so many batches."""
        super().begin_epoch(steps)
        self._see_members()

    def read_rows(self, name: str, table: torch.Tensor, places: Places) -> torch.Tensor:
        """Return each sample's row, (M, B, d), as it stands before this step."""
        if not self.is_sgd:
            return super().read_rows(name, table, places)
        flat, done = self._arrays(name, table)
        _, members, size = table.shape
        ids = places.ids.numpy()
        rows = torch.empty((members, len(ids), size))
        self._kernels.read_rows(flat, members, size, ids, done, self._step, self._shrink, rows.view(-1).numpy())
        return rows

    def step_rows(
        self,
        name: str,
        table: torch.Tensor,
        accumulator: torch.Tensor | None,
        places: Places,
        gradients: torch.Tensor,
    ) -> None:
        """Step the rows that a batch touched; see `Optimizer.step_rows`."""
        _, members, size = table.shape
        if size > 1 and gradients.stride(-1) != 1:
            gradients = gradients.contiguous()
        flat, done = self._arrays(name, table)
        step: tuple[Any, ...] = (
            flat, members, size, flat_array(gradients), gradients.stride(0), gradients.stride(1),
            places.order, places.starts, places.distinct.numpy(), *self._rates, self._clip,
        )  # fmt: skip
        if accumulator is None:
            self._kernels.step_sgd(*step, done, self._step, self._shrink, self._loss_decay)
        else:
            self._kernels.step_adagrad(*step, accumulator.view(-1).numpy())

    def end_batch(self) -> None:
        """Count one step."""
        self._step += 1

    def end_epoch(self, tables: dict[str, torch.Tensor]) -> None:
        """Bring every row up to date, so that tables can be read whole."""
        self.step.fill_(self._step)
        super().end_epoch(tables)
        self._step = 0

    def keep_members(self, index: torch.Tensor) -> None:
        """Drop all members but those of the index (m,)."""
        super().keep_members(index)
        self._see_members()

    def _see_members(self) -> None:
        self._rates = (self.rates.numpy(), self.decays.numpy())
        self._shrink = self.shrink.numpy()

    def _arrays(self, name: str, table: torch.Tensor) -> tuple[Any, Any]:
        """Return a table as a flat array, and the steps that each row has been through."""
        known = self._tables.get(name)
        if known is None or known[0].data_ptr() != table.data_ptr():
            known = self._tables[name] = (table, table.view(-1).numpy(), self._steps_done(name, table).numpy())
        return known[1:]
