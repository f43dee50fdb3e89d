"""Bookkeeping of chunks: who is trained together, and what happens when memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recmodels.training.population import chunks, fit_halving, slices
from recmodels.training.trainer import Member


@given(st.integers(1, 40), st.integers(1, 40))
def test_halving_trains_every_member_once_and_in_order(count: int, room: int) -> None:
    done: list[int] = []

    def fit(rows: list[int]) -> None:
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(rows)

    fit_halving(list(range(count)), fit)
    assert done == list(range(count))


def test_one_member_too_many_is_a_clear_error() -> None:
    def fit(rows: list[int]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match="one model alone does not fit"):
        fit_halving([0, 1, 2], fit)


@given(st.lists(st.integers(0, 2), min_size=1), st.integers(1, 5))
def test_chunks_hold_each_member_once_and_one_seed_each(seeds: list[int], size: int) -> None:
    members = [Member(0, seed, 0.1, 0.0) for seed in seeds]
    found = list(chunks(members, None, size))
    assert sorted(row for rows in found for row in rows) == list(range(len(seeds)))
    assert all(len({seeds[row] for row in rows}) == 1 and len(rows) <= size for rows in found)


@given(st.integers(1, 200), st.integers(1, 30))
def test_batches_cover_the_data_and_none_but_a_lone_one_has_a_single_row(count: int, size: int) -> None:
    batches = slices(count, size)
    assert [row for batch in batches for row in range(count)[batch]] == list(range(count))
    lengths = [batch.stop - batch.start for batch in batches]
    assert all(length == size for length in lengths[:-1])
    assert size == 1 or lengths[-1] > 1 or count == 1
