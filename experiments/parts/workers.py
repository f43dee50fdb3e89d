"""Several runs at a time, in worker processes that end with the process that began them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from threading import Thread
from typing import Any, Final, TypeVar

from joblib import Parallel, cpu_count, delayed

from gploss.registry import for_workers

T = TypeVar("T")

#: Seconds between two looks at whether the parent lives.
_PAUSE: Final = 0.1

#: Linux' prctl option: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG: Final = 1


def default_jobs(device: str, seeds: int) -> int:
    """Return how many seeds run at the same time: as many as cores, but on a GPU one after the other."""
    return 1 if device.startswith("cuda") else min(seeds, cpu_count())


def side_by_side(run: Callable[..., T], arguments: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """Return what a function returns for each tuple of arguments, in their order; `jobs` of them run at a time."""
    if jobs == 1:
        return [run(*own) for own in arguments]
    sent = for_workers(_in_worker)
    # Not with its first task: a worker whose parent ends before that would wait for one for good.
    workers = Parallel(n_jobs=jobs, backend="loky", initializer=_end_with, initargs=(os.getpid(),))
    return list(workers(delayed(sent)(run, *own) for own in arguments))


def _in_worker(run: Callable[..., T], *arguments: Any) -> T:
    os.environ["TTY_COMPATIBLE"] = "0"  # several live displays cannot share a terminal: plain lines
    return run(*arguments)


@cache
def _end_with(parent: int) -> None:
    """Have this process end when its parent does, by whatever signal that ends; once a process.

    Linux kills it at once, in the middle of a compiled kernel too. Elsewhere, and where the parent is gone already,
    a thread sees that another process has become the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    Thread(target=_watch, args=(parent,), name="ends with its parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    os._exit(1)  # nothing is half done on disk: files are written in whole transactions
