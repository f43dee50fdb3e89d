"""The index of an epoch against the plain reading of every batch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.data.interactions import Interactions
from recmodels.training.epoch_index import EpochIndex, Side
from recmodels.training.population import epoch_order, slices
from recmodels.training.stacked.feed import feeds, on_device

epochs = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))


def make(count: int, n_users: int, n_items: int, seed: int) -> Interactions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.float32)
    return Interactions(rng.integers(0, n_users, count), rng.integers(0, n_items, count), labels, n_users, n_items)


def check_side(side: Side, ids: list[int], n_rows: int, batches: list[slice]) -> None:
    last_step = [0] * n_rows
    for number, batch in enumerate(batches):
        own = ids[batch]
        groups = int(side.groups[number])
        distinct = side.rows[batch.start : batch.start + groups].tolist()
        assert sorted(distinct) == sorted(set(own))
        assert [distinct[place] for place in side.inverse[batch].tolist()] == own
        counts = side.counts[batch.start : batch.start + groups].tolist()
        assert counts == sorted(counts, reverse=True)
        for place, row in enumerate(distinct):
            start = int(side.starts[batch.start + place])
            samples = (side.order[start : start + counts[place]] - batch.start).tolist()
            assert samples == [sample for sample, other in enumerate(own) if other == row]
            assert side.rows_behind[batch.start + place] == number - last_step[row]
        assert side.behind[batch].tolist() == [number - last_step[row] for row in own]
        for row in own:
            last_step[row] = number + 1
    assert side.steps_done.tolist() == last_step


@settings(max_examples=60, deadline=None)
@given(epochs)
def test_every_sample_finds_its_row_and_every_row_its_samples(shape: tuple[int, int, int, int, int]) -> None:
    count, size, n_users, n_items, seed = shape
    data, batches = make(count, n_users, n_items, seed), slices(count, size)
    order = epoch_order(seed, 0, count)
    users, items, labels = (torch.tensor(array) for array in (data.users, data.items, data.labels))
    bounds = [0, *(batch.stop for batch in batches)]
    index = EpochIndex.of(users, items, labels, n_users, n_items, torch.tensor(order), bounds)
    check_side(index.user, data.users[order].tolist(), n_users, batches)
    check_side(index.item, data.items[order].tolist(), n_items, batches)
    assert index.labels.tolist() == data.labels[order].tolist()
    planes = index.planes()
    assert planes[0].tolist() == data.users[order].tolist()
    partners = planes[9].tolist()  # of the users' samples: the items, sorted as the users are
    assert partners == index.items[index.user.order].tolist()


@settings(max_examples=30, deadline=None)
@given(epochs)
def test_batches_from_the_index_are_those_of_the_plain_reading(shape: tuple[int, int, int, int, int]) -> None:
    count, size, n_users, n_items, seed = shape
    data, batches = make(count, n_users, n_items, seed), slices(count, size)
    order, device = epoch_order(seed, 0, count), torch.device("cpu")
    plain = list(feeds(data, order, batches, device))
    indexed = list(on_device(data, order, batches, device))
    assert len(plain) == len(indexed) == len(batches)
    for one, other in zip(plain, indexed, strict=True):
        assert torch.equal(one.batch.user, other.batch.user) and torch.equal(one.batch.item, other.batch.item)
        assert torch.equal(one.labels, other.labels)
        for field, places in one.places.items():
            there = other.places[field]
            assert torch.equal(there.distinct[there.inverse], places.ids)
            assert torch.equal(there.distinct.unique(), places.distinct)
            assert torch.equal(there.distinct, there.distinct[there.slots])
            assert len(there.distinct) == len(there.ids) and int(there.inverse.max()) == int(there.slots.max())
