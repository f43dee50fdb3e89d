"""Kinds of SQLite files, and what is wrong with a file that should be of one: looked at before it is touched."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BUSY_TIMEOUT = 60.0
"""Seconds that a process waits for another one's write."""

_LOOKS = 100
"""Times that a file which others write to meanwhile is looked at before it is refused."""

_QUIET_LOOKS = 3
"""Times in a row that something must be wrong with a file that nobody writes to before it is refused."""

_PAUSE = 0.03
"""Seconds between two looks: more than the time stamps of files take to move on."""


class SqliteFileError(OSError):
    """A file cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What tells one kind of file from all others.

    Attributes:
        kind: what the file is, for messages, as in "evaluation cache".
        application_id: marks the kind in the file's header (32 bits).
        version: of the schema; kept as SQLite's user_version.
        schema: SQL statements that make an empty file's tables.
        error: the exception for this kind.
    """

    kind: str
    application_id: int
    version: int
    schema: str
    error: type[SqliteFileError]


def problem_of_file(path: Path, file_format: FileFormat) -> str | None:
    """Say what is wrong with a file that is there, if anything is; the file stays as it is.

    Args:
        path: absolute.
        file_format: what the file should be.

    Returns:
        None, or words that go on from the file's name, such as "is an empty file: delete it".
    """
    if not path.is_file():
        return "is not a file: choose another path"
    if path.stat().st_size == 0:
        return "is an empty file: delete it, or choose another path"
    for side in side_files(path):
        if side.is_symlink() or (side.exists() and not side.is_file()):
            return f"has a file {side.name} beside it that is none of SQLite's: move that away"
    # Looking takes no locks, so a file may look damaged only because others write to it just now.
    problem: str | None = None
    last_state = None
    quiet_looks = 0
    for _ in range(_LOOKS):
        state = _state_on_disk(path)
        problem = _look(path, file_format)
        if problem is None:
            return None
        quiet_looks = quiet_looks + 1 if state == last_state else 1
        if quiet_looks == _QUIET_LOOKS:
            break
        last_state = state
        time.sleep(_PAUSE)
    return problem


def explained(error: sqlite3.Error) -> str:
    """Say what an error of SQLite means, in words that go on from the file's name."""
    text = str(error)
    if "disk is full" in text:
        return "cannot grow, the disk is full: free some space; what was stored before is kept"
    if "locked" in text:
        return f"is locked by another process for more than {BUSY_TIMEOUT:.0f} s: end that process first"
    if "readonly" in text:
        return "may not be written: change its permissions, or choose another path"
    if "not a database" in text:
        return "is not a SQLite file: choose another path"
    if "malformed" in text:
        return _damaged(text)
    return f"cannot be used ({text}): check the path and its permissions"


def side_files(path: Path) -> list[Path]:
    """The files that SQLite keeps beside a database: two logs and an index of one."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal", "-shm")]


def set_up(connection: sqlite3.Connection) -> None:
    """Prepare a connection to a file that may come from anywhere.

    Nothing in its schema is run, and a text of damaged bytes is read: what is no UTF-8 becomes characters that no
    text has.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")


def _state_on_disk(path: Path) -> list[tuple[int, int] | None]:
    """What changes when others write; not the index of the log, which our own looking may make."""
    state: list[tuple[int, int] | None] = []
    for one in (path, *side_files(path)[:2]):
        with suppress(FileNotFoundError):
            status = one.stat()
            state.append((status.st_mtime_ns, status.st_size))
            continue
        state.append(None)
    return state


def _look(path: Path, file_format: FileFormat) -> str | None:
    """What is wrong with the file, or None. Only a file that says it is ours is opened with its log."""
    immutable = f"{path.as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(immutable, uri=True)) as connection:
            # Part of the content may be in the log alone; this has SQLite read the header all the same. To
            # read it without SQLite would drop the locks of this process's other connections to the file.
            connection.execute("PRAGMA writable_schema = ON")
            problem = _problem_of_header(connection, file_format)
        if problem is not None:
            return problem
        # Read-only, SQLite reads the log without writing it back on closing.
        target = f"{path.as_uri()}?mode=ro" if _has_log(path) else immutable
        with closing(sqlite3.connect(target, uri=True, timeout=BUSY_TIMEOUT)) as connection:
            set_up(connection)
            return _problem_of_schema(connection, file_format) or _problem_of_pages(connection)
    except sqlite3.Error as error:
        return explained(error)


def _problem_of_header(connection: sqlite3.Connection, file_format: FileFormat) -> str | None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != file_format.application_id:
        return f"is a SQLite file of another kind, no {file_format.kind}: choose another path"
    if version > file_format.version:
        return (
            f"has format {version}, made by a newer gploss (this one reads format {file_format.version}): "
            "upgrade gploss, or choose another path"
        )
    if version < file_format.version:
        return (
            f"has the old format {version} (this gploss reads format {file_format.version}): "
            "move it away, or choose another path"
        )
    return None


def _problem_of_pages(connection: sqlite3.Connection) -> str | None:
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if result == "ok" else _damaged(result)


def _problem_of_schema(connection: sqlite3.Connection, file_format: FileFormat) -> str | None:
    """A view or a trigger could show other content than the tables hold, or run when they are written to."""
    wanted, found = _wanted_schema(file_format.schema), _schema(connection)
    if found == wanted:
        return None
    odd = ", ".join(dict.fromkeys(f"the {kind} {name}" for kind, name, _, _ in sorted(found ^ wanted)))
    return f"does not have the tables of a {file_format.kind} ({odd} should not be so): choose another path"


def _schema(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str, str]]:
    """Kind, name, table and SQL of all that a database holds."""
    rows = connection.execute("SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_master")
    return frozenset((str(kind), str(name), str(table), str(sql)) for kind, name, table, sql in rows)


@cache
def _wanted_schema(statements: str) -> frozenset[tuple[str, str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(statements)
        return _schema(connection)


def _damaged(details: str) -> str:
    details = " ".join(details.split())
    return f"is damaged ({details}): move it away with its -wal and -shm files, or restore a copy"


def _has_log(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return side_files(path)[0].stat().st_size > 0
    return False
