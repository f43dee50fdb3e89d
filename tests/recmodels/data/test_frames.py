from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.frames import interactions_from_frame
from recmodels.data.interactions import DataError
from recmodels.data.tables import read_table


def frame_of(**columns: Any) -> pd.DataFrame:
    base = {"user": [10, 10, 20, 30], "item": ["a", "b", "a", "c"], "rating": [5, 3, 4, 1]}
    return pd.DataFrame(base | columns)


@given(
    st.lists(st.tuples(st.integers(-5, 10**12), st.text(min_size=1)), min_size=2, unique=True, max_size=20),
    st.data(),
)
def test_ids_are_dense_sorted_and_lead_back_to_the_table(pairs: list[tuple[int, str]], data: st.DataObject) -> None:
    ratings = [5, 1, *data.draw(st.lists(st.integers(1, 5), min_size=len(pairs) - 2, max_size=len(pairs) - 2))]
    table = pd.DataFrame({"user": [p[0] for p in pairs], "item": [p[1] for p in pairs], "rating": ratings})
    if table["item"].isin(["nan", "NaN", "NA", "null", "NULL", "None", "<NA>"]).any():
        return
    result, ids = interactions_from_frame(table)
    assert ids.users[result.users].tolist() == table["user"].tolist()
    assert [str(item) for item in ids.items[result.items]] == table["item"].tolist()
    assert (result.n_users, result.n_items) == (table["user"].nunique(), table["item"].nunique())
    assert sorted(ids.users.tolist()) == ids.users.tolist()
    assert result.labels.tolist() == [float(rating >= 4) for rating in ratings]


@pytest.mark.parametrize("names", [("user_id", "item_id"), ("uid", "iid"), ("userId", "movieId"), ("user", "item")])
def test_common_names_are_found(names: tuple[str, str]) -> None:
    table = frame_of().rename(columns={"user": names[0], "item": names[1]})
    assert len(interactions_from_frame(table)[0]) == 4


def test_named_columns_win_and_labels_win_over_ratings() -> None:
    table = frame_of(label=[0, 1, 1, 1], who=[1, 2, 3, 4])
    result, ids = interactions_from_frame(table, user="who")
    assert ids.users.tolist() == [1, 2, 3, 4] and result.labels.tolist() == [0, 1, 1, 1]
    assert interactions_from_frame(table, rating="rating", positive_from=5)[0].labels.tolist() == [1, 0, 0, 0]


def test_whole_numbers_in_text_or_floats_are_numbers_but_leading_zeros_are_text() -> None:
    assert interactions_from_frame(frame_of(user=["9", "9", "10", "8"]))[1].users.tolist() == [8, 9, 10]
    assert interactions_from_frame(frame_of(user=[9.0, 9.0, 10.0, 8.0]))[1].users.tolist() == [8, 9, 10]
    assert interactions_from_frame(frame_of(user=["09", "09", "9", "x"]))[1].users.tolist() == ["09", "9", "x"]
    assert interactions_from_frame(frame_of(user=[1, 1, "1", "x"], item=list("abcd")))[1].users.tolist() == [
        "1",
        "x",
    ]


def test_huge_numbers_are_kept_apart_as_text() -> None:
    ids = interactions_from_frame(frame_of(user=["1" * 30, "1" * 30, "1" * 29 + "2", "3"]))[1]
    assert len(ids.users) == 3


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([4, 3, 2, 1], [4, 3, 2, 1]),
        (["4", "3", "2", "1"], [4, 3, 2, 1]),
        ([4.0, 3.0, 2.0, 1.0], [4, 3, 2, 1]),
        ([0.5, 0.25, 2, 1], [500_000, 250_000, 2_000_000, 1_000_000]),
        (["1970-01-01", "1970-01-02", "1970-01-01 00:00:01", "1970-01-01T00:00:02"], [0, 86_400e9, 1e9, 2e9]),
        (pd.to_datetime([0, 5, 3, 1], unit="s"), [0, 5e9, 3e9, 1e9]),
        (pd.to_datetime([0, 5, 3, 1], unit="s", utc=True).tz_convert("Asia/Tokyo"), [0, 5e9, 3e9, 1e9]),
    ],
)
def test_times_keep_their_order(times: Any, expected: list[float]) -> None:
    result, _ = interactions_from_frame(frame_of(timestamp=times))
    assert result.timestamps is not None and result.timestamps.tolist() == expected


def test_without_times_there_are_none() -> None:
    assert interactions_from_frame(frame_of())[0].timestamps is None


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"user": "customer"}, "there is no column 'customer'; there are: user, item, rating"),
        ({}, {"label": "bought"}, "there is no column 'bought'; there are: user, item, rating"),
        ({}, {"timestamp": "when"}, "there is no column 'when'"),
        ({}, {"label": "rating", "rating": "rating"}, "give a label column or a rating column, not both"),
        ({"user": [1, None, 2, None]}, {}, r"row 1, column 'user': the id is empty or NaN \(and in 1 more rows\)"),
        ({"item": ["a", "b", "", "c"]}, {}, r"row 2, column 'item': the id is empty or NaN$"),
        ({"rating": [5, "good", 3, 1]}, {}, "row 1, column 'rating': 'good' is no number"),
        ({"rating": [5, np.nan, 3, 1]}, {}, "row 1, column 'rating': .* is no number"),
        ({"rating": [5, np.inf, 3, 1]}, {}, "row 1, column 'rating': inf is no number"),
        ({"label": [0, 1, 3, 1]}, {}, "row 2, column 'label': the label is 3; labels are 0 or 1"),
        ({"label": [0, 1, None, 1]}, {}, "row 2, column 'label': nan is no label"),
        ({"label": [1, 1, 1, 1]}, {}, "column 'label': every label is 1; both 0 and 1 are needed"),
        ({"rating": [1, 1, 2, 1]}, {}, "column 'rating': none of the ratings lie at positive_from=4 or above"),
        ({}, {"positive_from": 0.5}, "column 'rating': all of the ratings lie at positive_from=0.5 or above"),
        ({"timestamp": [1, 2, None, 4]}, {}, "row 2, column 'timestamp': nan is no time"),
        ({"timestamp": ["monday"] * 4}, {}, "row 0, column 'timestamp': 'monday' is neither a number nor a date"),
    ],
)
def test_bad_tables_are_refused(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^ratings.csv[:,] .*{message}" if "row" not in message else message):
        interactions_from_frame(frame_of(**columns), source="ratings.csv", **options)


def test_unguessable_columns_are_listed() -> None:
    with pytest.raises(DataError, match="no user column found among: a, b, c; common names are user_id, uid"):
        interactions_from_frame(pd.DataFrame({"a": [1], "b": [1], "c": [1]}))
    with pytest.raises(DataError, match="no item column found among: uid, b; common names are item_id, iid"):
        interactions_from_frame(pd.DataFrame({"uid": [1], "b": [1]}))
    with pytest.raises(DataError, match=r"no label or rating column found among: uid, iid; .* label, rating"):
        interactions_from_frame(pd.DataFrame({"uid": [1], "iid": [1]}))


def test_empty_table() -> None:
    with pytest.raises(DataError, match="the table has no rows"):
        interactions_from_frame(frame_of().head(0))


def test_messages_count_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\n1,1,5\n\n1,,3\n")
    with pytest.raises(DataError, match=r"^log.csv, line 4, column 'item': the id is empty or NaN$"):
        interactions_from_frame(read_table(path), source=path.name)


def repeated() -> pd.DataFrame:
    return pd.DataFrame(
        {"user": [1, 1, 2, 1, 2], "item": [7, 8, 7, 7, 7], "rating": [5, 1, 2, 1, 5], "timestamp": [9, 2, 3, 4, 5]}
    )


def test_pairs_that_occur_twice_are_refused_and_named() -> None:
    expected = (
        r"2 \(user, item\) pairs occur more than once: user 1, item 7 at row 0 and row 3; "
        r"user 2, item 7 at row 2 and row 4. Give on_duplicates='last'"
    )
    with pytest.raises(DataError, match=expected):
        interactions_from_frame(repeated())
    with pytest.raises(ValueError, match="on_duplicates is 'first'; it can be 'error' or 'last'"):
        interactions_from_frame(repeated(), on_duplicates="first")  # type: ignore[arg-type]


def test_last_of_a_pair_is_the_last_in_time_or_else_in_the_table() -> None:
    timed, ids = interactions_from_frame(repeated(), on_duplicates="last")
    assert timed.timestamps is not None
    assert list(zip(ids.users[timed.users], timed.timestamps, timed.labels, strict=True)) == [
        (1, 9, 1),
        (1, 2, 0),
        (2, 5, 1),
    ]
    untimed, _ = interactions_from_frame(repeated().drop(columns="timestamp"), on_duplicates="last")
    assert untimed.labels.tolist() == [0, 0, 1]


def test_one_class_is_looked_for_after_duplicates_are_gone() -> None:
    table = pd.DataFrame({"user": [1, 1, 2], "item": [7, 7, 7], "label": [1, 0, 0]})
    with pytest.raises(DataError, match="every label is 0"):
        interactions_from_frame(table, on_duplicates="last")
