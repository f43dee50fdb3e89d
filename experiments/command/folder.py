"""A run's folder: never overwritten unasked, locked while its process lives, and told apart by its run.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from gploss.environment import environment, versions
from gploss.files.plain import JSON
from gploss.files.text import read_text
from gploss.files.whole import write_text_atomic
from gploss.report.page import Note, Page

RECORD: Final = "run.json"
LOCK: Final = ".lock"
SUMMARY: Final = "summary.md"

#: Raised when run.json has another shape: folders of older versions are refused, not misread.
VERSION: Final = 1

#: What SQLite leaves beside a database while it is open, or when its process is killed.
_SIDE_FILES: Final = ("", "-journal", "-wal", "-shm")


class FolderError(ValueError):
    """A run's folder cannot be used; the message names it and says what to do."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; its folder holds what was done, and --resume goes on from there."""


class Mode(StrEnum):
    """What may become of a run that is in the folder already."""

    NEW = "new"
    RESUME = "resume"
    OVERWRITE = "overwrite"


@dataclass
class Record:
    """What run.json holds, of every command.

    Attributes:
        command: its name.
        words: what to type after `gploss` for the same again.
        configuration: every option's value, by name.
        environment: the machine.
        versions: of Python and of the packages that decide what is computed.
        data: what each dataset describes itself as, its content hash included.
        state: "running", "finished", "interrupted" or "failed".
        process: id of the process that wrote this last.
        times: when the run was started or resumed, and when it ended, each in UTC; None while it runs.
        files: everything that the run has made or is about to make, by its path in the folder.
        details: what the command adds about how it went.
    """

    command: str
    words: str
    configuration: dict[str, Any]
    environment: dict[str, str | int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    process: int = 0
    times: list[dict[str, str | None]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    details: dict[str, JSON] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Read a folder's record; None where there is none.

        Raises:
            FolderError: it cannot be read, or is of another version.
        """
        path = folder / RECORD
        if not path.exists():
            return None
        try:
            content = json.loads(read_text(path))
            version = content.pop("version")
            if version == VERSION:
                return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FolderError(f"{path} is damaged or no record of a run ({error}): choose another --out") from error
        raise FolderError(
            f"{path} is of version {version}, this gploss writes version {VERSION}: choose another --out, or use "
            "the release that wrote it"
        )

    def write(self, folder: Path) -> None:
        """Write run.json, whole or not at all."""
        write_text_atomic(folder / RECORD, json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n")


class RunFolder:
    """The folder of one run.

    Nothing is made, changed or deleted before `open`.

    Args:
        path: the folder; made by `open` where it is not there.
        record: what is about to run.
        mode: what may become of a run that is there already.
        device: what the run trains on, for the record.

    Raises:
        FolderError: it holds something that must be kept, or is none of this command's.
    """

    def __init__(self, path: Path, record: Record, mode: Mode, device: str = "cpu") -> None:
        self.path = path
        self._record = record
        self._mode = mode
        self._device = device
        if (path / LOCK).is_file():
            with self._locked():
                self._check(Record.of(path))
        else:
            self._check(Record.of(path))

    @contextmanager
    def open(self, data: Mapping[str, Mapping[str, JSON]]) -> Iterator[None]:
        """Take the folder for this process, and record how the run ends.

        Args:
            data: what each dataset describes itself as, `content_hash` included.

        Raises:
            FolderError: another process has it, it cannot be written, or its run was made on other data.
        """
        with self._locked():
            known = Record.of(self.path)
            self._check(known)
            if known is not None and self._mode is Mode.RESUME:
                _same_data(self.path, known.data, data)
                self._record.files, self._record.times = known.files, known.times
            elif known is not None:
                _delete(self.path, known.files)
            self._record.data = {name: dict(description) for name, description in data.items()}
            self._record.environment, self._record.versions = environment(self._device), versions()
            self._record.process = os.getpid()
            self._record.times.append({"started": _now(), "ended": None})
            self._save("running")
            try:
                yield
            except KeyboardInterrupt:
                self._end("interrupted")
                raise Interrupted(f"interrupted; --resume goes on with the run in {self.path}") from None
            except BaseException:
                self._end("failed")
                raise
            self._end("finished")

    def file(self, name: str) -> Path:
        """Return the path of a file that the run is about to make, known as the run's own from here on.

        Args:
            name: its path within the folder.

        Raises:
            FolderError: there is a file of that name that no run has made.
        """
        path = self.path / name
        if name not in self._record.files:
            if path.exists():
                raise FolderError(f"{path} was not made by gploss: move it away, or choose another --out")
            self._record.files.append(name)
            self._save("running")
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def note(self, **details: JSON) -> None:
        """Add to what run.json says about how the run went."""
        self._record.details |= details
        self._save("running")

    def save(self, page: Page) -> Page:
        """Write summary.md, with the run's command and machine at its end, and the figures of a page; return it."""
        machine = self._record.environment | self._record.versions
        told = ", ".join(f"{name}: {value}" for name, value in machine.items())
        page = page.with_section("Command and machine", Note(f"`gploss {self._record.words}`"), Note(told))
        page.save(self.file, SUMMARY)
        return page

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            holder = Record.of(self.path)
            process = "another process" if holder is None else f"process {holder.process}"
            raise FolderError(
                f"{self.path} is in use by {process}: wait for its end, or choose another --out"
            ) from error
        except OSError as error:
            raise FolderError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another --out"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _check(self, known: Record | None) -> None:
        """Refuse a folder that holds something which must be kept."""
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"{self.path} is a file, not a folder: choose another --out")
        if known is None:
            present = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
            # a process that is killed at its very beginning leaves half a record under another name
            present = [name for name in present if name != LOCK and not name.startswith(f".{RECORD}.")]
            if present:
                raise FolderError(
                    f"{self.path} holds {', '.join([*present[:3], '...'][: len(present)])} but no {RECORD}: no "
                    "run, or an older version's; choose another --out"
                )
        elif self._mode is Mode.NEW and known.files:
            state = "cut off" if known.state == "running" else known.state  # nobody holds the lock
            raise FolderError(
                f"{self.path} holds a run of `gploss {known.command}` ({state}): go on with it by --resume, "
                "replace it by --overwrite, or choose another --out"
            )
        elif self._mode is Mode.RESUME and known.command != self._record.command:
            raise FolderError(
                f"{self.path} holds a run of `gploss {known.command}`, which `gploss {self._record.command}` "
                "cannot resume: choose another --out"
            )

    def _end(self, state: str) -> None:
        self._record.times[-1]["ended"] = _now()
        self._save(state)

    def _save(self, state: str) -> None:
        self._record.state = state
        self._record.write(self.path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _same_data(folder: Path, known: Mapping[str, Any], data: Mapping[str, Mapping[str, JSON]]) -> None:
    for name, description in data.items():
        if name in known and known[name]["content_hash"] != description["content_hash"]:
            raise FolderError(
                f"{folder} holds a run on other data named {name!r} (hash {known[name]['content_hash']}, now "
                f"{description['content_hash']}): bring the data back, or choose another --out"
            )


def _delete(folder: Path, files: list[str]) -> None:
    """Delete the files of a run, and folders of its own that are empty then."""
    outside = [name for name in files if not (folder / name).resolve().is_relative_to(folder.resolve())]
    if outside:
        raise FolderError(
            f"{folder / RECORD} names a file outside of the folder, {outside[0]}: choose another --out"
        )
    for name in files:
        for end in _SIDE_FILES:
            (folder / f"{name}{end}").unlink(missing_ok=True)
    for inner in {(folder / name).parent for name in files} - {folder}:
        if inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()
