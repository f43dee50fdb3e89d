"""In which order samples are met, and how each batch is laid out: worked out once for all candidates of a seed."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numba import njit

from recmodels.data.interactions import Interactions
from recmodels.training.fused.arguments import Floats, Ints, LongInts, Order, Words
from recmodels.training.population import epoch_order, slices

#: Bytes of orders that are kept for a seed; further epochs are worked out each time.
KEPT_BYTES: Final = 32 * 2**20

#: Rows of users and items together that fit in a word beside its two flags.
MOST_ROWS: Final = 2**30


class Orders:
    """The orders of one seed's epochs, made when they are asked for; safe to share between threads.

    Args:
        train: what is learnt from.
        batch_size: samples in a batch; a last batch of one sample joins the one before.
        seed: of the members.
        kept_bytes: the first epochs are kept while they fit in here.
    """

    def __init__(self, train: Interactions, batch_size: int, seed: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._train = train
        self._seed = seed
        self._bounds = batch_bounds(len(train), batch_size)
        self._kept: dict[int, Order] = {}
        self._bytes_left = kept_bytes
        self._lock = threading.Lock()

    def of(self, epoch: int) -> Order:
        """Return an epoch's order; epochs count from the first after the initial weights."""
        with self._lock:
            order = self._kept.get(epoch)
            if order is None:
                order = self._make(epoch)
                if order.size <= self._bytes_left:
                    self._bytes_left -= order.size
                    self._kept[epoch] = order
        return order

    def _make(self, epoch: int) -> Order:
        train = self._train
        order = epoch_order(self._seed, epoch, len(train))
        words = np.empty((2, len(train)), np.uint32)
        alone = np.empty(len(self._bounds) - 1, np.int64)
        counts, places = np.zeros((2, train.n_users + train.n_items), np.int32)
        users, items = train.users[order], train.items[order] + train.n_users
        _lay_out(users, items, train.labels[order], self._bounds, counts, places, words, alone)
        return Order(words[0], words[1], self._bounds, alone)


def batch_bounds(count: int, size: int) -> LongInts:
    """Return where batches begin and end; a last batch of one sample joins the one before."""
    return np.array([0, *(batch.stop for batch in slices(count, size))], np.int64)


@njit(nogil=True, cache=True)
def _lay_out(
    users: LongInts,
    items: LongInts,
    labels: Floats,
    bounds: LongInts,
    counts: Ints,
    places: Ints,
    words: Words,
    alone: LongInts,
) -> None:
    """Write the words of `Order`.

    Args:
        users: (N,) int64 rows, batch after batch.
        items: (N,) int64 rows.
        labels: (N,) float32, 0 or 1.
        bounds: (batches + 1,) int64.
        counts: (rows,) int32 of zeros: how often each row occurs in a batch.
        places: (rows,) int32 of zeros: where a user's next sample goes, and whether an item has occurred.
        words: (2, N) uint32, written.
        alone: (batches,) int64, written.
    """
    for b in range(len(bounds) - 1):
        first, last = bounds[b], bounds[b + 1]
        n_alone = 0
        for k in range(first, last):
            counts[users[k]] += 1
            counts[items[k]] += 1
        for k in range(first, last):
            n_alone += counts[users[k]] * counts[items[k]] == 1
        place = first
        shared = first + n_alone
        alone[b] = shared
        for k in range(first, last):
            user, item = users[k], items[k]
            if counts[user] * counts[item] == 1:
                own = place
                place += 1
                is_first = np.int64(1)
            else:
                is_first = np.int64(places[user] == 0)
                own = shared if is_first else np.int64(places[user])
                shared += counts[user] * is_first
                places[user] = own + 1
            words[0, own] = user << 2 | np.int64(labels[k]) << 1 | is_first
            words[1, own] = item << 2
        for k in range(first, last):
            item = np.int64(words[1, k] >> 2)
            words[1, k] |= np.uint32(places[item] == 0)
            places[item] = 1
        for k in range(first, last):
            counts[users[k]] = 0
            counts[items[k]] = 0
            places[users[k]] = 0
            places[items[k]] = 0
