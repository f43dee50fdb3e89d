from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recmodels.data.frames import interactions_from_frame
from recmodels.data.interactions import DataError
from recmodels.data.tables import read_table


def frame_of(**columns: Any) -> pd.DataFrame:
    base = {"user": [10, 10, 20, 30], "item": ["a", "b", "a", "c"], "rating": [5, 3, 4, 1]}
    return pd.DataFrame(base | columns)


@pytest.mark.parametrize("names", [("user_id", "item_id"), ("uid", "iid"), ("userId", "movieId"), ("user", "item")])
def test_common_names_are_found(names: tuple[str, str]) -> None:
    table = frame_of().rename(columns={"user": names[0], "item": names[1]})
    assert len(interactions_from_frame(table)[0]) == 4


def test_named_columns_win_and_labels_win_over_ratings() -> None:
    table = frame_of(label=[0, 1, 1, 1], who=[1, 2, 3, 4])
    result, ids = interactions_from_frame(table, user="who")
    assert ids.users.tolist() == [1, 2, 3, 4] and result.labels.tolist() == [0, 1, 1, 1]
    assert interactions_from_frame(table, rating="rating", positive_from=5)[0].labels.tolist() == [1, 0, 0, 0]


def test_times_where_they_are_found_or_named_and_not_where_they_are_not_meant() -> None:
    assert interactions_from_frame(frame_of())[0].timestamps is None
    assert interactions_from_frame(frame_of(when=[4, 3, 2, 1]))[0].timestamps is None
    for column, options in (("timestamp", {}), ("when", {"time": "when"})):
        found = interactions_from_frame(frame_of(**{column: [4, 3, 2, 1]}), **options)[0].timestamps  # type: ignore[arg-type]
        assert found is not None and found.tolist() == [4, 3, 2, 1]
    words = frame_of(timestamp=["monday"] * 4)
    assert interactions_from_frame(words, time=False)[0].timestamps is None


def test_weights_where_they_are_found_or_named_and_not_where_they_are_not_meant() -> None:
    assert interactions_from_frame(frame_of())[0].weights is None
    for column, options in (("weight", {}), ("times", {"weight": "times"})):
        found = interactions_from_frame(frame_of(**{column: [4, 0, 2.5, 1]}), **options)[0].weights  # type: ignore[arg-type]
        assert found is not None and found.tolist() == [4, 0, 2.5, 1]
    grams = frame_of(weight=["heavy"] * 4)
    assert interactions_from_frame(grams, weight=False)[0].weights is None
    with pytest.raises(DataError, match="row 0, column 'weight': 'heavy' is no weight"):
        interactions_from_frame(grams)
    with pytest.raises(DataError, match=r"row 2, column 'weight': the weight is -1; .* at least 0"):
        interactions_from_frame(frame_of(weight=[1, 1, -1, 1]))
    twice = frame_of(item=["a", "a", "a", "c"], weight=[1, 2, 3, 4])
    last = interactions_from_frame(twice, on_duplicates="last")[0]
    assert last.weights is not None and last.weights.tolist() == [2, 3, 4]


def test_a_threshold_asks_for_ratings() -> None:
    table = frame_of(label=[1, 0, 0, 0])
    assert interactions_from_frame(table)[0].labels.tolist() == [1, 0, 0, 0]
    assert interactions_from_frame(table, positive_from=3)[0].labels.tolist() == [1, 1, 1, 0]
    with pytest.raises(DataError, match="give a label column, or a rating column and positive_from, not both"):
        interactions_from_frame(table, label="label", positive_from=3)
    with pytest.raises(DataError, match="no rating column found among: user, item, label"):
        interactions_from_frame(table.drop(columns="rating"), positive_from=3)


def test_ratings_in_32_bits_lie_where_they_are_printed() -> None:
    stars = np.array([4.1, 4.0, 4.2, 3.7], dtype=np.float32)
    assert interactions_from_frame(frame_of(rating=stars), positive_from=4.1)[0].labels.tolist() == [1, 0, 1, 0]


def test_columns_called_by_numbers() -> None:
    frame = pd.DataFrame([["a", 7, 5], ["b", 7, 1]])
    for names in ((0, 1, 2), ("0", "1", "2"), np.arange(3)):
        interactions, ids = interactions_from_frame(frame, user=names[0], item=names[1], rating=names[2])
        assert interactions.labels.tolist() == [1, 0] and ids.users.tolist() == ["a", "b"]
    assert len(interactions_from_frame(frame.set_axis(["0", "1", "2"], axis=1), user=0, item=1, rating=2)[0]) == 2


def test_gaps_of_data_frames_are_marked_so_text_is_never_a_gap() -> None:
    _, ids = interactions_from_frame(frame_of(item=["NA", "DE", "null", "None"]))
    assert ids.items.tolist() == ["DE", "NA", "None", "null"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"user": "customer"}, "there is no column 'customer'; there are: user, item, rating"),
        ({}, {"label": "bought"}, "there is no column 'bought'; there are: user, item, rating"),
        ({}, {"time": "when"}, "there is no column 'when'"),
        (
            {},
            {"label": "rating", "rating": "rating"},
            "give a label column, or a rating column and positive_from, not both",
        ),
        ({}, {"user": "item"}, "users and items cannot both be column 'item'"),
        ({}, {"user": True}, "user is True; it must be the name of a column"),
        ({}, {"item": ["item"]}, "item is .'item'.; it must be the name of a column"),
        ({}, {"time": True}, "time is True; it must be the name of a column"),
        ({}, {"missing": "NA"}, "missing is 'NA'; it must be a list of texts"),
        ({}, {"decimal": "comma"}, "decimal is 'comma'; it can be '.' or ','"),
        ({}, {"positive_from": float("nan")}, "positive_from must be finite, got nan"),
        ({"item": ["a", "b", "", "c"]}, {}, r"row 2, column 'item': the id is empty or NaN$"),
        ({"rating": [5, "good", 3, 1]}, {}, "row 1, column 'rating': 'good' is no number"),
        ({"label": [0, 1, 3, 1]}, {}, "row 2, column 'label': the label is 3; labels are 0 or 1"),
        ({"label": [1, 1, 1, 1]}, {}, "column 'label': every label is 1; both 0 and 1 are needed"),
        ({"rating": [1, 1, 2, 1]}, {}, "column 'rating': none of the ratings lie at positive_from=4 or above"),
        ({}, {"positive_from": 0.5}, "column 'rating': all of the ratings lie at positive_from=0.5 or above"),
        ({"timestamp": ["monday"] * 4}, {}, "row 0, column 'timestamp': 'monday' is neither a number nor a date"),
    ],
)
def test_bad_tables_are_refused(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interactions_from_frame(frame_of(**columns), source="ratings.csv", **options)


def test_a_column_that_is_there_twice() -> None:
    frame = pd.concat([frame_of(), frame_of()[["user"]]], axis=1)
    with pytest.raises(
        DataError, match=r"ratings.csv: 2 columns have the same name 'user'; there are: user, item, rating, user"
    ):
        interactions_from_frame(frame, source="ratings.csv")
    frame.columns = pd.Index(["user", "item", "rating", "other"])
    assert len(interactions_from_frame(frame)[0]) == 4


def test_positive_from_of_any_kind_of_number() -> None:
    for number in (4, 4.0, np.int64(4), np.float32(4)):
        assert interactions_from_frame(frame_of(), positive_from=number)[0].labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(TypeError, match="positive_from must be a number, got '4'"):
        interactions_from_frame(frame_of(), positive_from="4")  # type: ignore[arg-type]


def test_unguessable_columns_are_listed() -> None:
    with pytest.raises(DataError, match="no user column found among: a, b, c; common names are user_id, uid"):
        interactions_from_frame(pd.DataFrame({"a": [1], "b": [1], "c": [1]}))
    with pytest.raises(DataError, match="no item column found among: uid, b; common names are item_id, iid"):
        interactions_from_frame(pd.DataFrame({"uid": [1], "b": [1]}))
    with pytest.raises(DataError, match=r"no label or rating column found among: uid, iid; .* label, rating"):
        interactions_from_frame(pd.DataFrame({"uid": [1], "iid": [1]}))


def test_many_columns_are_not_all_listed() -> None:
    with pytest.raises(DataError, match=r"no user column found among: c0, c1, .*, c19, ... \(500 columns\)"):
        interactions_from_frame(pd.DataFrame({f"c{k}": [1] for k in range(500)}))


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
