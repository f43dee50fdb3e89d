"""How the samples of an epoch are laid out, compiled: a source of `recmodels.training.fused.orders`."""

from __future__ import annotations

import numpy as np
from numba import njit

from recmodels.training.fused.arguments import Ints, LongInts, Words


@njit(nogil=True, cache=True)
def lay_out(
    users: LongInts,
    items: LongInts,
    bounds: LongInts,
    counts: Ints,
    places: Ints,
    words: Words,
    where: LongInts,
    alone: LongInts,
) -> None:
    """Write the words of an `Order`, but for the flags, and which sample stands where.

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
