"""A run on disk: its settings, its evaluations, and the newest state, written a whole turn at a time."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gploss.files.plain import JSON, canonical_json, differences
from gploss.files.sqlite_file import FileFormat, SqliteFile, SqliteFileError
from gploss.search.evaluation import Evaluation


class CheckpointError(SqliteFileError):
    """A checkpoint cannot be used; the message names it and says what to do."""


_FORMAT = FileFormat(
    kind="checkpoint",
    application_id=0x67704C52,  # "gpLR"
    version=1,
    schema="""
        CREATE TABLE settings (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            settings TEXT NOT NULL
        );
        CREATE TABLE evaluations (
            step INTEGER PRIMARY KEY,
            elapsed REAL NOT NULL,
            evaluation TEXT NOT NULL
        );
        CREATE TABLE state (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            round INTEGER NOT NULL,
            state TEXT NOT NULL,
            arrays BLOB NOT NULL
        );
    """,
    error=CheckpointError,
)

_Place: TypeAlias = tuple[str | int, ...]


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        evaluations: all of the run's, in order.
        elapsed: seconds since the run's beginning at each of them.
        state: as it was saved last.
    """

    evaluations: list[Evaluation]
    elapsed: list[float]
    state: dict[str, Any]


class Checkpoint:
    """One SQLite file that holds one run; whatever kills the run, the file holds whole turns.

    A run that goes on calls `begin`, then `load`, then `save` after each turn.

    Args:
        path: the file, made if absent; or ":memory:".

    Raises:
        CheckpointError: if the file is damaged, foreign, or of another format version; it is left as it is. The
            methods raise it when the disk is full (what was stored before is kept) or the file unusable.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = SqliteFile(path, _FORMAT)
        self._turn = 0

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
            connection.execute("INSERT INTO settings VALUES (1, ?) ON CONFLICT DO NOTHING", (text,))
            (saved,) = connection.execute("SELECT settings FROM settings").fetchone()
        if saved == text:
            return
        lines = differences("settings", self._parsed(saved), json.loads(text), "in the file", "now")
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
            state: JSON values (infinities and NaN allowed) and numpy arrays, nested in any way.

        Raises:
            CheckpointError: if the turn cannot be written, or the file has turns that this object neither
                wrote nor loaded.
            ValueError: if the arguments do not fit together, or cannot be stored.
        """
        if len(new_evaluations) != len(elapsed):
            raise ValueError(f"{len(new_evaluations)} evaluations need as many elapsed times, got {len(elapsed)}")
        if not all(map(math.isfinite, elapsed)):
            raise ValueError(f"elapsed times must be finite, got {list(elapsed)!r}")
        text, arrays = _pack(state)
        rows = [
            (float(seconds), json.dumps(evaluation.to_json(), allow_nan=False))
            for seconds, evaluation in zip(elapsed, new_evaluations, strict=True)
        ]
        with self._file.writing() as connection:
            (last_turn,) = connection.execute("SELECT max(round) FROM state").fetchone()
            if (last_turn or 0) != self._turn:
                raise self._file.error(
                    f"is at turn {last_turn or 0}, this run at {self._turn}: another run writes to it, or it "
                    "was not loaded; let only one run use it"
                )
            # A step follows the last one by itself: an integer primary key counts up.
            connection.executemany("INSERT INTO evaluations (elapsed, evaluation) VALUES (?, ?)", rows)
            connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?)", (self._turn + 1, text, arrays))
        self._turn += 1

    def load(self) -> Saved | None:
        """What was saved, up to the last whole turn; None if nothing was.

        Raises:
            CheckpointError: if the file cannot be read, or its content makes no sense.
        """
        # One transaction, so that evaluations and state are of one moment.
        with self._file.writing() as connection:
            newest = connection.execute("SELECT round, state, arrays FROM state").fetchone()
            rows = connection.execute("SELECT elapsed, evaluation FROM evaluations ORDER BY step").fetchall()
        if newest is None:
            return None
        last_turn, text, arrays = newest
        try:
            evaluations = [Evaluation.from_json(json.loads(record)) for _, record in rows]
            saved = Saved(evaluations, [seconds for seconds, _ in rows], _unpack(text, arrays))
        except (ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
            raise self._senseless(error) from error
        self._turn = last_turn
        return saved

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._senseless(error) from error

    def _senseless(self, error: Exception) -> SqliteFileError:
        return self._file.error(
            f"is damaged, or of another version of gploss (its content makes no sense: {error}): "
            "move it away with its -wal and -shm files, or restore a copy"
        )


def _pack(state: Mapping[str, Any]) -> tuple[str, bytes]:
    """A state as JSON text, with null where arrays were and a list of those places, and the arrays as npy."""
    blob = io.BytesIO()
    places: list[_Place] = []

    def without_arrays(value: Any, place: _Place) -> Any:
        if isinstance(value, np.ndarray):
            if type(value) is not np.ndarray or value.dtype.hasobject:
                raise ValueError(f"{_written(place)} is an array of a kind that cannot be stored: {value!r}")
            np.save(blob, value, allow_pickle=False)
            places.append(place)
            return None
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"{_written(place)} has the key {name!r}: keys must be text")
            return {name: without_arrays(item, (*place, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [without_arrays(item, (*place, index)) for index, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(
            f"{_written(place)} is a {type(value).__name__}, which cannot be stored: make it a dict, a list, text, "
            "a number, or a numpy array"
        )

    plain = without_arrays(dict(state), ())
    return json.dumps({"state": plain, "arrays": places}), blob.getvalue()


def _unpack(text: str, blob: bytes) -> dict[str, Any]:
    record = json.loads(text)
    state: dict[str, Any] = record["state"]
    arrays = io.BytesIO(blob)
    for *parents, last in record["arrays"]:
        holder: Any = state
        for step in parents:
            holder = holder[step]
        holder[last] = np.load(arrays, allow_pickle=False)
    return state


def _written(place: _Place) -> str:
    return "state" + "".join(f"[{step!r}]" for step in place)
