"""Packed files, damaged ones, and files that are no files: read, or refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recmodels.data.interactions import DataError
from recmodels.data.tables import packed, read_table

TEXT = b"user,item\n" + b"".join(b"%d,%d\n" % (k % 97, k) for k in range(3_000))


def zipped(content: bytes, *names: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("log.csv",):
            archive.writestr(name, content)
    return memory.getvalue()


def parquet(content: bytes) -> bytes:
    memory = io.BytesIO()
    pd.read_csv(io.BytesIO(content)).to_parquet(memory)
    return memory.getvalue()


def feather(content: bytes) -> bytes:
    memory = io.BytesIO()
    pd.read_csv(io.BytesIO(content)).to_feather(memory)
    return memory.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".csv.gz": gzip.compress,
    ".csv.bz2": bz2.compress,
    ".zip": zipped,
    ".parquet": parquet,
    ".feather": feather,
    ".csv": bytes,
}


@pytest.mark.parametrize("ending", PACKERS)
def test_every_kind_of_file_holds_the_same_table(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"log{ending}"
    path.write_bytes(PACKERS[ending](TEXT))
    frame = read_table(path)
    assert list(frame.columns) == ["user", "item"]
    assert [int(item) for item in frame["item"]] == list(range(3_000))


def test_upper_case_endings(tmp_path: Path) -> None:
    (tmp_path / "LOG.CSV.GZ").write_bytes(gzip.compress(TEXT))
    assert len(read_table(tmp_path / "LOG.CSV.GZ")) == 3_000


@pytest.mark.parametrize("ending", PACKERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, ending: str) -> None:
    """Bytes changed, cut out or put in: nothing but a table or a DataError comes of it."""
    whole = PACKERS[ending](TEXT)
    path = tmp_path / f"log{ending}"
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(150):
        damaged = bytearray(whole)
        place = int(rng.integers(len(whole)))
        if trial % 3 == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif trial % 3 == 1:
            del damaged[place:]
        else:
            damaged[place:place] = rng.bytes(20)
        path.write_bytes(damaged)
        try:
            read_table(path)
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"log{ending}") and "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize("ending", PACKERS)
def test_something_else_under_a_known_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"log{ending}"
    for content in (b"no archive at all", b"\0" * 5_000, bytes(range(256)) * 40):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^log{ending}"):
            read_table(path)


@pytest.mark.parametrize("name", ["cut.csv.gz", "cut.csv.bz2", "cut.zip"])
def test_what_is_wrong_with_an_archive_is_said(tmp_path: Path, name: str) -> None:
    whole = PACKERS[name.removeprefix("cut")](TEXT)
    for content in (whole[:-12], b"no archive at all"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: the archive is damaged or locked"):
            read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("packer", "kind"), [(".csv.gz", "gzip"), (".csv.bz2", "bzip2"), (".zip", "zip archive or")]
)
def test_packed_files_under_other_names(tmp_path: Path, packer: str, kind: str) -> None:
    for name in ("log.csv", "log.xlsx"):
        (tmp_path / name).write_bytes(PACKERS[packer](TEXT))
        with pytest.raises(DataError, match=rf"^{name}: is no text, and begins like a {kind}"):
            read_table(tmp_path / name)
    (tmp_path / "log.csv").write_bytes(parquet(TEXT))
    with pytest.raises(DataError, match="begins like a Parquet file"):
        read_table(tmp_path / "log.csv")


def test_what_is_read_of_a_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    path.write_bytes(zipped(b"1::2::3::4\n", "ml-1m/README", "ml-1m/ratings.dat", "__MACOSX/ml-1m/ratings.dat"))
    assert read_table(path).to_numpy().tolist() == [["1", "2", "3", "4"]]
    path.write_bytes(zipped(TEXT, "a.csv", "b.csv"))
    with pytest.raises(DataError, match=r"some.zip: holds 2 files, u.data, .* not among them or there twice"):
        read_table(path)
    path.write_bytes(zipped(TEXT, "a/u.data", "b/u.data"))
    with pytest.raises(DataError, match=r"some.zip: holds 2 files, .* there twice; unpack the one to read"):
        read_table(path)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.bz2", ".zip"])
def test_what_was_packed_to_fill_a_memory(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ALWAYS_BYTES", 1 << 20)
    path = tmp_path / f"log{ending}"
    path.write_bytes(PACKERS[ending](b"user,item\n" + b"1,2\n" * 2_000_000))
    with pytest.raises(DataError, match=rf"log{ending}: unpacks to more than 200 times its size"):
        read_table(path)
    path.write_bytes(PACKERS[ending](b"user,item\n" + b"\0" * 8_000_000))
    with pytest.raises(DataError, match=r"more than 200 times|is longer than"):
        read_table(path)


def test_a_parquet_file_of_few_bytes_and_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ALWAYS_BYTES", 1 << 20)
    path = tmp_path / "log.parquet"
    pd.DataFrame({"user": np.zeros(3_000_000, dtype=np.int64)}).to_parquet(path)
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        read_table(path)


def test_pipes_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DataError, match="a regular file is needed, and this is a pipe or a device"):
            read_table(path)
    (tmp_path / "log.parquet").mkdir()
    with pytest.raises(DataError, match="this is a folder"):
        read_table(tmp_path / "log.parquet")
    (tmp_path / "link.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_table(tmp_path / "link.csv")


def test_an_archive_that_begins_before_its_beginning_is_damaged(tmp_path: Path) -> None:
    content = bytearray(zipped(TEXT))
    content[content.rindex(b"PK\x05\x06") + 17] += 1  # where the directory at its end begins
    path = tmp_path / "log.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"log.zip: the archive is damaged"):
        read_table(path)
