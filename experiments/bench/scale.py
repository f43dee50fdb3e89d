"""Measure how training time grows with candidates and with interactions, and plot it.

    python experiments/bench/scale.py --out results/bench

The fused trainer on one core, plain SGD under protocol paper: candidate-epochs a second for 1 to 1,024 candidates,
and seconds an epoch for 10^6 to 2 * 10^7 made-up interactions of 138,000 users with 27,000 items (the shape of
MovieLens 20M), with the peak memory that training adds.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from rich.console import Console

from experiments.bench.benchmark import Bench, added_memory, epoch_seconds, fused, in_fresh_process
from gploss.files.whole import write_csv_atomic
from gploss.report import plots
from gploss.report import tables as report
from gploss.report.plots.layout import BLUE, new_figure, plain_axes
from recmodels.data.interactions import Interactions, Split
from recmodels.datasets import data_folder, load_dataset
from recmodels.training.protocol import PAPER

USERS, ITEMS = 138_000, 27_000
COUNTS = (1, 4, 16, 64, 256, 1024)
SIZES = (1_000_000, 4_000_000, 10_000_000, 20_000_000)


def made_up(size: int) -> Split:
    """Interactions at random, users and items with long tails, labels by chance."""
    rng = np.random.default_rng(0)

    def part(rows: int) -> Interactions:
        users = (USERS * rng.random(rows) ** 2).astype(np.int64)
        items = (ITEMS * rng.random(rows) ** 3).astype(np.int64)
        return Interactions(users, items, (rng.random(rows) < 0.5).astype(np.float32), USERS, ITEMS)

    return Split(f"{size:,} made-up interactions", part(size), part(100), part(100))


def memory_of_one(bench: Bench) -> float:
    """Peak memory in MB that training one candidate adds."""
    return added_memory(fused(PAPER), bench, 1)


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench"), help="Folder to write to.")
def main(out: Path) -> None:
    """Measure cost against work."""
    torch.set_num_threads(1)
    console = Console()
    bench = Bench(load_dataset("ml-100k" if data_folder() is not None else "synthetic"), quick=False)
    epoch_seconds(fused(PAPER), bench, 1)
    counts = pd.DataFrame(
        [{"candidates": n, "candidate-epochs/s": 1 / epoch_seconds(fused(PAPER), bench, n, 5)} for n in COUNTS]
    )
    console.print(report.to_rich_table(counts.round(1), "Candidates"))
    rows = []
    for size in SIZES:
        large = Bench(made_up(size), quick=False)
        seconds = epoch_seconds(fused(PAPER), large, 2)
        rows.append(
            {"interactions": size, "seconds": seconds, "added memory, MB": in_fresh_process(memory_of_one, large)}
        )
        console.print(f"{size:,} interactions: {seconds:.2f} s an epoch")
    sizes = pd.DataFrame(rows)
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in (("scale_candidates", counts), ("scale_interactions", sizes)):
        write_csv_atomic(frame, out / f"{name}.csv")
    draw(counts, sizes, out / "scale.png")


def draw(counts: pd.DataFrame, sizes: pd.DataFrame, path: Path) -> None:
    """Two panels: throughput against candidates, seconds and memory against interactions."""
    figure = new_figure(
        11.0, 4.6, "What training costs", "fused trainer, matrix factorisation, plain SGD, one core"
    )
    left = figure.add_axes((0.07, 0.14, 0.40, 0.62))
    left.plot(counts["candidates"], counts["candidate-epochs/s"], color=BLUE, marker="o")
    left.set_xscale("log", base=2)
    left.set_xticks(list(COUNTS), [f"{count:,}" for count in COUNTS])
    left.set_ylim(bottom=0)
    plain_axes(left, "Throughput", "candidates in the population", "candidate-epochs a second")
    right = figure.add_axes((0.56, 0.14, 0.40, 0.62))
    millions = sizes["interactions"] / 1e6
    right.plot(millions, sizes["seconds"], color=BLUE, marker="o")
    for at, seconds, memory in zip(millions, sizes["seconds"], sizes["added memory, MB"], strict=True):
        right.annotate(f"+{memory:,.0f} MB ", (at, seconds), ha="right", va="bottom", fontsize=8.5)
    right.set_xlim(left=-2)
    right.set_ylim(bottom=0)
    plain_axes(right, "Time and memory", "million interactions", "seconds an epoch of one candidate")
    plots.save(figure, path)


if __name__ == "__main__":
    main()
