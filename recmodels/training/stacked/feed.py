"""The batches of an epoch as a stack takes them in, on the device: nothing is waited for between batches.

On a GPU batches of one size have tensors of the same shapes, so that one can be recorded and replayed with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from recmodels.data.interactions import Interactions
from recmodels.models.base import Batch
from recmodels.training.epoch_index import EpochIndex, Side
from recmodels.training.stacked.optimizers import Places

_NONE: Final[npt.NDArray[np.int64]] = np.empty(0, np.int64)


@dataclass(frozen=True)
class Feed:
    """One batch.

    Attributes:
        batch: ids.
        inputs: (B,) float32 each: what a loss is given beside the score, by name.
        places: where the samples find their rows, by field.
    """

    batch: Batch
    inputs: Mapping[str, torch.Tensor]
    places: Mapping[str, Places]


def feeds(
    train: Interactions, order: npt.NDArray[np.int64], batches: Sequence[slice], device: torch.device
) -> Iterator[Feed]:
    """Yield the batches of an epoch.

    Args:
        train: the training part.
        order: (N,) its rows in the order of the epoch.
        batches: slices of the order.
        device: where the stack is.
    """
    return _on_cpu(train, order, batches) if device.type == "cpu" else on_device(train, order, batches, device)


def _on_cpu(train: Interactions, order: npt.NDArray[np.int64], batches: Sequence[slice]) -> Iterator[Feed]:
    users, items = train.users[order], train.items[order]
    labels = torch.from_numpy(train.labels[order])
    places = Places.of_batches(users, batches), Places.of_batches(items, batches)
    for batch, user, item in zip(batches, *places, strict=True):
        yield Feed(Batch(user.ids, item.ids), {"label": labels[batch]}, {"user": user, "item": item})


def on_device(
    train: Interactions, order: npt.NDArray[np.int64], batches: Sequence[slice], device: torch.device
) -> Iterator[Feed]:
    """Yield the batches as parts of one index of the epoch: copied and sorted once; see `feeds`."""
    users, items, labels, order_there = (
        torch.tensor(array, device=device) for array in (train.users, train.items, train.labels, order)
    )
    bounds = [0, *(batch.stop for batch in batches)]
    index = EpochIndex.of(users, items, labels, train.n_users, train.n_items, order_there, bounds)
    filled = {
        "user": (index.users, index.user.inverse, *_filled_up(index.user, index.bounds)),
        "item": (index.items, index.item.inverse, *_filled_up(index.item, index.bounds)),
    }
    for batch in batches:
        places = {}
        for field, (ids, inverse, rows, slots) in filled.items():
            # The compiled steps of the CPU alone read order and starts.
            places[field] = Places(ids[batch], rows[batch], inverse[batch], slots[batch], _NONE, _NONE)
        yield Feed(Batch(index.users[batch], index.items[batch]), {"label": index.labels[batch]}, places)


def _filled_up(side: Side, bounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return as many rows for each batch as it has samples, (N,), and their slots: the first row fills up."""
    sizes = bounds.diff()
    firsts = bounds[:-1].repeat_interleave(sizes)
    slots = torch.arange(len(firsts), device=bounds.device) - firsts
    slots = torch.where(slots < side.groups.repeat_interleave(sizes), slots, 0)
    return side.rows[firsts + slots], slots
