"""Measure how training time grows with candidates and with interactions, and plot it.

    gploss scale --out results/scale

The fused trainer on one core, plain SGD under protocol paper: candidate-epochs a second for 1 to 1,024 candidates,
and seconds an epoch for 10^6 to 2 * 10^7 made-up interactions of 138,000 users with 27,000 items (the shape of
MovieLens 20M), with the peak memory that training adds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Drawing

from experiments.bench.benchmark import Bench, added_memory, epoch_seconds, fused, in_fresh_process
from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from gploss.files.whole import write_csv_atomic
from gploss.report.page import Figure, Page, Section, Table
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


class ScaleSettings(options.FolderSettings):
    """What is measured."""

    out: options.Out = Path("results/scale")


@command("scale", ScaleSettings)
def run(settings: ScaleSettings, folder: RunFolder) -> Page:
    """Measure how cost grows with candidates and with interactions."""
    torch.set_num_threads(1)
    split = load_dataset("ml-100k" if data_folder() is not None else "synthetic")
    with folder.open({split.name: split.describe()}):
        bench = Bench(split, quick=False)
        epoch_seconds(fused(PAPER), bench, 1)
        rates = [1 / epoch_seconds(fused(PAPER), bench, count, 5) for count in COUNTS]
        counts = pd.DataFrame({"candidates": COUNTS, "candidate-epochs/s": rates})
        rows = []
        for size in SIZES:
            large = Bench(made_up(size), quick=False)
            seconds = epoch_seconds(fused(PAPER), large, 2)
            added = in_fresh_process(memory_of_one, large)
            rows.append({"interactions": size, "seconds": seconds, "added memory, MB": added})
            say(f"{size:,} interactions: {seconds:.2f} s an epoch")
        sizes = pd.DataFrame(rows)
        write_csv_atomic(counts, folder.file("scale_candidates.csv"))
        write_csv_atomic(sizes, folder.file("scale_interactions.csv"))
        sections = [
            Section("Candidates", [Table(counts.round(1))]),
            Section("Interactions", [Table(sizes.round(2)), Figure("scale.png", draw(counts, sizes), "Cost")]),
        ]
        return folder.save(Page("What training costs", "", sections))


def draw(counts: pd.DataFrame, sizes: pd.DataFrame) -> Drawing:
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
    return figure


if __name__ == "__main__":
    sys.exit(main(["scale", *sys.argv[1:]]))
