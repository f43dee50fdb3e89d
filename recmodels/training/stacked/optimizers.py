"""Optimiser steps on stacked weights: M members at once, each with its own rate and decay.

Embedding tables have shape (rows, M, d) and are updated only where a batch touches them; all other weights have
shape (M, ...). The steps are those of `torch.optim.SGD` and `torch.optim.Adagrad`, applied to those rows. Here
torch takes them, on any device; `recmodels.training.stacked.compiled_optimizer` does on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from recmodels.training.protocol import Protocol

_DENSE: Final = "dense"  # weights that every batch touches, as a table of one row


@dataclass(frozen=True)
class Places:
    """Where the B samples of a batch find their rows in a table of n touched ones.

    Attributes:
        ids: (B,) row of each sample.
        distinct: (n,) rows, ascending.
        inverse: (B,) position of each sample's row among the distinct ones.
        slots: (n,) position of each distinct row's sum; rows that fill up a batch on a GPU repeat the first one.
        order: (B,) samples sorted by row, in their own order within a row.
        starts: (n + 1,) where each row's samples begin in `order`.
    """

    ids: torch.Tensor
    distinct: torch.Tensor
    inverse: torch.Tensor
    slots: torch.Tensor
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @staticmethod
    def of(ids: npt.NDArray[np.int64], device: torch.device) -> Places:
        """Sort the ids of a batch, shape (B,)."""
        (here,) = Places.of_batches(ids, [slice(0, len(ids))])
        there = {name: getattr(here, name).to(device) for name in ("ids", "distinct", "inverse", "slots")}
        return replace(here, **there)

    @staticmethod
    def of_batches(ids: npt.NDArray[np.int64], batches: Sequence[slice]) -> list[Places]:
        """Sort the ids of an epoch, shape (N,), batch by batch, for the CPU."""
        sizes = np.array([batch.stop - batch.start for batch in batches])
        firsts = np.cumsum(sizes) - sizes
        batch_of = np.repeat(np.arange(len(batches)), sizes)
        order = np.argsort(batch_of * (ids.max() + 1) + ids, kind="stable")
        ascending = ids[order]
        is_first = np.ones(len(ids), np.bool_)
        is_first[1:] = (ascending[1:] != ascending[:-1]) | (batch_of[1:] != batch_of[:-1])
        begins = np.flatnonzero(is_first)
        bounds = np.searchsorted(begins, np.append(firsts, len(ids)))
        inverse = np.empty_like(ids)
        inverse[order] = np.cumsum(is_first) - 1 - bounds[batch_of]
        order -= firsts[batch_of]
        ids_there, distinct, inverse_there = (torch.from_numpy(part) for part in (ids, ascending[begins], inverse))
        slots = torch.arange(int(sizes.max()))
        starts = np.insert(begins - firsts[batch_of[begins]], bounds[1:], sizes)
        places = []
        for k, (batch, low, high) in enumerate(zip(batches, bounds.tolist(), bounds[1:].tolist(), strict=False)):
            rows, own, ends = distinct[low:high], inverse_there[batch], starts[low + k : high + k + 1]
            places.append(Places(ids_there[batch], rows, own, slots[: high - low], order[batch], ends))
        return places


class Optimizer:
    """The protocol's optimiser for one stack of M members.

    Plain SGD shrinks all weights at each step. For rows that a batch does not touch this is made up for when they
    are next read: (1 - rate * decay)^n for n steps, kept as its distance from 1, since 1 - 1e-6 is a coarse number
    in float32. So the decay of an untouched row is never clipped: a `loss_decay` for which 2 * loss_decay * weight
    alone is beyond the clip would train to other weights than a dense loop.

    Args:
        protocol: the kind of optimiser, clipping, decay in the loss.
        learning_rates: (M,) float64.
        weight_decays: (M,) float64.
        device: where the weights are.

    Raises:
        ValueError: the protocol's optimiser is "adam".
    """

    def __init__(
        self, protocol: Protocol, learning_rates: torch.Tensor, weight_decays: torch.Tensor, device: torch.device
    ) -> None:
        if protocol.optimizer not in ("sgd", "adagrad"):
            raise ValueError(f"optimizer {protocol.optimizer!r} is known to the fused trainer only; use 'adagrad'")
        self.protocol = protocol
        self.is_sgd = protocol.optimizer == "sgd"
        self.clip = np.inf if protocol.gradient_clip is None else protocol.gradient_clip
        self.rates = learning_rates.to(device, torch.float32)
        self.decays = weight_decays.to(device, torch.float32)
        self._log_shrink = torch.log1p(-learning_rates * (weight_decays + 2 * protocol.loss_decay))
        self.shrink = torch.empty((0, len(learning_rates)), device=device)  # of n steps, less 1, for each member
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.steps_done: dict[str, torch.Tensor] = {}
        self.one_row = Places.of(np.zeros(1, np.int64), device)

    def fresh_state(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the state before the first step, by weight name."""
        if self.is_sgd:
            return {}
        start = self.protocol.initial_accumulator
        return {name: torch.full_like(weight, start) for name, weight in weights.items()}

    def begin_epoch(self, steps: int) -> None:
        """Make ready for an epoch of so many batches."""
        if len(self.shrink) != steps + 1:
            counts = torch.arange(steps + 1, dtype=torch.float64).unsqueeze(-1)
            self.shrink = torch.expm1(counts * self._log_shrink).to(self.shrink)

    def read_rows(self, name: str, table: torch.Tensor, places: Places) -> torch.Tensor:
        """Return each sample's row, (M, B, d), as it stands before this step."""
        rows = table.index_select(0, places.ids)
        if self.is_sgd:
            rows = self._catch_up(rows, self._steps_done(name, table).index_select(0, places.ids))
        return rows.transpose(0, 1).contiguous()

    def step_rows(
        self,
        name: str,
        table: torch.Tensor,
        accumulator: torch.Tensor | None,
        places: Places,
        gradients: torch.Tensor,
    ) -> None:
        """Step the rows that a batch touched.

        Args:
            name: of the table.
            table: (all rows, M, d), changed in place.
            accumulator: Adagrad's, shaped like the table, changed in place; None for SGD.
            places: of the batch in the table.
            gradients: (M, B, d), one a sample.
        """
        shape = (len(places.distinct), *table.shape[1:])
        total = torch.zeros(shape, device=table.device).index_put_(
            (places.inverse,), gradients.transpose(0, 1), accumulate=True
        )
        total = total.index_select(0, places.slots)
        rows = table.index_select(0, places.distinct)
        if accumulator is None:
            done = self._steps_done(name, table)
            rows = self._catch_up(rows, done.index_select(0, places.distinct))
            done.index_copy_(0, places.distinct, (self.step + 1).expand(len(rows)))
            stepped, _ = self._stepped(rows, total, None)
        else:
            own = accumulator.index_select(0, places.distinct)
            stepped, own = self._stepped(rows, total, own)
            accumulator.index_copy_(0, places.distinct, own)
        table.index_copy_(0, places.distinct, stepped)

    def step_dense(self, weight: torch.Tensor, accumulator: torch.Tensor | None, gradient: torch.Tensor) -> None:
        """Step a weight of shape (M, P) that every batch touches, in place: a table of one row."""
        table = weight.unsqueeze(0)
        own = None if accumulator is None else accumulator.unsqueeze(0)
        self.step_rows(_DENSE, table, own, self.one_row, gradient.unsqueeze(1))

    def end_batch(self) -> None:
        """Count one step, on the device: a recorded batch counts when it is replayed."""
        self.step += 1

    def end_epoch(self, tables: dict[str, torch.Tensor]) -> None:
        """Bring every row up to date, so that tables can be read whole."""
        if self.is_sgd:
            for name, table in tables.items():
                table.copy_(self._catch_up(table, self._steps_done(name, table)))
        for done in self.steps_done.values():
            done.zero_()
        self.step.zero_()

    def keep_members(self, index: torch.Tensor) -> None:
        """Drop all members but those of the index (m,)."""
        self.rates = self.rates[index]
        self.decays = self.decays[index]
        self.shrink = self.shrink[:, index].contiguous()
        self._log_shrink = self._log_shrink[index.cpu()]

    def _steps_done(self, name: str, table: torch.Tensor) -> torch.Tensor:
        """(rows,) number of steps that each row has been through in this epoch."""
        if name not in self.steps_done:
            self.steps_done[name] = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        return self.steps_done[name]

    def _catch_up(self, rows: torch.Tensor, steps_done: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(rows, rows, self.shrink[self.step - steps_done].unsqueeze(-1))

    def _stepped(
        self, weight: torch.Tensor, gradient: torch.Tensor, accumulator: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows (n, M, d), and Adagrad's accumulator, after a step."""
        rate, decay = self.rates.unsqueeze(-1), self.decays.unsqueeze(-1)
        if self.protocol.loss_decay:
            gradient = gradient.add(weight, alpha=2 * self.protocol.loss_decay)
        if np.isfinite(self.clip):
            gradient = gradient.clamp(-self.clip, self.clip)
        gradient = torch.addcmul(gradient, weight, decay)
        if accumulator is None:
            return torch.addcmul(weight, gradient, rate, value=-1), weight
        accumulator = torch.addcmul(accumulator, gradient, gradient)
        return weight - rate * gradient / accumulator.sqrt(), accumulator
