"""Rows and batches: what is refused, what a part of them is, and what their hash sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recmodels.data.interactions import DataError
from recmodels.data.rows import Batches, Rows, Schema

SCHEMA = Schema({"user": 3, "place": 2})


def rows(**change: Any) -> Rows:
    columns: dict[str, Any] = {
        "schema": SCHEMA,
        "features": {"user": [0, 2, 1], "place": [1, 0, 1]},
        "inputs": {"price": [0.5, 1.5, 2.5]},
        "weights": [1, 2, 3],
    }
    return Rows(**{**columns, **change})


def test_columns_are_copied_and_can_be_read_only() -> None:
    users = np.array([0, 2, 1])
    own = rows(features={"user": users, "place": [1, 0, 1]})
    users[0] = 1
    assert own.features["user"].tolist() == [0, 2, 1] and len(own) == 3
    assert own.inputs["price"].dtype == np.float32 and own.features["place"].dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        own.inputs["price"][0] = 7


def test_some_rows_in_another_order() -> None:
    part = rows().take(np.array([2, 0]))
    assert part.features["user"].tolist() == [1, 0] and part.features["place"].tolist() == [1, 1]
    assert part.inputs["price"].tolist() == [2.5, 0.5]
    assert part.weights is not None and part.weights.tolist() == [3, 1]
    assert rows(weights=None).take(np.array([True, False, False])).weights is None
    again = part.take(np.array([1, 0])).take(np.array([1, 0]))
    assert again.content_hash == part.content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"schema": Schema({"user": 4, "place": 2})},
        {"schema": Schema({"user": 3, "town": 2}), "features": {"user": [0, 2, 1], "town": [1, 0, 1]}},
        {"features": {"user": [0, 2, 2], "place": [1, 0, 1]}},
        {"features": {"user": [0, 2, 1], "place": [1, 0, 0]}},
        {"inputs": {"price": [0.5, 1.5, 2]}},
        {"inputs": {"prize": [0.5, 1.5, 2.5]}},
        {"inputs": {}},
        {"weights": [1, 2, 4]},
        {"weights": None},
    ],
)
def test_the_hash_sees_everything(change: dict[str, Any]) -> None:
    assert rows(**change).content_hash != rows().content_hash
    assert rows().content_hash == rows().content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": {"user": [0, 2, 1]}}, "the columns are user; the schema has user, place"),
        ({"features": {"user": [0, 3, 1], "place": [1, 0, 1]}}, r"user\[1\] is 3; ids lie from 0 to 2"),
        ({"features": {"user": [0, -1, 1], "place": [1, 0, 1]}}, r"user\[1\] is -1"),
        ({"features": {"user": [0.0, 1.0, 1.0], "place": [1, 0, 1]}}, "user must be .* whole numbers, not float64"),
        ({"features": {"user": [0, 2, 1], "place": [1, 0]}}, "place has 2 entries, but user has 3"),
        ({"inputs": {"price": [1.0, 2.0]}}, "price has 2 entries, but user has 3"),
        ({"inputs": {"price": [1.0, np.nan, 2.0]}}, r"price\[1\] is nan; finite"),
        ({"inputs": {"price": ["a", "b", "c"]}}, "price must be"),
        ({"weights": [1.0]}, "weights has 1 entries"),
    ],
)
def test_columns_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(**change)


def test_a_schema_says_what_it_lacks() -> None:
    with pytest.raises(LookupError, match="no column 'item'; the columns are user, place"):
        SCHEMA["item"]
    with pytest.raises(DataError, match="at least one column"):
        Schema({})
    with pytest.raises(DataError, match="'user' has 0 ids"):
        Schema({"user": 0})
    assert "item" not in SCHEMA and dict(SCHEMA) == {"user": 3, "place": 2}


@pytest.mark.parametrize("bounds", [[0], [0, 2], [1, 3], [0, 2, 2, 3], [0, 4]])
def test_batches_cover_the_rows(bounds: list[int]) -> None:
    with pytest.raises(DataError, match="batches from 0 to 3 are needed"):
        Batches(rows(), np.array(bounds))
    whole = Batches(rows(), np.array([0, 2, 3]))
    assert len(whole) == 2 and whole.slices == [slice(0, 2), slice(2, 3)]
