from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gploss.searchers.known_keys import KnownKeys

keys = st.integers(0, 2**64 - 1)


@given(st.lists(keys), st.lists(keys))
def test_it_is_a_set_that_remembers_its_order(first: list[int], more: list[int]) -> None:
    known = KnownKeys(first)
    early = known.grown()
    for key in more:
        known.add(key)
    in_order = list(dict.fromkeys(first + more))
    assert known.grown().array.tolist() == in_order
    assert early.array.tolist() == in_order[: len(early.array)], "an earlier state stays as it was"
    assert len(known) == len(in_order)
    assert all(key in known for key in in_order)
    assert all((key in known) == (key in set(in_order)) for key in (0, 1, 2**64 - 1))
    assert KnownKeys(known.grown().array).grown().array.tolist() == in_order


def test_there_is_room_for_many() -> None:
    known = KnownKeys(range(5000))
    assert known.grown().array.tolist() == list(range(5000))
