"""Files of Arrow and Parquet: names, types and gaps as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from recmodels.data.frames import interactions_from_frame
from recmodels.data.interactions import DataError
from recmodels.data.tables import read_table

TABLE = pa.table(
    {
        "user": pa.array(["ann", "bob", "ann", "NA"]).dictionary_encode(),
        "item": pa.array([b"x1", b"x1", b"x2", b"x3"]),
        "rating": pa.array([5, 1, 4, 2], pa.int8()),
        "timestamp": pa.array([4, 3, 2, 1], pa.timestamp("ms", tz="Asia/Tokyo")),
        "tags": pa.array([["a"], [], None, ["b"]]),
    }
)


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather"])
def test_types_are_kept_and_text_is_text(tmp_path: Path, ending: str) -> None:
    frame = read_table(write(tmp_path / f"log{ending}", TABLE))
    interactions, ids = interactions_from_frame(frame)
    assert ids.users.tolist() == ["NA", "ann", "bob"] and ids.items.tolist() == ["x1", "x2", "x3"]
    assert interactions.labels.tolist() == [1, 0, 1, 0]
    assert interactions.timestamps is not None and interactions.timestamps.tolist() == [4e6, 3e6, 2e6, 1e6]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_whole_numbers_with_a_gap_stay_exact(tmp_path: Path, ending: str) -> None:
    """pandas makes floats of them, which take 2^53 + 1 for 2^53."""
    large = [2**53, 2**53 + 1, None]
    table = pa.table({"user": pa.array(large, pa.int64()), "item": [1, 1, 1], "label": [0, 1, 1]})
    frame = read_table(write(tmp_path / f"log{ending}", table))
    with pytest.raises(DataError, match=r"^the table, row 2, column 'user': the id is empty or NaN$"):
        interactions_from_frame(frame)
    assert interactions_from_frame(frame.iloc[:2])[1].users.tolist() == large[:2]


def test_an_index_of_pandas_is_a_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item": [1, 2], "label": [0, 1]}, index=pd.Index(["a", "b"], name="user"))
    frame.to_parquet(tmp_path / "log.parquet")
    assert read_table(tmp_path / "log.parquet")["user"].tolist() == ["a", "b"]


def test_columns_that_cannot_be_what_they_are_named_as(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path / "log.parquet", TABLE))
    with pytest.raises(DataError, match=r"row 0, column 'tags': .* is neither a number nor text"):
        interactions_from_frame(frame, user="tags")
    bytes_ = pa.table({"user": pa.array([b"\xff", b"\xfe"]), "item": [1, 2], "label": [0, 1]})
    with pytest.raises(DataError, match=r"column 'user': b'.xff' is neither a number nor text"):
        interactions_from_frame(read_table(write(tmp_path / "bytes.parquet", bytes_)))


def test_what_is_for_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", TABLE)
    with pytest.raises(DataError, match=r"log.parquet: has its own names and types"):
        read_table(path, separator=",")
    with pytest.raises(DataError, match="there are no rows"):
        read_table(write(tmp_path / "none.parquet", TABLE.slice(0, 0)))
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "nowhere.parquet")


def test_stars_as_numbers_of_any_type(tmp_path: Path) -> None:
    for number_type in (pa.decimal128(21, 2), pa.float16(), pa.uint64(), pa.string()):
        stars = pa.array(np.array([5, 1], dtype=np.float16)) if number_type == pa.float16() else pa.array([5, 1])
        table = pa.table({"user": ["a", "b"], "item": [1, 2], "rating": stars.cast(number_type)})
        frame = read_table(write(tmp_path / "log.parquet", table))
        assert interactions_from_frame(frame)[0].labels.tolist() == [1, 0], number_type


def test_offsets_that_lead_out_of_a_file_are_never_followed(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 3, 2**30, 6], np.int32))
    users = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"annbob")])
    path = tmp_path / "log.arrow"
    with ipc.new_file(path, pa.schema({"user": pa.string(), "item": pa.int64()})) as file:
        file.write_batch(pa.record_batch([users, pa.array([1, 2, 3])], names=["user", "item"]))
    with pytest.raises(DataError, match=r"log\.arrow: is no Arrow file, or damaged"):
        read_table(path)
