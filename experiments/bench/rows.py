"""The rows of training of the benchmark as a process that does one of them whenever it is told a name.

`experiments.bench.against` runs this file of two commits side by side; a commit with another API keeps its names
and what is trained under them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch

import recmodels.training.trainer
from experiments.bench.benchmark import Bench, epoch_seconds, fused, mf
from recmodels.datasets import data_folder, load_dataset
from recmodels.models.deep_model import DeepModel
from recmodels.training.protocol import PAPER, STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Trainer

#: By name: what trains, how many members, and for how many epochs.
ROWS: dict[str, tuple[Callable[[], Trainer], int, int]] = {
    "fused_mf_sgd": (lambda: fused(PAPER), 32, 5),
    "fused_mf_adagrad": (lambda: fused(STANDARD), 32, 5),
    "stacked_mf": (lambda: StackedTrainer(mf(PAPER), PAPER, device="cpu"), 32, 2),
    "module_deep": (
        lambda: StackedTrainer(partial(DeepModel, initialization="paper"), PAPER, device="cpu"), 32, 1,
    ),
}  # fmt: skip


def main() -> None:
    """Print where the trainers are, then for each name that comes in the processor seconds of its row."""
    torch.set_num_threads(1)
    bench = Bench(load_dataset("ml-100k" if data_folder() is not None else "synthetic"), quick=False)
    trainers = {name: make() for name, (make, _, _) in ROWS.items()}
    print(recmodels.training.trainer.__file__, flush=True)
    for line in sys.stdin:
        name = line.strip()
        _, count, epochs = ROWS[name]
        begun = time.process_time()
        epoch_seconds(trainers[name], bench, count, epochs)
        print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main()
