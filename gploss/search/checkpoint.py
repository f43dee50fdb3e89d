"""A run on disk: its settings, its evaluations, and the newest state, written a whole turn at a time."""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gploss.files.packed import npy, pack, unpack
from gploss.files.plain import JSON, canonical_json, differences
from gploss.files.rows import Value, intact, sealed
from gploss.files.sqlite_file import SqliteFile
from gploss.files.sqlite_format import FileFormat, SqliteFileError
from gploss.search.evaluation import Evaluation


class CheckpointError(SqliteFileError):
    """A checkpoint cannot be used; the message names it and says what to do."""


_FORMAT = FileFormat(
    kind="checkpoint",
    application_id=0x67704C52,  # "gpLR"
    version=2,
    schema="""
        CREATE TABLE settings (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            settings TEXT NOT NULL,
            checksum TEXT NOT NULL
        );
        CREATE TABLE evaluations (
            step INTEGER PRIMARY KEY,
            elapsed REAL NOT NULL,
            evaluation TEXT NOT NULL,
            checksum TEXT NOT NULL
        );
        CREATE TABLE grown (
            place TEXT NOT NULL,
            start INTEGER NOT NULL,
            rows BLOB NOT NULL,
            checksum TEXT NOT NULL,
            PRIMARY KEY (place, start)
        );
        CREATE TABLE state (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            turn INTEGER NOT NULL,
            evaluations INTEGER NOT NULL,
            state TEXT NOT NULL,
            arrays BLOB NOT NULL,
            checksum TEXT NOT NULL
        );
    """,
    error=CheckpointError,
)


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        evaluations: all of the run's, in order; None for one that was found damaged.
        elapsed: seconds since the run's beginning at each of them.
        state: as it was saved last.
    """

    evaluations: list[Evaluation | None]
    elapsed: list[float]
    state: dict[str, Any]


class Checkpoint:
    """One SQLite file that holds one run; whatever kills the run, the file holds whole turns.

    A run that goes on calls `begin`, then `load`, then `save` after each turn. Only what is new is written, and the
    state: a turn costs the same however long the run has been.

    Args:
        path: the file, made if absent; or ":memory:".

    Raises:
        CheckpointError: if the file is damaged, foreign, or of another format version; it is left as it is. The
            methods raise it when the disk is full (what was stored before is kept) or the file unusable.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = SqliteFile(path, _FORMAT)
        self._turn = 0
        self._evaluations = 0
        self._lengths: dict[str, int] = {}  # of the grown arrays, as far as they are stored

    @property
    def path(self) -> Path:
        """The file, as an absolute path (":memory:" has none)."""
        return self._file.path

    def begin(self, settings: Mapping[str, JSON]) -> None:
        """Records the run's settings in a new checkpoint, and compares them with those of an old one.

        Args:
            settings: everything that decides the course of the run.

        Raises:
            CheckpointError: if the run in the file was made with others; the message lists the differences.
            ValueError: if a setting is not JSON.
        """
        text = canonical_json(dict(settings))
        with self._file.writing() as connection:
            new = sealed("settings", (1, text))
            connection.execute("INSERT INTO settings VALUES (?, ?, ?) ON CONFLICT DO NOTHING", new)
            row = connection.execute("SELECT * FROM settings").fetchone()
        if not intact("settings", row):
            raise self._senseless("its settings have changed since they were written")
        if row == new:
            return
        try:
            lines = list(differences("settings", json.loads(row[1]), json.loads(text), "in the file", "now"))
        except (ValueError, RecursionError) as error:
            raise self._senseless(f"its settings make no sense: {error}") from error
        raise self._file.error(
            "\n".join(["holds a run with other settings: use the same, or choose another path.", *lines])
        )

    def save(
        self, new_evaluations: Sequence[Evaluation], elapsed: Sequence[float], state: Mapping[str, Any]
    ) -> None:
        """Writes a turn: appends evaluations and replaces the state, both or neither.

        Args:
            new_evaluations: those since the last save, in order.
            elapsed: seconds since the run's beginning, one for each of them.
            state: JSON values (infinities and NaN allowed) and numpy arrays, nested in any way; of arrays marked as
                `gploss.files.packed.Grown` only the new rows are written.

        Raises:
            CheckpointError: if the turn cannot be written, or the file has turns that this object neither
                wrote nor loaded.
            ValueError: if the arguments do not fit together, or cannot be stored.
        """
        if len(new_evaluations) != len(elapsed):
            raise ValueError(f"{len(new_evaluations)} evaluations need as many elapsed times, got {len(elapsed)}")
        if not all(map(math.isfinite, elapsed)):
            raise ValueError(f"elapsed times must be finite, got {list(elapsed)!r}")
        packed = pack(state)
        grown = [self._growth(place, array) for place, array in packed.grown.items()]
        rows = [
            sealed("evaluations", (step, float(seconds), json.dumps(evaluation.to_json(), allow_nan=False)))
            for step, (seconds, evaluation) in enumerate(
                zip(elapsed, new_evaluations, strict=True), start=self._evaluations + 1
            )
        ]
        count = self._evaluations + len(rows)
        with self._file.writing() as connection:
            (last_turn,) = connection.execute("SELECT max(turn) FROM state").fetchone()
            if (last_turn or 0) != self._turn:
                raise self._file.error(
                    f"is at turn {last_turn or 0}, this run at {self._turn}: another run writes to it, or it "
                    "was not loaded; let only one run use it"
                )
            connection.execute("DELETE FROM evaluations WHERE step > ?", (self._evaluations,))
            connection.executemany("INSERT INTO evaluations VALUES (?, ?, ?, ?)", rows)
            # An array that was empty before has a row without content at its start.
            connection.executemany("INSERT OR REPLACE INTO grown VALUES (?, ?, ?, ?)", filter(None, grown))
            row = sealed("state", (1, self._turn + 1, count, packed.text, packed.arrays))
            connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?)", row)
        self._turn += 1
        self._evaluations = count
        self._lengths = {place: len(array) for place, array in packed.grown.items()}

    def load(self) -> Saved | None:
        """What was saved, up to the last whole turn; None if nothing was.

        An evaluation that has changed since it was written is left out, with a warning that names its step.

        Raises:
            CheckpointError: if the file cannot be read, or the state in it is damaged.
        """
        # One transaction, so that evaluations and state are of one moment.
        with self._file.writing() as connection:
            newest = connection.execute("SELECT * FROM state").fetchone()
            rows = connection.execute("SELECT * FROM evaluations ORDER BY step").fetchall()
            pieces = connection.execute("SELECT * FROM grown ORDER BY place, start").fetchall()
        if newest is None:
            return None
        if not intact("state", newest) or not all(intact("grown", piece) for piece in pieces):
            raise self._senseless("the run's state has changed since it was written")
        _, turn, count, text, arrays, _ = newest
        grown: defaultdict[str, list[bytes]] = defaultdict(list)
        for place, _, piece, _ in pieces:
            grown[place].append(piece)
        with self.making_sense():
            if not turn >= 0 or not 0 <= count <= 2 * len(rows):
                raise ValueError(f"it has {len(rows)} evaluations and should have {count}")
            state, self._lengths = unpack(text, arrays, grown)
        evaluations, times = self._evaluations_of(rows, count)
        self._turn = turn
        self._evaluations = count
        return Saved(evaluations, times, state)

    @contextmanager
    def making_sense(self) -> Iterator[None]:
        """Have errors of code that reads a state, which may come from anywhere, tell of the file.

        Raises:
            CheckpointError: in place of these errors.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._senseless(f"its state makes no sense: {type(error).__name__}: {error}") from error

    def forget(self, after: int) -> None:
        """Lets the next save write over all evaluations after the first so many."""
        self._evaluations = min(after, self._evaluations)

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _growth(self, place: str, array: NDArray[Any]) -> tuple[Value, ...] | None:
        """A row with what is not stored of a grown array; None where nothing is new."""
        start = self._lengths.get(place, 0)
        if len(array) < start:
            raise ValueError(f"the array at {place} has {len(array)} rows, fewer than the {start} that are stored")
        if len(array) == start and place in self._lengths:
            return None
        return sealed("grown", (place, start, npy(array[start:])))

    def _evaluations_of(
        self, rows: Sequence[tuple[Value, ...]], count: int
    ) -> tuple[list[Evaluation | None], list[float]]:
        """The evaluations of steps 1 to count with their times; None, and the time before, for a damaged one."""
        found = dict(filter(None, map(_read, rows)))
        evaluations: list[Evaluation | None] = []
        times: list[float] = []
        damaged = []
        for step in range(1, count + 1):
            evaluation, seconds = found.get(step, (None, times[-1] if times else 0.0))
            if evaluation is None:
                damaged.append(str(step))
            evaluations.append(evaluation)
            times.append(seconds)
        if damaged:
            warnings.warn(
                f"the {_FORMAT.kind} {self.path} holds damaged evaluations, which are left out: {len(damaged)} in "
                f"all, of step {', '.join(damaged[:20])}{' and others' if len(damaged) > 20 else ''}",
                stacklevel=3,
            )
        return evaluations, times

    def _senseless(self, problem: str) -> SqliteFileError:
        return self._file.error(
            f"is damaged, or of another version of gploss ({problem}): "
            "move it away with its -wal and -shm files, or restore a copy"
        )


def _read(row: tuple[Value, ...]) -> tuple[int, tuple[Evaluation, float]] | None:
    """Step, evaluation and time of a row; None where it is damaged, or its content makes no sense."""
    if not intact("evaluations", row):
        return None
    step, seconds, text, _ = row
    try:
        return int(step), (Evaluation.from_json(json.loads(text)), float(seconds))  # type: ignore[arg-type]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
