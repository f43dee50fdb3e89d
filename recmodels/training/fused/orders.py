"""In which order samples are met, and how each batch is laid out: worked out once for all candidates of a seed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import numba
import numpy as np

from gploss.compute.cpu import import_source
from recmodels.data.rows import Batches
from recmodels.training.fused.arguments import Order
from recmodels.training.problem import Problem

_SOURCE: Final = Path(__file__).with_name("order_kernel.py")

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
    _kernel().lay_out(users, items, batches.bounds, counts, places, words, where, alone)
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


@cache
def _kernel() -> ModuleType:
    return import_source("gploss_orders", _SOURCE.read_text(), depends_on=numba.__version__)
