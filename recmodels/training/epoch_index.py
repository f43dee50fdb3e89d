"""Where the samples of every batch of an epoch find their rows: the same for all candidates with one seed.

Everything is computed on the device from integers, by stable sorts, so that it is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from recmodels.data.rows import Batches


@dataclass(frozen=True)
class Side:
    """One column of ids, such as users, as the batches of an epoch meet them.

    Samples are numbered in the order of the epoch. Distinct rows of a batch stand from the batch's first sample on,
    those with most samples first; what lies between them and the next batch has no meaning.

    Attributes:
        behind: (N,) for each sample: batches since its row was last stepped, or since the epoch began.
        rows: (N,) distinct rows.
        rows_behind: (N,) `behind` of the distinct rows.
        starts: (N,) where the samples of each distinct row begin in `order`.
        counts: (N,) how many there are.
        inverse: (N,) for each sample: position of its row among the batch's distinct rows.
        order: (N,) samples sorted by batch and row, in their own order within a row.
        groups: (steps,) number of distinct rows of each batch.
        steps_done: (all rows,) number of batches up to the last one that touched the row.
    """

    behind: torch.Tensor
    rows: torch.Tensor
    rows_behind: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor
    inverse: torch.Tensor
    order: torch.Tensor
    groups: torch.Tensor
    steps_done: torch.Tensor

    @staticmethod
    def of(ids: torch.Tensor, n_rows: int, batch_of: torch.Tensor, bounds: torch.Tensor) -> Side:
        """Sort an epoch.

        Args:
            ids: (N,) int64 row of each sample, in the order of the epoch.
            n_rows: number of rows of the table.
            batch_of: (N,) int64 batch of each sample.
            bounds: (steps + 1,) int64 where batches begin.
        """
        steps, samples = len(bounds) - 1, len(ids)
        keys, order = torch.sort(batch_of * n_rows + ids, stable=True)
        is_first = torch.ones_like(keys, dtype=torch.bool)
        is_first[1:] = keys[1:] != keys[:-1]
        starts = is_first.nonzero().squeeze(1)
        counts = torch.diff(starts, append=starts.new_tensor([samples]))
        rows, batches = keys[starts] % n_rows, keys[starts] // n_rows
        done_before, steps_done = _last_touched(rows, batches, n_rows)
        rows_behind = batches - done_before
        behind = torch.empty_like(ids)
        behind[order] = torch.repeat_interleave(rows_behind, counts)
        groups = torch.bincount(batches, minlength=steps)
        # Places of the distinct rows: batch by batch, most samples first.
        by_count = torch.sort(batches * (samples + 1) + (samples - counts), stable=True).indices
        first_group = groups.cumsum(0) - groups
        ranked = batches[by_count]
        ranks = torch.arange(len(starts), device=ids.device) - first_group[ranked]
        places = bounds[ranked] + ranks
        inverse = torch.empty_like(ids)
        inverse[order] = torch.repeat_interleave(torch.empty_like(ranks).index_copy_(0, by_count, ranks), counts)

        def spread(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(ids).index_copy_(0, places, values[by_count])

        return Side(
            behind=behind,
            rows=spread(rows),
            rows_behind=spread(rows_behind),
            starts=spread(starts),
            counts=spread(counts),
            inverse=inverse,
            order=order,
            groups=groups,
            steps_done=steps_done,
        )


def _last_touched(rows: torch.Tensor, batches: torch.Tensor, n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the steps done when each batch reads each of its rows, and at the end of the epoch.

    Args:
        rows: (G,) distinct rows of the batches.
        batches: (G,) ascending: the batch of each.
        n_rows: number of rows of the table.
    """
    by_row = torch.sort(rows, stable=True)
    after = batches[by_row.indices] + 1
    before = torch.zeros_like(after)
    before[1:] = torch.where(by_row.values[1:] == by_row.values[:-1], after[:-1], 0)
    is_last = torch.ones_like(rows, dtype=torch.bool)
    is_last[:-1] = by_row.values[1:] != by_row.values[:-1]
    done_before = torch.empty_like(before)
    done_before[by_row.indices] = before
    at_end = torch.zeros(n_rows, dtype=torch.int64, device=rows.device)
    # Rows that end nothing write 0 into an element of no table.
    at_end = torch.cat([at_end, at_end.new_zeros(1)])
    at_end.scatter_(0, torch.where(is_last, by_row.values, n_rows), torch.where(is_last, after, 0))
    return done_before, at_end[:n_rows]


@dataclass(frozen=True)
class EpochIndex:
    """An epoch's batches, on a device.

    Attributes:
        ids: (N,) int64 by column, in the order of the epoch.
        inputs: (N,) float32 by name: what a loss is given beside the score.
        weights: (N,) float32, or None.
        bounds: (steps + 1,) int64 where each batch begins.
        sides: each column's rows as the batches meet them.
    """

    ids: Mapping[str, torch.Tensor]
    inputs: Mapping[str, torch.Tensor]
    weights: torch.Tensor | None
    bounds: torch.Tensor
    sides: Mapping[str, Side]

    @property
    def samples(self) -> int:
        """N."""
        return len(next(iter(self.ids.values())))

    @staticmethod
    def of(batches: Batches, device: torch.device) -> EpochIndex:
        """Copy an epoch to a device, and index it there."""
        rows = batches.rows
        ids = {name: torch.tensor(column, device=device) for name, column in rows.features.items()}
        inputs = {name: torch.tensor(column, device=device) for name, column in rows.inputs.items()}
        weights = None if rows.weights is None else torch.tensor(rows.weights, device=device)
        bounds = torch.tensor(batches.bounds, device=device)
        batch_of = torch.repeat_interleave(bounds.diff())
        sides = {name: Side.of(own, rows.schema[name], batch_of, bounds) for name, own in ids.items()}
        return EpochIndex(ids, inputs, weights, bounds, sides)

    def planes(self) -> torch.Tensor:
        """Return (18, N) int32 about users and items: what `recmodels.training.fused.triton_kernel` reads."""
        first = torch.repeat_interleave(self.bounds[:-1], self.bounds.diff())
        users, items = self.sides["user"], self.sides["item"]
        user_ids, item_ids = self.ids["user"], self.ids["item"]
        planes = [user_ids, item_ids, users.behind, items.behind]
        for side, partners, other in ((users, item_ids, items), (items, user_ids, users)):
            planes += [side.rows, side.rows_behind, side.starts, side.counts]
            planes += [side.order - first, partners[side.order], other.behind[side.order]]
        return torch.stack([plane.to(torch.int32) for plane in planes])
