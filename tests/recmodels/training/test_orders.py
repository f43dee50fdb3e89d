"""In which order samples are met, and how batches are laid out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.data.rows import Batches, Rows, Schema
from recmodels.training.fused.orders import Orders, lay_out
from recmodels.training.problem import bounds_of
from tests.recmodels.training.cases import PROBLEM, batches_of


@given(
    rows=st.integers(1, 200),
    size=st.integers(1, 50),
    n_users=st.integers(1, 12),
    n_items=st.integers(1, 12),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_orders_hold_the_batches_laid_out_anew(rows: int, size: int, n_users: int, n_items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, rows), rng.integers(0, n_items, rows)
    given_inputs = {"a": rng.integers(0, 2, rows), "b": 2 + np.arange(rows)}
    schema = Schema({"user": n_users, "item": n_items})
    taken = np.concatenate(batches_of(seed, 2, rows, size))
    train = Rows(schema, {"user": users, "item": items}, given_inputs, weights=np.arange(rows))
    order = lay_out(Batches(train.take(taken), bounds_of(rows, size)), ["b", "a"])
    assert order.flag == 1
    expected = batches_of(seed, 2, rows, size)
    assert len(order.alone) == len(expected)
    for b, batch in enumerate(expected):
        own = slice(order.bounds[b], order.bounds[b + 1])
        words = np.stack([order.users[own], order.items[own]]).astype(np.int64)
        user, item = words[0] >> 2, (words[1] >> 2) - n_users
        flag = words[0] >> 1 & 1
        found = np.stack([user, item, flag, order.inputs[0, own] - 2, order.weights[own]]).astype(np.int64)
        plain = np.stack([users[batch], items[batch], given_inputs["a"][batch], batch, batch])
        np.testing.assert_array_equal(_sorted(found), _sorted(plain))
        for side, row in ((0, user), (1, item)):
            first = np.unique(row, return_index=True)[1]
            np.testing.assert_array_equal(np.flatnonzero(words[side] & 1), np.sort(first))
        alone = (np.bincount(user)[user] == 1) & (np.bincount(item)[item] == 1)
        n_alone = order.alone[b] - order.bounds[b]
        assert alone[:n_alone].all() and not alone[n_alone:].any()
        assert len(np.flatnonzero(np.diff(user))) == len(np.unique(user)) - 1  # a user's samples are neighbours
        for one in np.unique(user):
            np.testing.assert_array_equal(item[user == one], items[batch][users[batch] == one])


def _sorted(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return columns[:, np.lexsort(columns)]


def test_orders_are_kept_while_they_fit() -> None:
    orders = Orders(PROBLEM, 0, {"batch_size": 128}, ["label"])
    assert orders.of(0) is orders.of(0)
    small = Orders(PROBLEM, 0, {"batch_size": 128}, ["label"], kept_bytes=orders.of(0).size)
    assert small.of(0) is small.of(0)
    assert small.of(1) is not small.of(1)
    np.testing.assert_array_equal(small.of(1).users, orders.of(1).users)


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(5, 2, [2, 3]), (6, 2, [2, 2, 2]), (1, 4, [1]), (3, 1, [1, 2])]
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, size: int, sizes: list[int]) -> None:
    assert np.diff(bounds_of(count, size)).tolist() == sizes
