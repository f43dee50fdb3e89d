"""What users say about their table reaches it, and what it calls users and items is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow.csv import write_csv

from recmodels.data.interactions import DataError, Split
from recmodels.data.noise import Flips, Noise
from recmodels.data.splits import repeated_splits, rolling_splits
from recmodels.datasets import load_dataset
from tests.documents import PROJECT
from tests.recmodels.datasets.logs import small_log

NAMES = np.array(["ann", "bob", "carol", "dave", "eve", "NA"])


def named_log() -> pd.DataFrame:
    return small_log().assign(
        user_id=lambda log: NAMES[log["user_id"] - 1], item_id=lambda log: 1000 - log["item_id"]
    )


@pytest.mark.parametrize("way", ["leave_one_out", "by_time", "at_random"])
def test_ids_lead_back_to_the_table(way: str) -> None:
    log = named_log()
    split = load_dataset(log, split=way)
    assert split.user_ids.tolist() == ["ann", "bob", "carol", "dave", "eve"]
    rows = [
        (split.user_ids[user], split.item_ids[item], label)
        for part in split.parts().values()
        for user, item, label in zip(part.users, part.items, part.labels, strict=True)
    ]
    assert sorted(rows) == sorted(zip(log["user_id"], log["item_id"], log["rating"] >= 4, strict=True))
    for other in (repeated_splits(split, 2, seed=0)[1], Noise(Flips(0.2, 0.2)).applied_to(split)):
        assert other.user_ids is not None and other.user_ids.tolist() == split.user_ids.tolist()
    assert rolling_splits(load_dataset(log), 2)[1].item_ids.tolist() == split.item_ids.tolist()


def test_a_model_is_asked_by_name() -> None:
    split = load_dataset(named_log())
    assert split.user_number("carol") == 2 and split.user_ids[2] == "carol"
    assert split.item_ids[split.item_number(995)] == 995 == split.item_ids[split.item_number("995")]
    with pytest.raises(
        LookupError, match=r"there is no user 'mallory'; users are called 'ann', 'bob', 'carol', ..."
    ):
        split.user_number("mallory")
    with pytest.raises(LookupError, match=r"there is no item 5; items are called 989, 990, 991, ..."):
        split.item_number(5)


def test_splits_of_numbers_call_users_by_numbers() -> None:
    parts = load_dataset(small_log()).parts()
    split = Split("by hand", **parts)
    assert split.user_number(3) == 3 and split.item_ids.tolist() == list(range(12))
    with pytest.raises(DataError, match="user_ids has 1 entries; one for each of 5 is needed"):
        Split("by hand", **parts, user_ids=np.array(["ann"]))
    assert split == Split("by hand", **parts, user_ids=NAMES[:5])  # what they are called is not what they are


def test_options_of_files_reach_the_reader(tmp_path: Path) -> None:
    log = named_log()
    whole = load_dataset(log)
    path = tmp_path / "log.csv"
    log.assign(rating=log["rating"] + 0.5).to_csv(
        path, index=False, header=False, sep="|", decimal=",", encoding="cp1252"
    )
    said: dict[str, Any] = {"separator": "|", "decimal": ",", "encoding": "cp1252", "quotes": False}
    named = load_dataset(path, columns=["user", "item", "rating", "timestamp"], **said)
    numbered = load_dataset(path, header=False, user="1", item="2", rating="3", time="4", **said)
    assert named.content_hash == numbered.content_hash == whole.content_hash
    untimed = load_dataset(path, header=False, user="1", item="2", rating="3", split="at_random", **said)
    assert untimed.train.timestamps is None
    with pytest.raises(ValueError, match="separator: for files of text; a data frame has its own names and values"):
        load_dataset(log, separator=";")


def test_ids_that_read_as_gaps(tmp_path: Path) -> None:
    log = small_log()
    log["user_id"] = np.where(log["user_id"] == 5, "NA", NAMES[log["user_id"] - 1])
    path = tmp_path / "log.csv"
    log.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"^log.csv, line 50, column 'user_id': 'NA' stands for no value"):
        load_dataset(path)
    assert load_dataset(path, missing=[]).user_ids.tolist() == load_dataset(log).user_ids.tolist()
    assert load_dataset(path, missing=["-"]).user_number("NA") == 0
    log.to_parquet(tmp_path / "log.parquet")
    assert load_dataset(tmp_path / "log.parquet").user_number("NA") == 0


def test_truth_in_a_file_is_truth_in_a_frame(tmp_path: Path) -> None:
    clicks = small_log().assign(label=lambda log: log["rating"] > 3).drop(columns="rating")
    clicks.to_csv(tmp_path / "clicks.csv", index=False)
    clicks.to_feather(tmp_path / "clicks.feather")
    for name in ("clicks.csv", "clicks.feather"):
        assert load_dataset(tmp_path / name).content_hash == load_dataset(clicks).content_hash


def test_a_part_all_of_whose_users_are_new() -> None:
    log = pd.concat([small_log(), small_log().assign(user_id=9, timestamp=10**6)], ignore_index=True)
    log = log.drop_duplicates(["user_id", "item_id"])
    options: dict[str, Any] = {"split": "by_time", "test": 0.15}
    with pytest.raises(DataError, match=r"the data frame, by time .*: none of the users of test occurs in train"):
        load_dataset(log, **options)
    assert set(load_dataset(log, on_unknown="keep", **options).test.users) == {5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_unknown": "drop"}, "on_unknown is 'drop'; it can be 'error' or 'keep'"),
        ({"positive_from": "4"}, "positive_from must be a number, got '4'"),
        ({"positive_from": True}, "positive_from must be a number, got True"),
        ({"split": "at_random", "seed": None}, "seed must be a whole number, got None"),
        ({"split": "at_random", "seed": -1}, "seed must be at least 0, got -1"),
        ({"split": "at_random", "seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"split": "at_random", "test": "10%"}, "test must be a share of the rows, such as 0.1, got '10%'"),
        ({"split": "by_time", "validation": True}, "validation must be a share of the rows"),
        ({"split": "by_time", "validation": 10}, "validation=10 and test=0.1 do not fit"),
        ({"validation": 0.2}, "the data frame: validation and test are shares for by_time and at_random"),
        ({"timestamp": "timestamp"}, "does not take timestamp; it takes: source, user, item, .*time"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load_dataset(small_log(), **options)


@pytest.mark.parametrize("source", [None, 5, ["a.csv"], {"user": [1]}, np.zeros((3, 3)), small_log().to_numpy()])
def test_sources_that_cannot_be(source: Any) -> None:
    with pytest.raises(TypeError, match="source must be a name, a path or a pandas DataFrame, got "):
        load_dataset(source)


def test_numbers_of_numpy() -> None:
    log, options = small_log(), {"split": "at_random", "validation": np.float32(0.25), "test": np.float64(0.25)}
    plain = load_dataset(log, split="at_random", validation=0.25, test=0.25, seed=3)
    assert (
        load_dataset(log, seed=np.int64(3), positive_from=np.int8(4), **options).content_hash == plain.content_hash
    )


MEMORY = r"""
import re, sys
from pathlib import Path
from recmodels.datasets import load_dataset

def peak():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
load_dataset(sys.argv[1], split="by_time", on_duplicates="last")
print((peak() - before) / Path(sys.argv[1]).stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told by Linux")
def test_reading_takes_at_most_five_times_the_file(tmp_path: Path) -> None:
    rng, size = np.random.default_rng(0), 3_000_000  # what is needed for any file is little beside it
    log = {
        "userId": rng.integers(0, 140_000, size),
        "movieId": rng.integers(0, 27_000, size),
        "rating": rng.integers(1, 11, size) / 2,
        "timestamp": rng.integers(10**9, 14 * 10**8, size),
    }
    write_csv(pa.table(log), tmp_path / "log.csv")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "log.csv"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0 < float(done.stdout) < 5
