"""Runs with workers, killed by every signal: nobody goes on alone, and a resumed run equals an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from experiments.command.folder import FolderError
from experiments.parts import searching
from tests.experiments.conftest import Gploss

PROJECT = Path(__file__).parents[2]
#: Seconds; kernels may have to be compiled on a busy machine.
PATIENCE = 300.0

TWO_WORKERS = """
import os, signal, sys, time
from pathlib import Path
from experiments.parts.workers import side_by_side

# what a shell begins in the background ignores these
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

def work(number):
    while True:
        Path(sys.argv[1], f"{number}.txt").write_text(str(os.getpid()))
        time.sleep(0.01)

print(side_by_side(work, [(0,), (1,)], jobs=2))
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """A process that has ended but was not waited for is dead, too."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"])
def test_workers_end_with_their_parent(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", TWO_WORKERS, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL) as parent:
        files = [tmp_path / "0.txt", tmp_path / "1.txt"]
        wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
        workers = [int(file.read_text() or 0) for file in files]
        parent.send_signal(getattr(signal, name))
        try:
            parent.wait(PATIENCE)
        finally:
            parent.kill()
    wait_for(lambda: not any(map(is_alive, workers)))


def children(of: int) -> list[int]:
    """The processes that another one has begun."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == of:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
def test_a_worker_without_a_task_ends_with_its_parent(tmp_path: Path) -> None:
    one_task = TWO_WORKERS.replace("[(0,), (1,)]", "[(0,)]")
    assert one_task != TWO_WORKERS
    with subprocess.Popen([sys.executable, "-c", one_task, str(tmp_path)], cwd=PROJECT) as parent:
        wait_for(lambda: (tmp_path / "0.txt").is_file() and len(children(parent.pid)) >= 2)
        workers = children(parent.pid)
        parent.kill()
    wait_for(lambda: not any(map(is_alive, workers)))


def small(table: Path, out: Path) -> list[str]:
    size = ["--budget", "1200", "--seeds", "2", "--epochs", "1", "--tests", "2", "--tuning-seeds", "1"]
    rest = ["--final-epochs", "1", "--searchers", "random", "--rivals", "bce", "--contenders", "1"]
    return ["compare", "--dataset", str(table), *size, *rest, "--out", str(out)]


def test_resumed_after_each_signal_a_run_ends_as_if_nothing_had_been(
    gploss: Gploss, ratings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    logs = [out / f"runs/random-{number}.sqlite-wal" for number in range(2)]

    def sizes() -> list[int]:
        return [log.stat().st_size if log.exists() else 0 for log in logs]

    command = [sys.executable, "-m", "gploss", *small(ratings, out), "--jobs", "2"]
    for name, code in [("SIGKILL", -9), ("SIGTERM", 143), ("SIGHUP", 129)]:
        before = sizes()
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            wait_for(lambda before=before: all(map(int.__ne__, sizes(), before)))  # type: ignore[misc]
            run.send_signal(getattr(signal, name))
            _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == code, errors.decode()
        state = json.loads((out / "run.json").read_text())["state"]
        assert state == ("running" if code < 0 else "interrupted"), name
        assert code < 0 or b"--resume goes on" in errors
        command = [sys.executable, "-m", "gploss", "compare", "--out", str(out), "--resume", "--jobs", "2"]
    resumed = gploss("compare", "--out", out, "--resume", "--jobs", 1)
    assert resumed.code == 0, resumed.errors
    assert gploss(*small(ratings, tmp_path / "whole"), "--jobs", 1).code == 0
    killed, whole = (
        pd.read_csv(tmp_path / name / "evaluations.csv").drop(columns=["seconds", "cached"])
        for name in ("killed", "whole")
    )
    pd.testing.assert_frame_equal(killed, whole)
    assert (out / "confirmation.csv").read_bytes() == (tmp_path / "whole/confirmation.csv").read_bytes()


def test_a_search_that_somebody_else_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_PATIENCE", 0.05)
    with (
        FileLock(tmp_path / "random-0.lock"),
        pytest.raises(FolderError, match=r"random-0.sqlite is written by another process: wait for its end"),
    ):
        searching.finish(None, 1, tmp_path / "random-0.sqlite")  # type: ignore[arg-type]


def test_signals_that_nohup_ignores_stay_ignored(tmp_path: Path) -> None:
    code = (
        "import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from experiments.command.endings import OrderlyEnding\n"
        "with OrderlyEnding(): os.kill(os.getpid(), signal.SIGHUP); print('alive')\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "try:\n"
        "    with OrderlyEnding() as ending: os.kill(os.getpid(), signal.SIGTERM)\n"
        "except KeyboardInterrupt: print(ending.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "alive\n143\n", done.stderr


def test_what_fails_after_a_request_to_end_is_an_interruption(
    gploss: Gploss, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to the whole group reaches workers first, at times, and then they are what is missed."""

    def lose_workers(*_: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        raise RuntimeError("a worker is gone")

    monkeypatch.setattr("experiments.compare_searchers.search", lose_workers)
    outcome = gploss(*small(ratings, tmp_path / "out"))
    assert outcome.code == 143
    assert "Error: interrupted; --resume goes on with a run (a worker is gone)" in outcome.errors
