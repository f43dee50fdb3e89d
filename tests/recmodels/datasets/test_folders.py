"""Folders that hold a table, or a split in three tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from recmodels.data.interactions import DataError
from recmodels.datasets import load_dataset
from tests.recmodels.datasets.logs import small_log, write_parts


def test_folder_with_one_table(tmp_path: Path) -> None:
    (tmp_path / "log.item").write_text("not a table of interactions")
    with pytest.raises(DataError, match=r"exactly one table is needed .* found: none; give the file's path"):
        load_dataset(tmp_path)
    small_log().to_csv(tmp_path / "a.csv", index=False)
    assert load_dataset(tmp_path).name == "a.csv, leave one out"
    small_log().to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match=r"found: a.csv, b.csv"):
        load_dataset(tmp_path)
    small_log().to_csv(tmp_path / "u.data", index=False, header=False, sep="\t")
    assert load_dataset(tmp_path).name == "u.data, leave one out"


def test_folder_that_holds_a_split(tmp_path: Path) -> None:
    write_parts(tmp_path)
    split = load_dataset(tmp_path)
    assert [len(part) for part in split.parts().values()] == [3, 2, 3]
    assert (split.n_users, split.n_items) == (3, 5)
    assert split.test.items.tolist() == [3, 3, 4]
    assert split.describe()["test"]["users_not_in_train"] == 1
    for option in ({"split": "by_time"}, {"test": 0.2}, {"on_duplicates": "last"}):
        with pytest.raises(DataError, match="holds a split already, so it takes neither split nor on_duplicates"):
            load_dataset(tmp_path, **option)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test": "uid\tiid\tlabel\n1\t3\t1\n"},
            "user 1, item 3 at mine.validation.csv line 2 and mine.test.csv line 2",
        ),
        ({"test": "uid\tiid\tlabel\n1\t4\t7\n"}, "mine.test.csv line 2, column 'label': the label is 7"),
        (
            {"test": "uid\tiid\tstars\n1\t4\t1\n"},
            "mine.test.csv: the columns are uid, iid, stars; the train part has",
        ),
        ({"test": "uid\tiid\tlabel\n"}, "mine.test.csv: there are no rows below the header"),
        ({"test": "uid\tiid\tlabel\n1\t4\t1\n"}, "as published: the test part .1 rows. holds no negative row"),
    ],
)
def test_splits_with_faults(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    write_parts(tmp_path, changes)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_splits_with_a_part_too_few_or_too_many(tmp_path: Path) -> None:
    write_parts(tmp_path)
    (tmp_path / "other.test.csv").write_text("uid\tiid\tlabel\n")
    with pytest.raises(DataError, match="more than one file ends in"):
        load_dataset(tmp_path)
    (tmp_path / "other.test.csv").unlink()
    (tmp_path / "mine.test.csv").unlink()
    with pytest.raises(DataError, match=r"holds a part of a split, but no \*.test.csv"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "names", ["train.csv validation.csv test.csv", "x.train.tsv.gz x.valid.csv.bz2 x.test.csv"]
)
def test_names_and_packing_of_parts(tmp_path: Path, names: str) -> None:
    write_parts(tmp_path)
    whole = load_dataset(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for part, name in zip(("train", "validation", "test"), names.split(), strict=True):
        rows = pd.read_csv(tmp_path / f"mine.{part}.csv", sep="\t")
        rows.to_csv(other / name, sep="\t", index=False)
    assert load_dataset(other).content_hash == whole.content_hash


def test_parts_without_a_header_or_with_one_in_train_alone(tmp_path: Path) -> None:
    """As Criteo's and Avazu's small samples come."""
    write_parts(tmp_path)
    whole = load_dataset(tmp_path)
    for part in ("train", "validation", "test"):
        path = tmp_path / f"mine.{part}.csv"
        if part != "train":
            path.write_text(path.read_text().split("\n", 1)[1])
    assert load_dataset(tmp_path, columns=["uid", "iid", "label"]).content_hash == whole.content_hash
    with pytest.raises(DataError, match=r"^mine.validation.csv, line 1: 3 numbers"):
        load_dataset(tmp_path)


def test_parts_as_parquet_name_rows(tmp_path: Path) -> None:
    write_parts(tmp_path)
    whole = load_dataset(tmp_path)
    for part in ("train", "validation", "test"):
        path = tmp_path / f"mine.{part}.csv"
        rows = pd.read_csv(path, sep="\t")
        rows.to_parquet(path.with_suffix(".parquet"))
        path.unlink()
    assert load_dataset(tmp_path).content_hash == whole.content_hash
    rows["label"] = [0, 1, 7]
    rows.to_parquet(tmp_path / "mine.test.parquet")
    with pytest.raises(DataError, match=r"mine.test.parquet row 2, column 'label': the label is 7"):
        load_dataset(tmp_path)
    rows.assign(uid=rows["uid"].astype(str), label=1).to_parquet(tmp_path / "mine.test.parquet")
    with pytest.raises(DataError, match=r"mine.test.parquet row 0, column 'uid': '1' is text, unlike"):
        load_dataset(tmp_path)


HEADER = "uid\tiid\tlabel\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test": f"{HEADER}1\t4\t1\nu9\t4\t0\n"},
            "mine.test.csv line 3: user 'u9' is text, and in train each is a whole number; write ids alike in all",
        ),
        (
            {"validation": f"{HEADER}1.0\t3\t1\n2.0\t3\t0\n"},
            "mine.test.csv line 2|mine.validation.csv line 2.* '1.0' (is text|also occurs without '.0')",
        ),
        ({"test": f"{HEADER}1\ti4\t1\n2\t4\t0\n"}, "mine.test.csv line 2: item 'i4' is text"),
        (
            {"train": f"{HEADER}ann\t1\t1\nbob\t2\t0\n"},
            "mine.validation.csv line 2: user '1' is a whole number, and in train each is text",
        ),
        (
            {"test": f"{HEADER}7\t4\t1\n8\t4\t0\n"},
            "none of the users of test occurs in train; write ids alike in all parts, or say on_unknown='keep'",
        ),
    ],
)
def test_ids_that_train_does_not_know(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    write_parts(tmp_path, changes)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)
    if "1.0" not in "".join(changes.values()):  # twins are refused in any case
        assert load_dataset(tmp_path, on_unknown="keep").n_users >= 2


def test_a_part_with_whole_numbers_among_texts_of_train_is_fine(tmp_path: Path) -> None:
    """Books' numbers (ISBN) are digits with or without an X."""
    train = f"{HEADER}ann\t155404295X\t1\nann\t1554042950\t0\nbob\t155404295X\t1\n"
    validation, test = (f"{HEADER}ann\t{k}\t1\nbob\t{k}\t0\n" for k in ("1554042968", "1554042976"))
    write_parts(tmp_path, {"train": train, "validation": validation, "test": test})
    assert load_dataset(tmp_path).item_ids.tolist() == ["1554042950", "155404295X", "1554042968", "1554042976"]
