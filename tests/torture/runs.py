"""Runs of `gploss compare` with two workers in sessions of their own, forked from a process that is warm.

A process takes seconds to import what trains, so runs are forked from this one, and so are most runs' workers; some
have theirs started anew, as users have.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from joblib.externals.loky.backend.context import set_start_method

from experiments.command.cli import main

#: Seconds until a run that does not end by itself counts as one that hangs.
PATIENCE: Final = 120.0

#: Of `gploss compare`: small, and yet with searches that take most of the time.
OPTIONS: Final = [
    "--jobs", "2", "--seeds", "2", "--budget", "400", "--epochs", "1", "--searchers", "random,genetic",
    "--rivals", "bce", "--contenders", "1", "--tests", "2", "--tuning-seeds", "1", "--final-epochs", "1",
]  # fmt: skip


def write_ratings(path: Path) -> None:
    """Write a small table with a taste in it."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(40 * 30, size=800, replace=False), 30)
    taste = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    stars = np.clip(np.rint(3.5 + taste[users, items] + 0.5 * rng.normal(size=800)), 1, 5)
    pd.DataFrame({"user": users, "item": items, "rating": stars}).to_csv(path, index=False)


@dataclass(frozen=True)
class Run:
    """A run in a session of its own.

    Attributes:
        process: id of its first process, and of its session and group.
        log: where it writes what it has to say.
    """

    process: int
    log: Path

    def ended(self, seconds: float) -> int | None:
        """Return its exit code as the shell has it, or None where it goes on after so many seconds."""
        end = time.monotonic() + seconds
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if time.monotonic() >= end:
                return None
            time.sleep(0.005)

    def left(self) -> list[int]:
        """Return the processes of its session that live."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:
                    continue
                if int(session) == self.process and state != "Z":
                    found.append(int(folder.name))
        return found

    def is_gone(self, seconds: float) -> bool:
        """Return whether all of it has ended within so many seconds; what has not is killed."""
        end = time.monotonic() + seconds
        while left := self.left():
            if time.monotonic() >= end:
                for process in left:
                    os.kill(process, signal.SIGKILL)
                return False
            time.sleep(0.01)
        return True


def start(table: Path, out: Path, *more: str, forks: bool) -> Run:
    """Begin a run of `gploss compare`.

    Args:
        table: of ratings.
        out: its folder.
        more: options.
        forks: whether its workers are forked, or started anew.
    """
    log = out.with_suffix(".log")
    sys.stdout.flush()
    gc.freeze()
    process = os.fork()
    if process:
        return Run(process, log)
    code = 70
    try:
        os.setsid()
        # what a shell begins in the background ignores these
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        set_start_method("fork" if forks else "loky", force=True)
        code = main(["compare", "--dataset", str(table), "--out", str(out), *OPTIONS, *more])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
