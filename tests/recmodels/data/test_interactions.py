from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.interactions import DataError, Interactions, Split


def make(**change: Any) -> Interactions:
    fields = {"users": (0, 0, 1), "items": (0, 2, 2), "labels": (1, 0, 1), "timestamps": None} | change
    columns: dict[str, Any] = {
        name: None if fields[name] is None else np.array(fields[name]) for name in fields if name[1] != "_"
    }
    return Interactions(**columns, n_users=change.get("n_users", 2), n_items=change.get("n_items", 3))


def test_types_are_fixed_and_the_callers_arrays_are_left_alone() -> None:
    users = np.array([0, 0, 1], dtype=np.int32)
    given: dict[str, Any] = {"users": users, "labels": np.array([True, False, True]), "n_users": np.int64(2)}
    data = Interactions(items=np.array([0, 2, 2]), n_items=3, **given)
    assert [data.users.dtype, data.labels.dtype] == [np.dtype("int64"), np.dtype("float32")]
    assert type(data.n_users) is int
    users[0] = 1
    assert data.users[0] == 0
    for column in (data.users, data.items, data.labels):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": (0, 0, 2)}, r"users\[2\] is 2; ids lie from 0 to n_users - 1 = 1"),
        ({"items": (0, -1, 2)}, r"items\[1\] is -1; ids lie from 0 to n_items - 1 = 2"),
        ({"labels": (1, 0.5, 1)}, r"labels\[1\] is 0.5; a label is 0 or 1"),
        ({"labels": (1, np.nan, 1)}, r"labels\[1\] is nan"),
        ({"labels": (1, 0)}, "labels has 2 entries, but users has 3"),
        ({"timestamps": (1, 2)}, "timestamps has 2 entries"),
        ({"timestamps": (1.5, 2, 3)}, "timestamps has the type float64; whole numbers are needed"),
        ({"users": (0.0, 0.0, 1.0)}, "users has the type float64"),
        ({"users": ((0, 0, 1),)}, r"users has the shape \(1, 3\)"),
        ({"n_users": 0}, "n_users is 0; at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**change)


def test_equality_is_by_content_and_the_hash_follows() -> None:
    data = make(timestamps=(1, 2, 3))
    assert data == make(timestamps=(1, 2, 3)) and hash(data) == hash(make(timestamps=(1, 2, 3)))
    assert data != "data"


@pytest.mark.parametrize(
    "change",
    [
        {"users": (0, 1, 1)},
        {"items": (0, 1, 2)},
        {"labels": (1, 1, 1)},
        {"n_users": 3},
        {"n_items": 4},
        {"timestamps": (1, 2, 3)},
    ],
)
def test_each_field_is_part_of_equality_and_of_the_content_hash(change: dict[str, Any]) -> None:
    assert make(**change) != make()
    assert make(**change).content_hash != make().content_hash


def test_content_hash_stays_as_it_is_since_caches_hold_it() -> None:
    assert make().content_hash == "55f82795a444be2e04067d17f98eb5e1"
    assert make(timestamps=(1, 2, 3)).content_hash == "f92a8dba815a0d67d24786304be46f08"


@given(st.lists(st.integers(0, 2), max_size=8))
def test_take_keeps_the_order_asked_for_and_the_tables(rows: list[Any]) -> None:
    data = make(timestamps=(7, 8, 9))
    part = data.take(np.array(rows, dtype=np.int64))
    assert len(part) == len(rows)
    assert part.users.tolist() == [data.users[row] for row in rows]
    assert part.timestamps is not None and part.timestamps.tolist() == [(7, 8, 9)[row] for row in rows]
    assert (part.n_users, part.n_items) == (2, 3)


def test_split_refuses_empty_parts_other_tables_and_single_classes() -> None:
    with pytest.raises(DataError, match="mine: the test part is empty"):
        Split("mine", make(), make(), make().take(np.array([], dtype=np.int64)))
    with pytest.raises(DataError, match="validation has 3 users and 3 items, train has 2 and 3"):
        Split("mine", make(), make(n_users=3), make())
    with pytest.raises(DataError, match=r"the validation part \(3 rows\) holds no negative row"):
        Split("mine", make(), make(labels=(1, 1, 1)), make())
    with pytest.raises(DataError, match=r"the test part \(3 rows\) holds no positive row"):
        Split("mine", make(), make(), make(labels=(0, 0, 0)))
    assert Split("mine", make(labels=(1, 1, 1)), make(), make()).n_items == 3


def test_split_hash_is_of_the_content_and_tells_the_parts_apart() -> None:
    first, second = make(), make(labels=(0, 1, 1))
    split = Split("mine", first, first, second)
    assert split.content_hash == Split("yours", first, first, second).content_hash
    assert len(split.content_hash) == 32
    assert split.content_hash != Split("mine", first, second, first).content_hash
    assert split.content_hash != Split("mine", second, first, first).content_hash


def test_describe_counts_what_train_never_saw() -> None:
    train = make(users=(0, 0, 0), items=(0, 0, 1))
    held_out = make(users=(0, 1, 1), items=(0, 1, 2), labels=(1, 0, 0))
    figures = Split("mine", train, held_out, held_out).describe()
    assert figures["train"]["rows_not_in_train"] == 0
    assert figures["test"] == {
        "rows": 3,
        "positive_share": pytest.approx(1 / 3),
        "users": 2,
        "items": 3,
        "users_not_in_train": 1,
        "items_not_in_train": 1,
        "rows_not_in_train": 2,
    }
