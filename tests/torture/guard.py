"""Trials in processes of their own: what takes too long, dies, or does what text must not is noticed."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Final, TypeAlias

from tests.torture.tally import Tally

Trial: TypeAlias = Callable[[int], str]
"""Takes a seed, and returns what became of it; raises `Wrong`, or anything else that must not be."""

#: Trials of one process.
CHUNK: Final = 500

#: Bytes of memory that a process may have.
_MEMORY: Final = 6 << 30

#: What a reader of text has no business with, as Python tells it to hooks for audits.
_FORBIDDEN: Final = (
    "exec",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "shutil.",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
    "webbrowser.",
    "pty.",
    "marshal.",
    "code.",
    "sys.settrace",
    "sys.setprofile",
    "cpython.run",
)

#: Of these, what all that works with files does.
_ALLOWED: Final = (
    "os.listdir",
    "os.scandir",
    "os.remove",
    "os.rename",
    "os.link",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
)


class Wrong(Exception):  # noqa: N818 (a finding, not an error of this program)
    """What must not be was seen."""


class TooLong(BaseException):
    """A trial took longer than it may. No `except Exception` stops it."""


_seen: list[str] = []
_watching = False
_installed = False


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or not event.startswith(_FORBIDDEN) or event in _ALLOWED:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return  # a module that is imported when it is first used
        frame = frame.f_back
    _seen.append(f"{event} {str(arguments)[:200]}")


@contextmanager
def watched() -> Iterator[None]:
    """Note what is done in the block that a reader of text must not do."""
    global _installed, _watching
    if not _installed:
        sys.addaudithook(_look)
        _installed = True
    _watching = True
    try:
        yield
    finally:
        _watching = False


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooLong` where the block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _work(trial: Trial, seeds: range, seconds: float, results: Connection) -> None:
    """Do trials one after the other, and tell after each what became of it."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(BaseException), limited(seconds):
        trial(seeds.start)  # what is imported and compiled at first
    for seed in seeds:
        results.send(("at", seed))
        fault = None
        try:
            with limited(seconds):
                outcome = trial(seed)
        except TooLong:
            fault = ("hangs", "")
        except Wrong as error:
            fault = ("wrong", str(error))
        except MemoryError as error:
            fault = ("fills the memory", _place(error))
        except BaseException as error:
            fault = (f"{type(error).__name__}", f"{str(error)[:200]} {_place(error)}")
        if _seen:
            fault = ("does what it must not", "; ".join(_seen[:3]))
            _seen.clear()
        if fault is None:
            results.send(("did", outcome))
        else:
            results.send(("fault", (fault[0], f"seed {seed} {fault[1]}")))
    results.send(("end", None))


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"({frame.filename}:{frame.lineno})"


def campaign(kind: str, trial: Trial, count: int, *, seconds: float, workers: int, chunk: int = CHUNK) -> Tally:
    """Try so many seeds in several processes.

    Args:
        kind: what is tried.
        trial: one trial.
        count: how many.
        seconds: that one may take.
        workers: processes at a time.
        chunk: trials of a process.
    """
    tally = Tally(kind)
    context = multiprocessing.get_context("fork")
    chunks = iter([range(begin, min(begin + chunk, count)) for begin in range(0, count, chunk)])
    running: dict[Connection, tuple[Any, list[int]]] = {}
    told = 0

    def begin(seeds: range) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(trial, seeds, seconds, theirs))
        process.start()
        theirs.close()
        running[ours] = (process, [seeds.start, seeds.stop])

    for _, seeds in zip(range(workers), chunks, strict=False):
        begin(seeds)
    while running:
        ready = wait(list(running), timeout=4 * seconds + 60)
        for connection in ready or list(running):
            assert isinstance(connection, Connection)
            process, (at, stop) = running[connection]
            try:
                if not ready:  # not even Python's own signals get through
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
                    raise EOFError
                message, content = connection.recv()
            except EOFError:
                process.join()
                del running[connection]
                tally.fault("kills its process", f"seed {at}: exit code {process.exitcode}")
                if at + 1 < stop:
                    begin(range(at + 1, stop))
                continue
            if message == "at":
                running[connection][1][0] = content
            elif message == "did":
                tally.add(content)
            elif message == "fault":
                tally.fault(*content)
            else:
                process.join()
                del running[connection]
                following = next(chunks, None)
                if following is not None:
                    begin(following)
        if tally.trials - told >= max(count // 10, 1):
            told = tally.trials
            print(f"  {tally.row()}", flush=True)
    return tally
