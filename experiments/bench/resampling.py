"""Measure what a verdict's bootstrap costs: every metric in 1,000 resamples of the users, for 40 losses x 10 seeds.

    python experiments/bench/resampling.py --out results/bench

Made-up scores for a test part of 20,000 rows and 943 users, one core. CPU seconds are those of scores, resampled
values and intervals; memory is the peak that these add.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from rich.console import Console

from gploss.files.whole import write_csv_atomic
from gploss.report import tables as report
from recmodels.metrics import METRICS, evaluate_resampled
from recmodels.metrics.targets import Targets
from recmodels.verdict.bootstrap import draw_seeds, draw_units, gains, parts

ROWS, USERS, LOSSES, SEEDS, RESAMPLES = 20_000, 943, 40, 10, 1000


def measure(name: str) -> dict[str, float | str]:
    """Return seconds and MB that one metric takes, kernels compiled before."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    users = np.concatenate([np.arange(USERS), (USERS * rng.random(ROWS - USERS) ** 2).astype(np.int64)])
    labels = rng.random(ROWS) < 0.55
    targets = Targets(labels, users)
    few = torch.zeros((1, ROWS))
    evaluate_resampled(name, few, targets, draw_units(USERS, range(2), seed=0))
    before, begun = peak(), time.process_time()
    scores = rng.normal(size=(LOSSES * SEEDS, ROWS)).astype(np.float32)
    scores += labels
    values = np.concatenate(
        [
            evaluate_resampled(name, torch.from_numpy(scores), targets, draw_units(USERS, some, seed=0))
            for some in parts(USERS, RESAMPLES)
        ],
        axis=1,
    ).reshape(LOSSES, SEEDS, RESAMPLES)
    plain = values.mean(axis=2)
    gains(plain, values, draw_seeds(SEEDS, RESAMPLES, seed=0), higher_is_better=METRICS[name].higher_is_better)
    return {"metric": name, "seconds": time.process_time() - begun, "MB": peak() - before}


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench"), help="Folder to write to.")
def main(out: Path) -> None:
    """Measure the bootstrap."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in METRICS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # with a peak of memory of its own
            rows.append(pool.apply(measure, (name,)))
    table = pd.DataFrame(rows).round({"seconds": 2, "MB": 0})
    write_csv_atomic(table, out / "resampling.csv")
    Console().print(report.to_rich_table(table, f"{LOSSES} losses, {SEEDS} seeds, {RESAMPLES:,} resamples"))


if __name__ == "__main__":
    main()
