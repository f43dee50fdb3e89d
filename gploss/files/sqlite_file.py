"""A SQLite file of a known kind: made whole, written in whole transactions, safe in threads and forks.

Shared by the cache and the checkpoint. WAL needs a local disk; network file systems do not carry it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gploss.arguments import shown
from gploss.files.sqlite_format import (
    BUSY_TIMEOUT,
    FileFormat,
    SqliteFileError,
    explained,
    problem_of_file,
    set_up,
    side_files,
)

_lock = threading.RLock()
"""Held while any connection is used: threads take turns, and no process forks meanwhile."""

_open_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
"""Files with a connection, which must be closed before a fork."""


class SqliteFile:
    """One SQLite file (or ":memory:"), made if absent, checked if present, with a connection a process.

    A file that is damaged, foreign, or of another format version is refused and left as it is, byte for byte,
    with no side files. Threads of a process take turns. Before a process forks, its connections are closed; it
    and the child each open their own when they next need one.

    Args:
        path: the file, or ":memory:" for a database that lives and dies with this object.
        file_format: what the file must be.

    Raises:
        TypeError: if the path is none.
        SqliteFileError: (of the format's own kind) if the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], file_format: FileFormat) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"the path of the {file_format.kind} must be text or a Path, got {shown(path)}")
        self.in_memory = str(path) == ":memory:"
        # Absolute, so that another process finds it from another working directory.
        self.path = Path(path) if self.in_memory else Path(path).absolute()
        self._format = file_format
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._process = os.getpid()
        with _lock:
            if not self.in_memory:
                self._make_or_check()
            with self.reading():
                pass

    def __reduce__(self) -> tuple[type[SqliteFile], tuple[Path, FileFormat]]:
        if self.in_memory:
            raise self.error("lives in memory and cannot be sent to another process: give it a file instead")
        return type(self), (self.path, self._format)

    def error(self, problem: str) -> SqliteFileError:
        """The format's exception, with a message that names the file."""
        return self._format.error(f"the {self._format.kind} {self.path} {problem}")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from, one thread at a time; SQLite's errors come out as the format's own."""
        with _lock:
            try:
                yield self._open_connection()
            except sqlite3.Error as error:
                raise self.error(explained(error)) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one transaction: committed at the end, rolled back on any exception."""
        with self.reading() as connection:
            try:
                # Takes the write lock first: after a plain BEGIN, to read and then write can lose to another.
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the connection for good; closing twice is fine."""
        with _lock:
            self._closed = True
            self._disconnect()

    def before_fork(self) -> None:
        """Closes the connection until it is needed again.

        SQLite keeps a table of a process's locks. A forked child that inherited it would take the parent's locks
        for its own, and its writes could be lost: closing the connection empties the table.
        """
        if not self.in_memory:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _open_connection(self) -> sqlite3.Connection:
        if self._closed:
            raise self.error("is closed: open it again")
        if self.in_memory and self._process != os.getpid():
            raise self.error("lives in memory and cannot be used in another process: give it a file instead")
        if self._connection is None:
            self._connection = self._connect()
            self._process = os.getpid()
            _open_files.add(self)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        target = ":memory:" if self.in_memory else f"{self.path.as_uri()}?mode=rw"
        connection = sqlite3.connect(
            target,
            uri=not self.in_memory,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # With WAL this survives kill -9; after a power cut the last transactions may be missing, whole.
            connection.execute("PRAGMA synchronous = NORMAL")
            set_up(connection)
            if self.in_memory:
                connection.executescript(self._format.schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_or_check(self) -> None:
        try:
            os.fsencode(self.path)
            if self.path.exists():
                self._check()
            else:
                self._make()
        except sqlite3.Error as error:
            raise self.error(explained(error)) from error
        except SqliteFileError:
            raise
        except (OSError, ValueError) as error:  # the latter of names that no file can have
            raise self.error(f"cannot be opened ({error}): choose another path") from error

    def _make(self) -> None:
        """Makes the file whole under another name, then links it: nobody ever sees half a file."""
        self._refuse_leftovers()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.new")
        try:
            with closing(sqlite3.connect(new, isolation_level=None)) as connection:
                # Written to the disk once, at the end: nothing is lost if this is cut short.
                connection.execute("PRAGMA synchronous = OFF")
                connection.executescript(self._format.schema)
                connection.execute(f"PRAGMA application_id = {self._format.application_id}")
                connection.execute(f"PRAGMA user_version = {self._format.version}")
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise self.error("lies on a file system without SQLite's WAL: choose a path on a local disk")
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            self._link(new)
        finally:
            for leftover in (new, *side_files(new)):
                leftover.unlink(missing_ok=True)

    def _link(self, new: Path) -> None:
        with suppress(FileExistsError):
            try:
                os.link(new, self.path)
                return
            except FileExistsError:
                raise
            except OSError:
                # A file system without hard links: exclusive creation still lets only one process make it.
                with self.path.open("xb") as file:
                    file.write(new.read_bytes())
                return
        # Another process made it meanwhile.
        self._check()

    def _refuse_leftovers(self) -> None:
        """SQLite would replay a deleted file's log into the new file, and so damage it."""
        leftovers = [str(side) for side in side_files(self.path)[:2] if side.exists()]
        if leftovers and not self.path.exists():
            raise self.error(
                f"does not exist, but {' and '.join(leftovers)} of a deleted one does: delete that too, "
                "or choose another path"
            )

    def _check(self) -> None:
        """Raises unless the file is whole and of this format; changes nothing."""
        problem = problem_of_file(self.path, self._format)
        if problem is not None:
            raise self.error(problem)


def _before_fork() -> None:
    _lock.acquire()
    for file in list(_open_files):
        file.before_fork()


if hasattr(os, "register_at_fork"):
    # The thread that forks goes on in both processes, and holds the lock in both.
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
