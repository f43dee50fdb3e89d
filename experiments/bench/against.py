"""Has training become slower than in another commit? Both are measured in turn, in seconds of the processor.

    python experiments/bench/against.py HEAD~1

For each row of training of the benchmark: the median over 15 alternations of this tree's seconds by the other's,
and its 95% interval (bootstrap over the pairs). Exits with 1 where an interval lies above 1.03 as a whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import click
import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from experiments.bench.rows import ROWS
from experiments.bench.worktree import PROJECT, worktree
from gploss.report import tables

#: How much slower a row may be.
TOLERANCE = 1.03


class Worker:
    """A process that trains the rows of one tree; see `experiments.bench.rows`."""

    def __init__(self, tree: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(tree / "experiments" / "bench" / "rows.py")]
        self.process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        origin = self._line()
        if not Path(origin).is_relative_to(tree):
            raise RuntimeError(f"{command[1]} imported {origin}, of another tree")

    def seconds(self, name: str) -> float:
        """Return the seconds of the processor that a row takes."""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(name + "\n")
        stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        stdout: IO[str] | None = self.process.stdout
        assert stdout is not None
        line = stdout.readline().strip()
        if not line:
            raise RuntimeError("a process that measures ended early; its message stands above")
        return line

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def interval_of_median(ratios: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a median, from (R,) values."""
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(len(ratios), size=(10_000, len(ratios)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


@click.command(context_settings={"show_default": True})
@click.argument("commit")
@click.option("--times", type=click.IntRange(2), default=15, help="Alternations.")
def main(commit: str, times: int) -> None:
    """Compare the speed of training with that of COMMIT."""
    console = Console()
    rows = []
    with ExitStack() as stack:
        there, here = Worker(stack.enter_context(worktree(commit))), Worker(PROJECT)
        for worker in (there, here):
            stack.callback(worker.close)
        for name in ROWS:
            for worker in (there, here):
                worker.seconds(name)  # compiles
            pairs = np.array([[here.seconds(name), there.seconds(name)] for _ in range(times)])
            ratios = pairs[:, 0] / pairs[:, 1]
            low, high = interval_of_median(ratios)
            rows.append((name, *np.median(pairs, axis=0), float(np.median(ratios)), low, high))
            console.print(f"{name}: {np.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    columns = ["row", "seconds here", f"seconds in {commit}", "ratio", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    console.print(tables.to_markdown(table.round(3).astype(str)))
    sys.exit(int((table["low"] > TOLERANCE).any()))


if __name__ == "__main__":
    main()
