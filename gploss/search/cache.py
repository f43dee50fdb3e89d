"""Evaluated losses on disk: programs and gradient fingerprints -> raw metrics per epoch.

An entry is found only under a key equal to the one that it was stored under. Metrics are stored, not rewards. Each
row has a checksum: one that has changed since it was stored is named, counted, and left out.
"""

from __future__ import annotations

import json
import math
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from gploss.arguments import shown
from gploss.files.plain import digest
from gploss.files.rows import Value, intact, sealed
from gploss.files.sqlite_file import SqliteFile
from gploss.files.sqlite_format import FileFormat, SqliteFileError
from gploss.search.evaluation import EvaluationKey, Status, metrics_from_json, metrics_to_json


class CacheError(SqliteFileError):
    """A cache file cannot be used; the message names it and says what to do."""


_FORMAT = FileFormat(
    kind="evaluation cache",
    application_id=0x67704C43,  # "gpLC"
    version=2,
    schema="""
        CREATE TABLE keys (
            hash TEXT PRIMARY KEY,
            canonical TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE entries (
            key TEXT NOT NULL REFERENCES keys (hash),
            program TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            status TEXT NOT NULL,
            reason TEXT,
            epochs INTEGER NOT NULL,
            complete INTEGER NOT NULL,
            metrics TEXT NOT NULL,
            scale REAL,
            seconds REAL NOT NULL,
            checksum TEXT NOT NULL,
            PRIMARY KEY (key, program)
        );
        CREATE INDEX entries_by_fingerprint ON entries (key, fingerprint);
    """,
    error=CacheError,
)

_COLUMNS = "key, program, fingerprint, status, reason, epochs, complete, metrics, scale, seconds, checksum"

_FIND = f"""
    SELECT canonical, {_COLUMNS} FROM entries LEFT JOIN keys ON keys.hash = entries.key
    WHERE entries.key = :key AND (complete OR epochs >= :epochs) AND
"""

# Without an index, since a damaged one hides entries. A lookup may miss one for that reason: it is trained again.
_LIST = f"""
    SELECT entries.rowid, canonical, {_COLUMNS} FROM entries NOT INDEXED LEFT JOIN keys ON keys.hash = entries.key
    WHERE entries.key = :key AND entries.rowid > :last ORDER BY entries.rowid LIMIT :page
"""

_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_UPDATE = f"UPDATE entries SET ({_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE rowid = ?"

_PAGE = 1000
"""Entries that `Cache.entries` holds in memory at a time."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One trained program.

    Attributes:
        program: canonical text of the expression.
        fingerprint: hash of its gradient on the fixed probes.
        status: "trained" or "diverged".
        reason: how it diverged; None where it did not.
        epochs: the number of epochs that the run asked for.
        complete: whether the run ended by itself (stopped early, or diverged), so that asking for more epochs
            would have given the same.
        metrics: raw values by metric name, one an epoch: `epochs` of them, or fewer where complete. A
            diverged entry holds those of the epochs before it diverged.
        scale: what the loss was divided by; None where it was not.
        seconds: training time.

    Raises:
        ValueError: if a field makes no sense.
    """

    program: str
    fingerprint: str
    status: str
    reason: str | None
    epochs: int
    complete: bool
    metrics: dict[str, list[float]] = field(default_factory=dict)
    scale: float | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.status not in (Status.TRAINED, Status.DIVERGED):
            raise ValueError(f"only trained and diverged candidates are cached, not {self.status!r}")
        if not self.program:
            raise ValueError("a cache entry needs the text of its program")
        if self.epochs < 1:
            raise ValueError(f"a cache entry has at least 1 epoch, got {self.epochs!r}")
        for name, number in (("scale", self.scale), ("seconds", self.seconds)):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"a cache entry's {name} must be finite, got {number!r}")
        for name, values in self.metrics.items():
            if len(values) > self.epochs or (not self.complete and len(values) < self.epochs):
                kind = "complete" if self.complete else "not complete"
                raise ValueError(
                    f"a cache entry of {self.epochs} epochs that is {kind} has {len(values)} values of {name!r}"
                )
        object.__setattr__(self, "status", Status(self.status))

    def serves(self, epochs: int) -> bool:
        """Whether the entry tells what a run of this many epochs would give."""
        return self.complete or epochs <= self.epochs

    def outdoes(self, other: CacheEntry) -> bool:
        """Whether the entry says more than another one of its program: it ended by itself, or trained longer."""
        return not other.complete and (self.complete or self.epochs > other.epochs)

    def truncated(self, epochs: int) -> CacheEntry:
        """What a run of only this many epochs would have given, but for its seconds.

        A candidate that diverged later than that counts as trained.

        Raises:
            ValueError: if the entry does not serve so many epochs.
        """
        if epochs < 1 or not self.serves(epochs):
            raise ValueError(f"a cache entry of {self.epochs} epochs cannot serve {epochs}")
        if epochs >= self.epochs:
            return self
        metrics = {name: values[:epochs] for name, values in self.metrics.items()}
        ended_before = not metrics or any(len(values) < epochs for values in metrics.values())
        if self.complete and ended_before:
            return replace(self, metrics=metrics, epochs=epochs)
        return replace(self, metrics=metrics, epochs=epochs, complete=False, status=Status.TRAINED, reason=None)


class Cache:
    """Entries by key and program in one SQLite file, shared by any number of processes.

    Pickles as its path: the other process opens the file again. A forked process is safe too.

    Args:
        path: the file, made if absent; or ":memory:" for a cache that lives and dies with this object.

    Attributes:
        damaged: the programs of entries that were found damaged, and left out; each was warned of.

    Raises:
        CacheError: if the file is damaged, foreign, or of another format version; it is left as it is. The
            methods raise it when the disk is full (what was stored before is kept) or the file unusable.

    Example:
        >>> key = EvaluationKey({"data": "synthetic", "model": "mf"})
        >>> entry = CacheEntry("neg(pred)", "0f", "trained", None, 2, False, {"auc": [0.6, 0.7]})
        >>> with Cache(":memory:") as cache:
        ...     cache.store(key, [entry])
        ...     cache.lookup(key, "neg(pred)", epochs=1) == entry
        True
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = SqliteFile(path, _FORMAT)
        self.damaged: set[str] = set()

    @property
    def path(self) -> Path:
        """The file, as an absolute path (":memory:" has none)."""
        return self._file.path

    def lookup(self, key: EvaluationKey, program: str, epochs: int) -> CacheEntry | None:
        """The entry of exactly this program under this key, if it serves so many epochs.

        It may hold more epochs than asked for: see `CacheEntry.truncated`.

        Raises:
            CacheError: if the file cannot be read, or holds another key with this key's hash.
        """
        return self._find(key, "program = :wanted", program, epochs)

    def lookup_fingerprint(self, key: EvaluationKey, fingerprint: str, epochs: int) -> CacheEntry | None:
        """The entry stored first, of those with this fingerprint under this key that serve so many epochs.

        Raises:
            CacheError: as for `lookup`.
        """
        return self._find(key, "fingerprint = :wanted", fingerprint, epochs)

    def store(self, key: EvaluationKey, entries: Sequence[CacheEntry]) -> None:
        """Stores all the entries, or on any error none, in one transaction.

        A longer run of a program replaces a shorter one, and a complete run one that is not; never the reverse.

        Raises:
            CacheError: if they cannot be written; what was stored before is kept.
        """
        if not entries:
            return
        with self._file.writing() as connection:
            self._store_key(connection, key)
            for entry in entries:
                row = _to_row(key, entry)
                old = connection.execute(
                    f"SELECT rowid, {_COLUMNS} FROM entries WHERE key = ? AND program = ?", row[:2]
                )
                place, *values = old.fetchone() or (None,)
                if place is None:
                    connection.execute(_INSERT, row)
                elif (known := _to_entry(values)) is None or entry.outdoes(known):
                    connection.execute(_UPDATE, (*row, place))

    def entries(self, key: EvaluationKey) -> Iterator[CacheEntry]:
        """All entries under a key, in the order in which they came; those stored meanwhile may be among them.

        Raises:
            CacheError: as for `lookup`.
        """
        last = -1
        while True:
            with self._file.reading() as connection:
                rows = connection.execute(_LIST, {"key": key.hash, "last": last, "page": _PAGE}).fetchall()
            for _, *row in rows:
                entry = self._from_row(key, row)
                if entry is not None:
                    yield entry
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, key: EvaluationKey, condition: str, wanted: str, epochs: int) -> CacheEntry | None:
        asked = {"key": key.hash, "wanted": wanted, "epochs": epochs}
        with self._file.reading() as connection:
            for row in connection.execute(f"{_FIND} {condition} ORDER BY entries.rowid", asked):
                entry = self._from_row(key, row)
                # A damaged index may lead to another row than was asked for.
                if entry is not None and wanted in (entry.program, entry.fingerprint) and entry.serves(epochs):
                    return entry
        return None

    def _from_row(self, key: EvaluationKey, row: Sequence[Any]) -> CacheEntry | None:
        """The entry in a row; None, with a warning, where the row is damaged."""
        canonical, *values = row
        self._refuse_collision(key, canonical)
        entry = _to_entry(values)
        if entry is None and values[1] not in self.damaged:
            self.damaged.add(str(values[1]))
            warnings.warn(
                f"the {_FORMAT.kind} {self.path} holds a damaged entry of {shown(values[1])}: it is left out, and "
                f"trained again where it is needed ({len(self.damaged)} so far)",
                stacklevel=4,
            )
        return entry

    def _store_key(self, connection: sqlite3.Connection, key: EvaluationKey) -> None:
        """Store what the key's hash stands for, for people; a damaged text is replaced."""
        found = connection.execute("SELECT canonical FROM keys WHERE hash = ?", (key.hash,)).fetchone()
        if found is not None:
            self._refuse_collision(key, found[0])
        if found != (key.canonical_json,):
            connection.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", (key.hash, key.canonical_json))

    def _refuse_collision(self, key: EvaluationKey, canonical: object) -> None:
        """Raise where the hash stands for another key: one whose text is whole, or it would not have this hash."""
        if canonical != key.canonical_json and isinstance(canonical, str) and digest(canonical) == key.hash:
            raise self._file.error(
                f"holds another key with the hash {key.hash}: choose another path.\n"
                f"There: {canonical}\nHere:  {key.canonical_json}"
            )


def _to_row(key: EvaluationKey, entry: CacheEntry) -> tuple[Value, ...]:
    metrics = json.dumps(metrics_to_json(entry.metrics), allow_nan=False, separators=(",", ":"))
    return sealed(
        "entries",
        (
            key.hash,
            entry.program,
            entry.fingerprint,
            str(entry.status),
            entry.reason,
            int(entry.epochs),
            int(entry.complete),
            metrics,
            None if entry.scale is None else float(entry.scale),
            float(entry.seconds),
        ),
    )


def _to_entry(row: Sequence[Any]) -> CacheEntry | None:
    """The entry in a row of `_COLUMNS`; None where the row is damaged, or its content makes no sense."""
    if not intact("entries", row):
        return None
    _, program, fingerprint, status, reason, epochs, complete, metrics, scale, seconds, _ = row
    try:
        return CacheEntry(
            program=program,
            fingerprint=fingerprint,
            status=status,
            reason=reason,
            epochs=epochs,
            complete=bool(complete),
            metrics=metrics_from_json(json.loads(metrics)),
            scale=scale,
            seconds=seconds,
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
