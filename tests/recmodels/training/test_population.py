"""Bookkeeping of chunks: who is trained together, and what happens when memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recmodels.training.population import chunks, fit_halving
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


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([8, 16])), min_size=1), st.integers(1, 5))
def test_chunks_hold_each_member_once_and_one_kind_of_batches_each(
    batches: list[tuple[int, int]], size: int
) -> None:
    members = [Member(0, seed, {"batch_size": own, "other": k}) for k, (seed, own) in enumerate(batches)]
    found = list(chunks(members, None, ["batch_size"], size))
    assert sorted(row for rows in found for row in rows) == list(range(len(batches)))
    assert all(len({batches[row] for row in rows}) == 1 and len(rows) <= size for rows in found)
