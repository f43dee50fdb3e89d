"""Evaluated losses on disk: programs and gradient fingerprints -> raw metrics per epoch.

An entry is found only under a key equal to the one that it was stored under. Metrics are stored, not rewards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from gploss.files.sqlite_file import FileFormat, SqliteFile, SqliteFileError
from gploss.search.evaluation import EvaluationKey, Status, metrics_from_json, metrics_to_json


class CacheError(SqliteFileError):
    """A cache file cannot be used; the message names it and says what to do."""


_FORMAT = FileFormat(
    kind="evaluation cache",
    application_id=0x67704C43,  # "gpLC"
    version=1,
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
            PRIMARY KEY (key, program)
        );
        CREATE INDEX entries_by_fingerprint ON entries (key, fingerprint);
    """,
    error=CacheError,
)

_COLUMNS = "program, fingerprint, status, reason, epochs, complete, metrics, scale, seconds"

_FIND = f"""
    SELECT keys.canonical, {_COLUMNS} FROM entries JOIN keys ON keys.hash = entries.key
    WHERE entries.key = :key AND
"""

_STORE = f"""
    INSERT INTO entries (key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key, program) DO UPDATE SET
        fingerprint = excluded.fingerprint, status = excluded.status, reason = excluded.reason,
        epochs = excluded.epochs, complete = excluded.complete, metrics = excluded.metrics,
        scale = excluded.scale, seconds = excluded.seconds
    WHERE NOT entries.complete AND (excluded.complete OR excluded.epochs > entries.epochs)
"""

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
        rows = [_to_row(key, entry) for entry in entries]
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO keys (hash, canonical) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
                (key.hash, key.canonical_json),
            )
            (canonical,) = connection.execute("SELECT canonical FROM keys WHERE hash = ?", (key.hash,)).fetchone()
            self._require_equal(key, canonical)
            connection.executemany(_STORE, rows)

    def entries(self, key: EvaluationKey) -> Iterator[CacheEntry]:
        """All entries under a key, by program text; those stored meanwhile may be among them.

        Raises:
            CacheError: as for `lookup`.
        """
        last = ""
        while True:
            with self._file.reading() as connection:
                rows = connection.execute(
                    _FIND + "program > :last ORDER BY program LIMIT :page",
                    {"key": key.hash, "last": last, "page": _PAGE},
                ).fetchall()
            for row in rows:
                yield self._from_row(key, row)
            if len(rows) < _PAGE:
                return
            last = rows[-1][1]

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
        with self._file.reading() as connection:
            row = connection.execute(
                f"{_FIND} {condition} AND (complete OR epochs >= :epochs) ORDER BY entries.rowid LIMIT 1",
                {"key": key.hash, "wanted": wanted, "epochs": epochs},
            ).fetchone()
        return None if row is None else self._from_row(key, row)

    def _from_row(self, key: EvaluationKey, row: tuple[Any, ...]) -> CacheEntry:
        canonical, *values = row
        self._require_equal(key, canonical)
        try:
            return _to_entry(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._file.error(
                f"is damaged (the entry of {values[0]!r} makes no sense: {error}): move it away with its -wal "
                "and -shm files, or restore a copy"
            ) from error

    def _require_equal(self, key: EvaluationKey, canonical: object) -> None:
        if canonical != key.canonical_json:
            raise self._file.error(
                f"holds another key with the hash {key.hash}: choose another path.\n"
                f"There: {canonical}\nHere:  {key.canonical_json}"
            )


def _to_row(key: EvaluationKey, entry: CacheEntry) -> tuple[object, ...]:
    metrics = json.dumps(metrics_to_json(entry.metrics), allow_nan=False, separators=(",", ":"))
    return (
        key.hash,
        entry.program,
        entry.fingerprint,
        str(entry.status),
        entry.reason,
        int(entry.epochs),
        bool(entry.complete),
        metrics,
        None if entry.scale is None else float(entry.scale),
        float(entry.seconds),
    )


def _to_entry(values: Sequence[Any]) -> CacheEntry:
    program, fingerprint, status, reason, epochs, complete, metrics, scale, seconds = values
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
