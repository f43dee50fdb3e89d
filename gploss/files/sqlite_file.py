"""A SQLite file of a known kind: looked at before it is touched, written in whole transactions.

Shared by the cache and the checkpoint. WAL needs a local disk; network file systems do not carry it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gploss.arguments import shown

BUSY_TIMEOUT = 60.0
"""Seconds that a process waits for another one's write."""

_LOOKS = 100
"""Times that a file which others write to meanwhile is looked at before it is refused."""

_QUIET_LOOKS = 3
"""Times in a row that something must be wrong with a file that nobody writes to before it is refused."""

_PAUSE = 0.03
"""Seconds between two looks: more than the time stamps of files take to move on."""

_lock = threading.RLock()
"""Held while any connection is used: threads take turns, and no process forks meanwhile."""

_open_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
"""Files with a connection, which must be closed before a fork."""


class SqliteFileError(Exception):
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
                raise self.error(self._problem(error)) from error

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
            if self.in_memory:
                connection.executescript(self._format.schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_or_check(self) -> None:
        try:
            if self.path.exists():
                self._check()
            else:
                self._make()
        except sqlite3.Error as error:
            raise self.error(self._problem(error)) from error
        except OSError as error:
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
            for leftover in (new, *_side_files(new)):
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
        leftovers = [str(side) for side in _side_files(self.path)[:2] if side.exists()]
        if leftovers and not self.path.exists():
            raise self.error(
                f"does not exist, but {' and '.join(leftovers)} of a deleted one does: delete that too, "
                "or choose another path"
            )

    def _check(self) -> None:
        """Raises unless the file is whole and of this format; changes nothing."""
        if not self.path.is_file():
            raise self.error("is not a file: choose another path")
        if self.path.stat().st_size == 0:
            raise self.error("is an empty file: delete it, or choose another path")
        # Looking takes no locks, so a file may look damaged only because others write to it just now.
        problem: str | None = None
        last_state = None
        quiet_looks = 0
        for _ in range(_LOOKS):
            state = self._state_on_disk()
            problem = self._look()
            if problem is None:
                return
            quiet_looks = quiet_looks + 1 if state == last_state else 1
            if quiet_looks == _QUIET_LOOKS:
                break
            last_state = state
            time.sleep(_PAUSE)
        raise self.error(problem or "cannot be read")

    def _state_on_disk(self) -> list[tuple[int, int] | None]:
        """What changes when others write; not the index of the log, which our own looking may make."""
        state: list[tuple[int, int] | None] = []
        for path in (self.path, *_side_files(self.path)[:2]):
            with suppress(FileNotFoundError):
                status = path.stat()
                state.append((status.st_mtime_ns, status.st_size))
                continue
            state.append(None)
        return state

    def _look(self) -> str | None:
        """What is wrong with the file, or None. Only a file that says it is ours is opened with its log."""
        immutable = f"{self.path.as_uri()}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(immutable, uri=True)) as connection:
                # Part of the content may be in the log alone; this has SQLite read the header all the same. To
                # read it without SQLite would drop the locks of this process's other connections to the file.
                connection.execute("PRAGMA writable_schema = ON")
                problem = self._problem_of_header(connection)
            if problem is not None:
                return problem
            # Read-only, SQLite reads the log without writing it back on closing.
            target = f"{self.path.as_uri()}?mode=ro" if _has_log(self.path) else immutable
            with closing(sqlite3.connect(target, uri=True, timeout=BUSY_TIMEOUT)) as connection:
                return _problem_of_pages(connection)
        except sqlite3.Error as error:
            return self._problem(error)

    def _problem_of_header(self, connection: sqlite3.Connection) -> str | None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id != self._format.application_id:
            return f"is a SQLite file of another kind, no {self._format.kind}: choose another path"
        if version > self._format.version:
            return (
                f"has format {version}, made by a newer gploss (this one reads format {self._format.version}): "
                "upgrade gploss, or choose another path"
            )
        if version < self._format.version:
            return (
                f"has the old format {version} (this gploss reads format {self._format.version}): "
                "move it away, or choose another path"
            )
        return None

    def _problem(self, error: sqlite3.Error) -> str:
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


def _problem_of_pages(connection: sqlite3.Connection) -> str | None:
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if result == "ok" else _damaged(result)


def _damaged(details: str) -> str:
    details = " ".join(details.split())
    return f"is damaged ({details}): move it away with its -wal and -shm files, or restore a copy"


def _side_files(path: Path) -> list[Path]:
    """The files that SQLite keeps beside a database: two logs and an index of one."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal", "-shm")]


def _has_log(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return _side_files(path)[0].stat().st_size > 0
    return False


def _before_fork() -> None:
    _lock.acquire()
    for file in list(_open_files):
        file.before_fork()


if hasattr(os, "register_at_fork"):
    # The thread that forks goes on in both processes, and holds the lock in both.
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
