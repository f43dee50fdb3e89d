"""The index of an epoch against the plain reading of every batch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.data.rows import Batches, Rows, Schema
from recmodels.training.epoch_index import EpochIndex, Side
from recmodels.training.problem import bounds_of
from recmodels.training.stacked.feed import feeds, on_device

epochs = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))


def make(shape: tuple[int, int, int, int, int]) -> Batches:
    """An epoch with a third column, which no trainer of users and items knows."""
    count, size, n_users, n_items, seed = shape
    rng = np.random.default_rng(seed)
    schema = Schema({"user": n_users, "item": n_items, "place": 3})
    ids = {name: rng.integers(0, n, count) for name, n in schema.items()}
    inputs = {"label": rng.integers(0, 2, count), "other": rng.random(count)}
    return Batches(Rows(schema, ids, inputs, weights=rng.random(count)), bounds_of(count, size))


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
    batches = make(shape)
    rows = batches.rows
    index = EpochIndex.of(batches, torch.device("cpu"))
    assert index.samples == len(rows)
    for name, size in rows.schema.items():
        check_side(index.sides[name], rows.features[name].tolist(), size, batches.slices)
        assert index.ids[name].tolist() == rows.features[name].tolist()
    assert {name: column.tolist() for name, column in index.inputs.items()} == {
        name: column.tolist() for name, column in rows.inputs.items()
    }
    planes = index.planes()
    assert planes[0].tolist() == rows.features["user"].tolist()
    partners = planes[9].tolist()  # of the users' samples: the items, sorted as the users are
    assert partners == index.ids["item"][index.sides["user"].order].tolist()


@settings(max_examples=30, deadline=None)
@given(epochs)
def test_batches_from_the_index_are_those_of_the_plain_reading(shape: tuple[int, int, int, int, int]) -> None:
    batches = make(shape)
    device = torch.device("cpu")
    plain = list(feeds(batches, device))
    indexed = list(on_device(batches, device))
    assert len(plain) == len(indexed) == len(batches)
    for one, other in zip(plain, indexed, strict=True):
        for mine, its in ((one.batch, other.batch), (one.inputs, other.inputs)):
            assert list(mine) == list(its) and all(torch.equal(mine[name], its[name]) for name in mine)
        assert one.weights is not None and other.weights is not None and torch.equal(one.weights, other.weights)
        for field, places in one.places.items():
            there = other.places[field]
            assert torch.equal(there.distinct[there.inverse], places.ids)
            assert torch.equal(there.distinct.unique(), places.distinct)
            assert torch.equal(there.distinct, there.distinct[there.slots])
            assert len(there.distinct) == len(there.ids) and int(there.inverse.max()) == int(there.slots.max())
