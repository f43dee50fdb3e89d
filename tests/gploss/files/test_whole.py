from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from gploss.files.whole import write_csv_atomic, write_text_atomic


def test_text_and_csv_are_written_as_given(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "note.md", "a loss: σ(x)\n")
    assert (tmp_path / "note.md").read_bytes() == "a loss: σ(x)\n".encode()
    frame = pd.DataFrame({"x": [0.1 + 0.2, None], "formula": ['mul("a", b)', "line\nbreak"]}, index=[7, 7])
    write_csv_atomic(frame, str(tmp_path / "table.csv"))
    back = pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(back, frame.reset_index(drop=True))
    assert "0.30000000000000004" in (tmp_path / "table.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note.md", "table.csv"]


def test_an_old_file_is_replaced_and_a_link_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "summary.csv"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(
        OSError, match=r"cannot write .*summary\.csv: No space left on device; .*unchanged"
    ) as caught:
        write_csv_atomic(pd.DataFrame({"a": [1]}), path)
    assert caught.value.errno == 28
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["summary.csv"]


def test_an_interruption_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.md"
    path.write_text("old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["note.md"]


def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync
    calls: list[int] = []

    def first_only(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(22, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", first_only)
    write_text_atomic(tmp_path / "note.md", "new")
    assert (tmp_path / "note.md").read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*absent does not exist"):
        write_text_atomic(tmp_path / "absent" / "note.md", "x")


def test_a_folder_in_the_place_of_the_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*taken"):
        write_text_atomic(tmp_path / "taken", "x")
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]
