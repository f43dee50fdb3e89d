from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.frames import interactions_from_frame
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.splits import (
    at_random,
    by_time,
    leave_one_out,
    repeated_splits,
    rolling_splits,
    split_by_name,
)
from recmodels.data.tables import read_table

PARTS = ("train", "validation", "test")


@st.composite
def histories(draw: st.DrawFn, with_times: bool | None = None) -> Interactions:
    """Rows of a few users with many ties in time; the item is the number of the row, which tells rows apart."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from((0, 1, 1)), st.integers(0, 6)), min_size=1, max_size=40
        )
    )
    users, labels, times = (np.array(column) for column in zip(*rows, strict=True))
    timed = draw(st.booleans()) if with_times is None else with_times
    return Interactions(users, np.arange(len(rows)), labels, 4, len(rows), times if timed else None)


def rows_by_part(split: Split) -> dict[str, list[int]]:
    return {name: part.items.tolist() for name, part in split.parts().items()}


def times_of(data: Interactions) -> list[int]:
    assert data.timestamps is not None
    return [int(time) for time in data.timestamps]


def one_user(size: int, timed: bool = False) -> Interactions:
    """Return rows of one user, every second one positive."""
    rows = np.arange(size)
    labels = (rows % 2).astype(np.float32)
    return Interactions(np.zeros(size, dtype=np.int64), rows, labels, 1, size, rows if timed else None)


def can_be_split(data: Interactions, parts: dict[str, list[int]]) -> bool:
    classes = {name: {float(data.labels[row]) for row in rows} for name, rows in parts.items()}
    return len(classes["train"]) > 0 and len(classes["validation"]) == 2 and len(classes["test"]) == 2


def leave_one_out_as_written(data: Interactions) -> dict[str, list[int]]:
    """The rule, one user and one row at a time."""
    parts: dict[str, list[int]] = {name: [] for name in PARTS}
    for user in range(data.n_users):
        history = [row for row in range(len(data)) if data.users[row] == user]
        if data.timestamps is not None:
            history.sort(key=data.timestamps.tolist().__getitem__)  # stable: ties keep the order of the rows
        positives = [place for place, row in enumerate(history) if data.labels[row] == 1]
        if len(history) < 5 or not positives:
            parts["train"] += history
            continue
        last = positives[-1]
        second_last = positives[-2] if len(positives) > 1 else last
        parts["train"] += history[:second_last]
        parts["validation"] += history[second_last:last]
        parts["test"] += history[last:]
    return {name: sorted(rows) for name, rows in parts.items()}


@given(histories())
def test_leave_one_out_follows_the_rule_or_says_why_not(data: Interactions) -> None:
    expected = leave_one_out_as_written(data)
    if can_be_split(data, expected):
        split = leave_one_out(data)
        assert rows_by_part(split) == expected
        assert sum(map(len, rows_by_part(split).values())) == len(data)
    else:
        with pytest.raises(DataError, match=r"is empty|holds no (positive|negative) row"):
            leave_one_out(data)


def test_leave_one_out_of_users_with_few_positives() -> None:
    users = np.repeat([0, 1, 2, 3, 4], [6, 6, 5, 4, 5])
    labels = np.concatenate(
        [
            [1, 0, 1, 0, 1, 0],  # ends in validation and test
            [0, 0, 0, 1, 0, 0],  # one positive: no validation rows
            [0, 0, 0, 0, 0],  # none: train only
            [1, 1, 1, 1],  # fewer than 5 interactions: train only
            [1, 1, 1, 1, 1],
        ]
    )
    data = Interactions(users, np.arange(26), labels, 5, 26)
    assert rows_by_part(leave_one_out(data)) == {
        "train": [0, 1, 6, 7, 8, *range(12, 24)],
        "validation": [2, 3, 24],
        "test": [4, 5, 9, 10, 11, 25],
    }


@given(histories(with_times=True), st.sampled_from((0.1, 0.25, 0.4)), st.sampled_from((0.1, 0.25, 0.4)))
def test_by_time_cuts_the_rows_in_time_order(data: Interactions, validation: float, test: float) -> None:
    order = sorted(range(len(data)), key=times_of(data).__getitem__)
    n_test, n_validation = round(len(data) * test), round(len(data) * validation)
    first_test = len(data) - n_test
    first_validation = max(0, first_test - n_validation)
    expected = {
        "train": sorted(order[:first_validation]),
        "validation": sorted(order[first_validation:first_test]),
        "test": sorted(order[first_test:]),
    }
    if can_be_split(data, expected):
        split = by_time(data, validation, test)
        assert rows_by_part(split) == expected
        assert max(times_of(split.train)) <= min(times_of(split.validation))
        assert max(times_of(split.validation)) <= min(times_of(split.test))
    else:
        with pytest.raises(DataError, match=r"is empty|holds no (positive|negative) row"):
            by_time(data, validation, test)


@given(st.integers(0, 2**32), st.integers(200, 300))
def test_at_random_puts_each_row_in_one_part_and_depends_on_the_seed_only(seed: int, size: int) -> None:
    data = one_user(size)
    split = at_random(data, 0.2, 0.3, seed=seed)
    parts = rows_by_part(split)
    assert sorted(parts["train"] + parts["validation"] + parts["test"]) == list(range(size))
    assert (len(parts["validation"]), len(parts["test"])) == (round(size * 0.2), round(size * 0.3))
    assert all(rows == sorted(rows) for rows in parts.values())
    assert at_random(data, 0.2, 0.3, seed=seed) == split
    assert at_random(data, 0.2, 0.3, seed=seed + 1).content_hash != split.content_hash


def test_at_random_stays_as_it_is_since_caches_hold_its_hash() -> None:
    data = one_user(20)
    assert rows_by_part(at_random(data, 0.2, 0.2, seed=0))["test"] == [1, 9, 14, 15]


@pytest.mark.parametrize(("validation", "test"), [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.1)])
def test_shares_that_do_not_fit_are_refused(validation: float, test: float) -> None:
    data = one_user(20, timed=True)
    refusal = "do not fit; each must be above 0, and their sum below 1"
    with pytest.raises(DataError, match=refusal):
        by_time(data, validation, test)
    with pytest.raises(DataError, match=refusal):
        at_random(data, validation, test, seed=0)


def test_by_time_needs_times() -> None:
    data = one_user(20)
    with pytest.raises(DataError, match="log: a split by time needs timestamps"):
        by_time(data, name="log")


def test_splits_by_name() -> None:
    data = one_user(101, timed=True)
    assert split_by_name(data, "leave_one_out", name="log") == leave_one_out(data, name="log")
    assert split_by_name(data, "by_time", validation=0.2, test=0.2) == by_time(data, 0.2, 0.2)
    assert split_by_name(data, "at_random", seed=3).name == "interactions, at random (0.1, 0.1, seed 3)"
    with pytest.raises(LookupError, match="'by_user'; choose from: leave_one_out, by_time, at_random"):
        split_by_name(data, "by_user")


def test_a_tenth_is_the_share_where_none_is_given() -> None:
    data = one_user(201, timed=True)
    assert by_time(data) == by_time(data, 0.1, 0.1)
    assert at_random(data, seed=5) == at_random(data, 0.1, 0.1, seed=5)
    assert split_by_name(data, "by_time") == by_time(data, 0.1, 0.1)
    assert split_by_name(data, "at_random") == at_random(data, 0.1, 0.1, seed=0)
    first = leave_one_out(data)
    drawn, expected = repeated_splits(first, 2, seed=0)[1], repeated_splits(first, 2, share=0.1, seed=0)[1]
    assert drawn.content_hash == expected.content_hash
    assert 5 < len(drawn.validation) < 40


def test_a_part_may_begin_with_the_first_row_of_the_table() -> None:
    labels = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    data = Interactions(np.array([0] * 5 + [1] * 6), np.arange(11), labels, 2, 11)
    assert rows_by_part(leave_one_out(data)) == {
        "train": [5, 6],
        "validation": [0, 1, 2, 7, 8],
        "test": [3, 4, 9, 10],
    }


def test_there_are_as_many_splits_as_asked_for_the_first_among_them() -> None:
    first = leave_one_out(one_user(61))
    for count in (1, 2, 3, 7):
        for splits in (rolling_splits(first, count), repeated_splits(first, count, share=0.3, seed=2)):
            assert len(splits) == count and splits[0] is first
            assert len({split.content_hash for split in splits}) == len({split.name for split in splits}) == count
            assert all(split.test == first.test for split in splits)


def test_each_rolling_split_gives_up_the_last_positive_before_it() -> None:
    """Every second row of one user is positive: each step back is two rows."""
    first = leave_one_out(one_user(21))
    assert rows_by_part(first) == {"train": [*range(17)], "validation": [17, 18], "test": [19, 20]}
    for step, split in enumerate(rolling_splits(first, 5)[1:], start=1):
        begin = 17 - 2 * step
        assert rows_by_part(split) == {
            "train": [*range(begin)],
            "validation": [begin, begin + 1],
            "test": [19, 20],
        }
        assert split.name == f"{first.name}, {step} step(s) back in time"


def test_validation_is_drawn_from_both_parts_by_seed_and_number() -> None:
    first = leave_one_out(one_user(61))
    rows = np.array(first.train.items.tolist() + first.validation.items.tolist())
    for number, split in enumerate(repeated_splits(first, 4, share=0.3, seed=9)[1:], start=1):
        drawn = np.random.Generator(np.random.PCG64([9, number])).random(len(rows)) < 0.3
        assert rows_by_part(split) == {
            "train": rows[~drawn].tolist(),
            "validation": rows[drawn].tolist(),
            "test": first.test.items.tolist(),
        }
    for share in (0.0, 1.0, 1.5, -0.1):
        with pytest.raises(DataError, match="for validation cannot be drawn"):
            repeated_splits(first, 2, share=share, seed=0)


@pytest.fixture(scope="module")
def data_folder() -> Path:
    folder = os.environ.get("GPLOSS_DATA")
    if not folder:
        pytest.skip("GPLOSS_DATA is not set: no MovieLens 100K to compare with")
    return Path(folder)


def published_rows(folder: Path) -> pd.DataFrame:
    files = [(part, folder / "ml100k01-1-5" / f"ml100k01-1-5.{part}.csv") for part in PARTS]
    return pd.concat([read_table(path).assign(part=part) for part, path in files], ignore_index=True)


def test_published_split_of_movielens_is_reproduced_with_the_authors_order_of_ties(data_folder: Path) -> None:
    published = published_rows(data_folder)
    log = read_table(data_folder / "ml-100k" / "ml-100k.inter").rename(columns={"user_id": "uid", "item_id": "iid"})
    rows = published.merge(log, on=["uid", "iid"], how="left", validate="one_to_one")
    rows["timestamp"] = rows["timestamp"].astype(int)
    # Within each user the published rows are in time order, so their order is one way to break ties.
    assert rows.groupby("uid")["timestamp"].apply(lambda times: times.is_monotonic_increasing).all()
    data, _ = interactions_from_frame(rows)
    split = leave_one_out(data)
    assert [len(part) for part in split.parts().values()] == [94_638, 2_334, 3_028]
    for name, part in split.parts().items():
        assert part == data.take((rows["part"] == name).to_numpy())


def test_published_split_differs_from_ours_in_ties_only(data_folder: Path) -> None:
    published = published_rows(data_folder)
    data, ids = interactions_from_frame(read_table(data_folder / "ml-100k" / "ml-100k.inter"), positive_from=4)
    split = leave_one_out(data)
    assert [len(part) for part in split.parts().values()] == [94_626, 2_363, 3_011]
    ours = pd.concat(
        pd.DataFrame({"uid": ids.users[p.users], "iid": ids.items[p.items], "ours": name, "time": p.timestamps})
        for name, p in split.parts().items()
    )
    both = published.astype({"uid": int, "iid": int}).merge(ours, on=["uid", "iid"], validate="one_to_one")
    moved = both[both["part"] != both["ours"]]
    assert len(moved) == 1_176
    # A row moves only if its second, or that of a positive that bounds its part, is shared with another row.
    tied_users = both[both.duplicated(["uid", "time"], keep=False)]["uid"]
    assert moved["uid"].isin(tied_users).all()
