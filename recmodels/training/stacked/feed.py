"""The batches of an epoch as a stack takes them in, on the device: nothing is waited for between batches.

On a GPU batches of one size have tensors of the same shapes, so that one can be recorded and replayed with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from recmodels.data.rows import Batches
from recmodels.models.base import Batch
from recmodels.training.epoch_index import EpochIndex, Side
from recmodels.training.stacked.optimizers import Places

_NONE: Final[npt.NDArray[np.int64]] = np.empty(0, np.int64)


@dataclass(frozen=True)
class Feed:
    """One batch.

    Attributes:
        batch: ids.
        inputs: (B,) float32 by name: what a loss is given beside the score.
        weights: (B,) float32, what each example's loss is multiplied with, or None.
        places: where the samples find their rows, by column of ids.
    """

    batch: Batch
    inputs: Mapping[str, torch.Tensor]
    weights: torch.Tensor | None
    places: Mapping[str, Places]

    def tensors(self) -> list[torch.Tensor]:
        """Return all tensors that a recording reads, in a fixed order."""
        columns = [*self.batch.values(), *self.inputs.values()]
        if self.weights is not None:
            columns.append(self.weights)
        for own in self.places.values():
            columns += [own.ids, own.distinct, own.inverse, own.slots]
        return columns

    def copied(self) -> Feed:
        """Return the batch in memory of its own."""
        places = {
            name: replace(
                own,
                ids=own.ids.clone(),
                distinct=own.distinct.clone(),
                inverse=own.inverse.clone(),
                slots=own.slots.clone(),
            )
            for name, own in self.places.items()
        }
        return Feed(
            Batch(**{name: ids.clone() for name, ids in self.batch.items()}),
            {name: column.clone() for name, column in self.inputs.items()},
            None if self.weights is None else self.weights.clone(),
            places,
        )


def feeds(batches: Batches, device: torch.device) -> Iterator[Feed]:
    """Yield the batches of an epoch.

    Args:
        batches: of the epoch.
        device: where the stack is.
    """
    return _on_cpu(batches) if device.type == "cpu" else on_device(batches, device)


def _on_cpu(batches: Batches) -> Iterator[Feed]:
    rows, slices = batches.rows, batches.slices
    inputs = {name: torch.tensor(column) for name, column in rows.inputs.items()}
    weights = None if rows.weights is None else torch.tensor(rows.weights)
    columns = [Places.of_batches(np.array(ids), slices) for ids in rows.features.values()]
    for batch, *own in zip(slices, *columns, strict=True):
        places = dict(zip(rows.features, own, strict=True))
        yield Feed(
            Batch(**{name: place.ids for name, place in places.items()}),
            {name: column[batch] for name, column in inputs.items()},
            None if weights is None else weights[batch],
            places,
        )


def on_device(batches: Batches, device: torch.device) -> Iterator[Feed]:
    """Yield the batches as parts of one index of the epoch: copied and sorted once; see `feeds`."""
    index = EpochIndex.of(batches, device)
    filled = {
        name: (index.ids[name], side.inverse, *_filled_up(side, index.bounds)) for name, side in index.sides.items()
    }
    for batch in batches.slices:
        # The compiled steps of the CPU alone read order and starts.
        places = {
            name: Places(ids[batch], rows[batch], inverse[batch], slots[batch], _NONE, _NONE)
            for name, (ids, inverse, rows, slots) in filled.items()
        }
        yield Feed(
            Batch(**{name: ids[batch] for name, ids in index.ids.items()}),
            {name: column[batch] for name, column in index.inputs.items()},
            None if index.weights is None else index.weights[batch],
            places,
        )


def _filled_up(side: Side, bounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return as many rows for each batch as it has samples, (N,), and their slots: the first row fills up."""
    sizes = bounds.diff()
    firsts = bounds[:-1].repeat_interleave(sizes)
    slots = torch.arange(len(firsts), device=bounds.device) - firsts
    slots = torch.where(slots < side.groups.repeat_interleave(sizes), slots, 0)
    return side.rows[firsts + slots], slots
