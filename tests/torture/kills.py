"""Runs with two workers, killed at random moments, resumed and killed again: the end is that of one left alone.

After each kill nothing of the run may live on, and its checkpoints must hold the beginning of the searches of the
undisturbed run; after the last resumption all that it writes must be equal.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pandas as pd

from gploss.search.checkpoint import Checkpoint
from gploss.search.evaluation import Evaluation
from tests.torture.runs import PATIENCE, Run, start, write_ratings
from tests.torture.tally import Tally

SIGNALS: Final = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")

#: Exit codes of what ends in order, and of what does not.
_CODES: Final = {name: 128 + getattr(signal, name) for name in SIGNALS}

#: One chain of so many has its workers started anew.
_ANEW: Final = 10

_MOST_KILLS_A_RUN: Final = 12


def campaign(kills: int, folder: Path, seed: int) -> list[Tally]:
    """Kill runs so many times; return what became of them, by how workers were started."""
    table = folder / "ratings.csv"
    write_ratings(table)
    whole = folder / "whole"
    start(table, whole, forks=True).ended(10 * PATIENCE)  # compiles
    shutil.rmtree(whole)
    durations = {}
    for forks in (True, False):
        begun = time.monotonic()
        code = start(table, whole, "--overwrite", forks=forks).ended(10 * PATIENCE)
        durations[forks] = time.monotonic() - begun
        if code != 0:
            raise RuntimeError(f"the undisturbed run ends with {code}: see {whole}.log")
    seconds = f"{durations[True]:.1f} s, {durations[False]:.1f} s with workers started anew"
    print(f"  an undisturbed run takes {seconds}", flush=True)
    tallies = {True: Tally("kills, workers forked"), False: Tally("kills, workers started anew")}
    rng = random.Random(seed)
    turns = itertools.cycle([(name, group) for group in (False, True) for name in SIGNALS])
    for number in itertools.count():
        if sum(tally.trials for tally in tallies.values()) >= kills:
            break
        forks = number % _ANEW != _ANEW - 1
        chain(tallies[forks], table, whole, folder / f"run-{number}", durations[forks], turns, forks, rng)
        if number % 10 == 9:
            print("\n".join(f"  {tally.row()}" for tally in tallies.values()), flush=True)
    return [tally for tally in tallies.values() if tally.trials]


def chain(
    tally: Tally,
    table: Path,
    whole: Path,
    out: Path,
    duration: float,
    turns: Iterator[tuple[str, bool]],
    forks: bool,
    rng: random.Random,
) -> None:
    """Kill one run a few times, resume it each time, let it end, and compare."""
    before = len(tally.faults)
    for _ in range(rng.randint(1, _MOST_KILLS_A_RUN)):
        run = start(table, out, "--resume", forks=forks)
        code = run.ended(rng.uniform(0, duration / 2))
        if code is not None:
            break
        name, group = next(turns)
        story = f"{out.name}, {name} to {'the group' if group else 'the parent'}"
        number = getattr(signal, name)
        os.killpg(run.process, number) if group and is_leader(run) else os.kill(run.process, number)
        code, problem = after_kill(run, name, whole, out)
        if problem is None and code == 0:
            tally.add("too late, the run had just ended")
        elif problem is None:
            tally.add(f"{name} {'group' if group else 'parent'}")
        else:
            outcome, _, detail = problem.partition(": ")
            tally.fault(outcome, f"{story} {detail}")
    run = start(table, out, "--resume", forks=forks)
    code = run.ended(PATIENCE)
    if code is None:
        run.is_gone(0.0)
    problem = f"ends with {code}: {run.log.read_text()[-300:]}" if code != 0 else unequal(whole, out)
    if problem is not None:
        tally.fault("the end of a resumed run", f"{out.name}: {problem}")
    if len(tally.faults) == before:
        shutil.rmtree(out)
        run.log.unlink()


def is_leader(run: Run) -> bool:
    """Return whether a run has its own group yet: just after its start it has not."""
    try:
        return os.getpgid(run.process) == run.process
    except ProcessLookupError:
        return False


def after_kill(run: Run, name: str, whole: Path, out: Path) -> tuple[int | None, str | None]:
    """Return the exit code after a kill, and what is wrong, or None."""
    code = run.ended(PATIENCE)
    if code is None:
        run.is_gone(0.0)
        return None, "does not end"
    if code not in (_CODES[name], 0):
        return code, f"ends with {code}: {run.log.read_text()[-300:]}"
    if not run.is_gone(5.0):
        return code, "workers live on"
    for path in out.glob("runs/*.sqlite"):
        found, expected = (evaluations(file / "runs" / path.name) for file in (out, whole))
        if found != expected[: len(found)]:
            return code, f"{path.name} holds other evaluations"
    return code, None


def evaluations(path: Path) -> list[Evaluation]:
    """Return what a checkpoint holds, but for what clocks and caches decide."""
    with warnings.catch_warnings(), Checkpoint(path) as checkpoint:
        warnings.simplefilter("error")
        saved = checkpoint.load()
    found = [one for one in (saved.evaluations if saved else []) if one is not None]
    return [dataclasses.replace(one, seconds=0.0, cached=False) for one in found]


def unequal(whole: Path, out: Path) -> str | None:
    """Return where a resumed run's files differ from those of one left alone, or None."""
    for name in ("evaluations.csv", "confirmation.csv"):
        one, other = (pd.read_csv(folder / name).drop(columns=["seconds", "cached"], errors="ignore")
                      for folder in (whole, out))  # fmt: skip
        if not one.equals(other):
            return f"{name} differs"
    for path in whole.glob("runs/*.sqlite"):
        if evaluations(path) != evaluations(out / "runs" / path.name):
            return f"{path.name} differs"
    state = json.loads((out / "run.json").read_text())["state"]
    return None if state == "finished" else f"run.json says {state}"
