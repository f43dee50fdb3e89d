"""In which order samples are met, and how each batch is laid out: worked out once for all candidates of a seed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numba import njit

from recmodels.data.rows import Batches
from recmodels.training.fused.arguments import Ints, LongInts, Order, Words
from recmodels.training.problem import Problem

#: Bytes of orders that are kept; further epochs are worked out each time.
KEPT_BYTES: Final = 32 * 2**20

#: Rows of users and items together that fit in a word beside its two flags.
MOST_ROWS: Final = 2**30


class Orders:
    """The orders of epochs with the same batches, made when they are asked for; safe to share between threads.

    Args:
        problem: that is learnt; its columns are user and item.
        seed: of the members.
        settings: of the members, that batches depend on.
        inputs: names of what the losses read beside the score.
        kept_bytes: the first epochs are kept while they fit in here.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        settings: Mapping[str, float],
        inputs: Sequence[str],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._problem = problem
        self._seed = seed
        self._settings = settings
        self._inputs = inputs
        self._kept: dict[int, Order] = {}
        self._bytes_left = kept_bytes
        self._lock = threading.Lock()

    def of(self, epoch: int) -> Order:
        """Return an epoch's order; epochs count from the first after the initial weights."""
        with self._lock:
            order = self._kept.get(epoch)
            if order is None:
                order = lay_out(self._problem.batches(self._seed, epoch, self._settings), self._inputs)
                if order.size <= self._bytes_left:
                    self._bytes_left -= order.size
                    self._kept[epoch] = order
        return order


def lay_out(batches: Batches, inputs: Sequence[str]) -> Order:
    """Return the samples of an epoch as the kernel takes them, with some of their inputs."""
    rows, schema = batches.rows, batches.rows.schema
    words = np.empty((2, len(rows)), np.uint32)
    where = np.empty(len(rows), np.int64)
    alone = np.empty(len(batches), np.int64)
    counts, places = np.zeros((2, schema["user"] + schema["item"]), np.int32)
    users, items = rows.features["user"], rows.features["item"] + schema["user"]
    _lay_out(users, items, batches.bounds, counts, places, words, where, alone)
    columns = [rows.inputs[name][where] for name in inputs]
    flag = next((f for f, column in enumerate(columns) if ((column == 0) | (column == 1)).all()), -1)
    if flag >= 0:
        words[0] |= columns.pop(flag).astype(np.uint32) << 1
    return Order(
        words[0],
        words[1],
        flag,
        np.array(columns, np.float32).reshape(-1, len(rows)),
        np.empty(0, np.float32) if rows.weights is None else rows.weights[where],
        batches.bounds,
        alone,
        int(np.diff(batches.bounds).max()),
    )


@njit(nogil=True, cache=True)
def _lay_out(
    users: LongInts,
    items: LongInts,
    bounds: LongInts,
    counts: Ints,
    places: Ints,
    words: Words,
    where: LongInts,
    alone: LongInts,
) -> None:
    """Write the words of `Order`, but for the flags, and which sample stands where.

    Args:
        users: (N,) int64 rows, batch after batch.
        items: (N,) int64 rows.
        bounds: (batches + 1,) int64.
        counts: (rows,) int32 of zeros: how often each row occurs in a batch.
        places: (rows,) int32 of zeros: where a user's next sample goes, and whether an item has occurred.
        words: (2, N) uint32, written.
        where: (N,) int64, written: the sample behind each word.
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
            where[own] = k
            words[0, own] = user << 2 | is_first
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
