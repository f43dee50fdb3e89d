from __future__ import annotations

import os
import pickle
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gploss.files.sqlite_file import SqliteFile
from gploss.files.sqlite_format import FileFormat, SqliteFileError


class ToyError(SqliteFileError):
    pass


TOY = FileFormat("toy", 0x70747479, 2, "CREATE TABLE numbers (number INTEGER, padding TEXT)", ToyError)


def fill(file: SqliteFile, count: int) -> None:
    with file.writing() as connection:
        connection.executemany(
            "INSERT INTO numbers VALUES (?, ?)", [(number, "x" * 500) for number in range(count)]
        )


def count(file: SqliteFile) -> int:
    with file.reading() as connection:
        result: int = connection.execute("SELECT count(*) FROM numbers").fetchone()[0]
    return result


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()


def other_program_with_log(path: Path) -> None:
    # Killed with its log not yet written back: the log must not be replayed by us.
    source = path.with_name("source")
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE theirs (x)")
    for suffix in ("", "-wal"):
        Path(f"{path}{suffix}").write_bytes(Path(f"{source}{suffix}").read_bytes())
    connection.close()
    source.unlink()


def other_kind(path: Path) -> None:
    SqliteFile(path, FileFormat("pet", 7, 2, "CREATE TABLE pets (x)", ToyError)).close()


def newer(path: Path) -> None:
    SqliteFile(path, FileFormat("toy", TOY.application_id, 3, "CREATE TABLE n (x)", ToyError)).close()


def older(path: Path) -> None:
    SqliteFile(path, FileFormat("toy", TOY.application_id, 1, "CREATE TABLE n (x)", ToyError)).close()


def filled(path: Path) -> bytearray:
    file = SqliteFile(path, TOY)
    fill(file, 200)
    file.close()
    return bytearray(path.read_bytes())


def cut(path: Path) -> None:
    content = filled(path)
    path.write_bytes(content[: len(content) // 2])


def cut_inside_a_page(path: Path) -> None:
    path.write_bytes(filled(path)[:5000])


def overwritten(path: Path) -> None:
    content = filled(path)
    content[8192:12288] = random.Random(0).randbytes(4096)
    path.write_bytes(content)


def overwritten_with_log(path: Path) -> None:
    file = SqliteFile(path, TOY)
    fill(file, 200)
    file.close()
    file = SqliteFile(path, TOY)
    fill(file, 1)
    log = Path(f"{path}-wal").read_bytes()
    content = bytearray(path.read_bytes())
    file.close()
    content[8192:12288] = random.Random(0).randbytes(4096)
    path.write_bytes(content)
    Path(f"{path}-wal").write_bytes(log)


BAD_FILES: dict[Any, str] = {
    other_program: "another kind.*choose another path",
    other_program_with_log: "another kind.*choose another path",
    other_kind: "another kind, no toy.*choose another path",
    newer: "format 3.*newer gploss.*upgrade",
    older: "old format 1.*move it away",
    cut: "damaged.*move it away",
    cut_inside_a_page: "damaged.*move it away",
    overwritten: "damaged.*move it away",
    overwritten_with_log: "damaged.*move it away",
    lambda path: path.write_text("user,item,label\n1,2,1\n"): "not a SQLite file",
    lambda path: path.write_bytes(random.Random(0).randbytes(9000)): "not a SQLite file",
    lambda path: path.write_bytes(b""): "empty file",
    lambda path: path.write_bytes(b"SQLite format 3\0"): "not a SQLite file|damaged",
}


def with_other_schema(statement: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        SqliteFile(path, TOY).close()
        connection = sqlite3.connect(path)
        connection.executescript(statement)
        connection.close()

    return make


OTHER_SCHEMAS = {
    "CREATE VIEW odd AS SELECT 1": r"does not have the tables of a toy \(the view odd",
    "CREATE TRIGGER odd AFTER INSERT ON numbers BEGIN DELETE FROM numbers; END": "the trigger odd",
    "CREATE TABLE odd (x)": "the table odd",
    "CREATE INDEX odd ON numbers (number)": "the index odd",
    "DROP TABLE numbers": "the table numbers",
    "DROP TABLE numbers; CREATE VIEW numbers AS SELECT 1 AS number": "the table numbers, the view numbers",
    "ALTER TABLE numbers ADD COLUMN odd DEFAULT 1": "the table numbers",
    "DROP TABLE numbers; CREATE TABLE numbers (number INTEGER, padding TEXT AS (number))": "the table numbers",
}
BAD_FILES |= {with_other_schema(statement): message for statement, message in OTHER_SCHEMAS.items()}


@pytest.mark.parametrize(("make", "message"), BAD_FILES.items())
def test_a_bad_file_is_refused_and_left_as_it_is(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "a file?#%.db"
    make(path)
    before = folder(path)
    with pytest.raises(ToyError, match=message) as caught:
        SqliteFile(path, TOY)
    assert str(path) in str(caught.value)
    after = folder(path)
    # The index of a log is no data: SQLite makes it anew each time that a log of our own file is read.
    after.pop(f"{path.name}-shm", None)
    assert after == before


def test_a_trigger_that_lies_in_the_log_is_refused(tmp_path: Path) -> None:
    path, copy = tmp_path / "toy.db", tmp_path / "copy.db"
    SqliteFile(path, TOY).close()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER odd AFTER INSERT ON numbers BEGIN DELETE FROM numbers; END")
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    connection.close()
    with pytest.raises(ToyError, match="the trigger odd"):
        SqliteFile(copy, TOY)


def test_errors_are_those_that_programs_tell_in_a_line() -> None:
    assert issubclass(SqliteFileError, OSError)
    assert str(ToyError("the toy x is empty")) == "the toy x is empty"


def test_a_new_file_needs_no_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "toy.db"
    SqliteFile(path, TOY).close()
    assert [file.name for file in path.parent.iterdir()] == ["toy.db"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    file = SqliteFile(tmp_path / "toy.db", TOY)
    fill(file, 3)
    assert count(file) == 3


def test_a_file_killed_while_its_log_was_written_back_is_whole(tmp_path: Path) -> None:
    path, copy = tmp_path / "toy.db", tmp_path / "copy.db"
    file = SqliteFile(path, TOY)
    old = path.read_bytes()
    fill(file, 200)
    Path(f"{copy}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    file.close()
    # The first page is written back, and counts more pages than the file has as yet.
    copy.write_bytes(path.read_bytes()[:4096] + old[4096:])
    assert count(SqliteFile(copy, TOY)) == 200


def test_another_process_may_make_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.db"
    link = os.link

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        other = SqliteFile(path, TOY)
        fill(other, 5)
        other.close()
        link(*arguments)

    monkeypatch.setattr(os, "link", overtaken)
    assert count(SqliteFile(path, TOY)) == 5


def test_the_log_of_a_deleted_file_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "toy.db"
    Path(f"{path}-wal").write_bytes(b"old log")
    with pytest.raises(ToyError, match="-wal of a deleted one does: delete that too"):
        SqliteFile(path, TOY)
    assert folder(path) == {"toy.db-wal": b"old log"}


@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_beside_a_file_is_not_waited_for(tmp_path: Path, end: str, make: Callable[[Path], None]) -> None:
    SqliteFile(tmp_path / "toy.db", TOY).close()
    make(tmp_path / f"toy.db{end}")
    with pytest.raises(ToyError, match=f"has a file toy.db{end} beside it that is none of SQLite's"):
        SqliteFile(tmp_path / "toy.db", TOY)


def test_links_to_a_file_are_followed_and_to_nowhere_refused(tmp_path: Path) -> None:
    SqliteFile(tmp_path / "toy.db", TOY).close()
    (tmp_path / "link.db").symlink_to("toy.db")
    SqliteFile(tmp_path / "link.db", TOY).close()
    (tmp_path / "circle.db").symlink_to("circle.db")
    (tmp_path / "nowhere.db").symlink_to("absent.db")
    (tmp_path / "endless.db").symlink_to("/dev/zero")
    for name in ("circle", "nowhere", "endless"):
        with pytest.raises(ToyError, match=f"{name}.db is not a file: choose another path"):
            SqliteFile(tmp_path / f"{name}.db", TOY)


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    SqliteFile(os.fsencode(tmp_path / "toy").decode() + os.fsdecode(b"\xff"), TOY).close()
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [b"toy\xff"]
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ToyError, match=r"cannot be opened .*choose another path"):
            SqliteFile(tmp_path / name, TOY)


@pytest.mark.parametrize("path", ["folder", "plain/toy.db"])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("no folder")
    with pytest.raises(ToyError, match="choose another path"):
        SqliteFile(tmp_path / path, TOY)


def test_an_open_file_can_be_opened_again(tmp_path: Path) -> None:
    first = SqliteFile(tmp_path / "toy.db", TOY)
    fill(first, 3)
    second = SqliteFile(tmp_path / "toy.db", TOY)
    fill(second, 4)
    assert count(first) == count(second) == 7


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "toy.db", TOY)
    fill(file, 3)
    with pytest.raises(KeyboardInterrupt), file.writing() as connection:
        connection.execute("DELETE FROM numbers")
        raise KeyboardInterrupt
    assert count(file) == 3
    with pytest.raises(ToyError, match="no such table"), file.writing() as connection:
        connection.execute("DELETE FROM absent")


def test_threads_take_turns(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "toy.db", TOY)

    def work() -> None:
        for _ in range(20):
            fill(file, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(file) == 160


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "toy.db", TOY)
    file.close()
    file.close()
    with pytest.raises(ToyError, match="is closed"):
        count(file)


def test_a_file_pickles_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = SqliteFile("toy.db", TOY)
    fill(file, 3)
    pickled = pickle.dumps(file)
    monkeypatch.chdir("/")
    assert count(pickle.loads(pickled)) == 3  # noqa: S301


def test_memory_cannot_be_sent_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = SqliteFile(":memory:", TOY)
    fill(file, 3)
    assert count(file) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ToyError, match="give it a file"):
        pickle.dumps(file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_memory_stays_with_its_process() -> None:
    file = SqliteFile(":memory:", TOY)
    fill(file, 3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            count(file)
        except ToyError as error:
            status = int("cannot be used in another process" not in str(error))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert count(file) == 3


def test_a_lock_that_lasts_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gploss.files.sqlite_file.BUSY_TIMEOUT", 0.01)
    first, second = (SqliteFile(tmp_path / "toy.db", TOY) for _ in range(2))
    with pytest.raises(ToyError, match="locked by another process"), first.writing(), second.writing():
        pass
