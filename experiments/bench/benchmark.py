"""Measure speed and memory, each figure against its baseline in the same run, on one core.

    gploss bench --out results/bench

Prints one table and writes bench.json: a row a figure with name, value, unit, baseline, ratio and machine. Figures
that compare two things alternate between them and report medians, since machines are noisy.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

from experiments.bench.reference_loop import reference_epoch
from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from gploss.environment import environment, versions
from gploss.files.whole import write_text_atomic
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.report.page import Page, Section, Table
from gploss.screening.screening import screen
from gploss.search.evaluation import Evaluation
from gploss.searchers.genetic import GeneticSearcher
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import data_folder, load_dataset
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.metrics import evaluate
from recmodels.metrics.targets import Targets
from recmodels.models.base import ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.choice import choose_trainer
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, Trainer


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: of the figure.
        value: what was measured.
        unit: of the value.
        baseline: what it is compared with.
        ratio: how many times better than the baseline, or the share of it that is used up.
    """

    name: str
    value: float
    unit: str
    baseline: str
    ratio: float


@dataclass(frozen=True)
class Bench:
    """What the figures are measured on.

    Attributes:
        split: the data.
        quick: fewer repetitions on less data.
    """

    split: Split
    quick: bool

    @property
    def repeats(self) -> int:
        """How often two things alternate."""
        return 2 if self.quick else 5

    @property
    def train(self) -> Interactions:
        """The training part, a quarter of it where it has to be quick."""
        train = self.split.train
        return train.take(np.arange(len(train) // 4)) if self.quick else train

    @cached_property
    def problem(self) -> PointwiseProblem:
        """The training part, and next to nothing to validate on."""
        return PointwiseProblem(Split(self.split.name, self.train, one_row(self.split.validation), self.split.test))


def one_row(interactions: Interactions) -> Interactions:
    """A positive and a negative: validation that costs nothing, where training is what is measured."""
    rows = [int(np.argmax(interactions.labels == label)) for label in (1, 0)]
    return interactions.take(np.array(rows))


def losses(count: int) -> list[Expression]:
    """Hand-made losses, in turn."""
    names = ("bce", "mse", "hinge", "focal")
    return [LOSSES[names[k % len(names)]].expression for k in range(count)]


def epoch_seconds(trainer: Trainer, bench: Bench, count: int, epochs: int = 1) -> float:
    """Seconds a candidate-epoch of a population, metrics excluded."""
    program = screen(losses(count), scale_free=trainer.protocol.scale_free).losses
    members = [Member(k, 0) for k in range(count)]
    problem = bench.problem
    begun = time.perf_counter()
    trainer.fit(program, members, problem, epochs)
    return (time.perf_counter() - begun) / (count * epochs)


def against_reference(
    name: str, bench: Bench, trainer: Trainer, model: ModelFactory, count: int, epochs: int = 1
) -> Figure:
    """Candidate-epochs a second of a trainer, and how many times that of the reference loop."""
    epoch_seconds(trainer, bench, count)
    ours, theirs = alternate(
        lambda: epoch_seconds(trainer, bench, count, epochs),
        lambda: reference_epoch(model, bench.train),
        bench.repeats,
    )
    return Figure(name, 1 / ours, "candidate-epochs/s", "one-model PyTorch loop", theirs / ours)


def alternate(one: Callable[[], float], other: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Medians of two measurements taken in turn."""
    pairs = [(one(), other()) for _ in range(repeats)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def mf(protocol: Protocol) -> ModelFactory:
    """Matrix factorisation as a protocol initialises it."""
    return partial(MF, initialization=protocol.initialization)


def fused(protocol: Protocol, n_jobs: int = 1) -> FusedTrainer:
    """The fused trainer on so many cores; patience aside, so that every epoch is trained."""
    return FusedTrainer(mf(protocol), replace(protocol, patience=None), device="cpu", n_jobs=n_jobs)


def fused_mf_sgd(bench: Bench) -> Figure:
    """The fused trainer, MF, plain SGD under protocol paper."""
    return against_reference("fused_mf_sgd", bench, fused(PAPER), mf(PAPER), 32, 5)


def fused_mf_adagrad(bench: Bench) -> Figure:
    """The fused trainer, MF, Adagrad under protocol standard, against the same loop."""
    return against_reference("fused_mf_adagrad", bench, fused(STANDARD), mf(PAPER), 32, 5)


def two_cores(bench: Bench) -> Figure:
    """The fused trainer on two cores against one."""
    one, two = fused(PAPER, 1), fused(PAPER, 2)
    both, single = alternate(
        lambda: epoch_seconds(two, bench, 64, 5), lambda: epoch_seconds(one, bench, 64, 5), 3 * bench.repeats
    )
    return Figure("two_cores", 1 / both, "candidate-epochs/s", "one core", single / both)


def stacked_mf(bench: Bench) -> Figure:
    """The stacked trainer at 32 candidates, MF under protocol paper."""
    return against_reference("stacked_mf", bench, StackedTrainer(mf(PAPER), PAPER, device="cpu"), mf(PAPER), 32, 3)


def module_deep(bench: Bench) -> Figure:
    """Any module at 32 candidates: DeepModel under protocol paper, against its own loop."""
    model: ModelFactory = partial(DeepModel, initialization="paper")
    return against_reference("module_deep", bench, StackedTrainer(model, PAPER, device="cpu"), model, 32, 3)


def gpu_1024(bench: Bench) -> Figure:
    """1,024 candidates on a GPU, batches of 128."""
    trainer = choose_trainer(mf(PAPER), PAPER, device="cuda")
    return against_reference("gpu_1024", bench, trainer, mf(PAPER), 1024, 2)


def memory_128(bench: Bench) -> Figure:
    """Peak memory that a population of 128 adds."""
    added = in_fresh_process(_stacked_memory, bench)
    return Figure("memory_128_mb", added, "MB", "200 MB", added / 200)


def _stacked_memory(bench: Bench) -> float:
    return added_memory(StackedTrainer(mf(STANDARD), STANDARD, device="cpu"), bench, 128)


def memory_512(bench: Bench) -> Figure:
    """Peak memory that a population of 512 adds to the fused trainer."""
    added = in_fresh_process(_fused_memory, bench)
    return Figure("memory_512_mb", added, "MB", "20 MB", added / 20)


def _fused_memory(bench: Bench) -> float:
    return added_memory(fused(STANDARD), bench, 512)


def added_memory(trainer: Trainer, bench: Bench, count: int) -> float:
    """Peak resident memory in MB that training a population adds, kernels and data being there already."""
    torch.set_num_threads(1)
    epoch_seconds(trainer, bench, 1)
    gc.collect()
    before = resident_megabytes()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    epoch_seconds(trainer, bench, count)
    done.set()
    watcher.join()
    return peak - before


def resident_megabytes() -> float:
    """Memory of this process that is in use now; the peak so far where the system does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_fresh_process(measure: Callable[[Bench], float], bench: Bench) -> float:
    """Measure in a process that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (bench,))


def batched_auc(bench: Bench) -> Figure:
    """AUC of 128 candidates at once, against one scikit-learn call a candidate."""
    from sklearn.metrics import roc_auc_score  # what users need not have

    validation = bench.split.validation
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(128, len(validation))).astype(np.float32)
    targets = Targets(validation.labels)
    tensor = torch.from_numpy(scores)

    def ours() -> float:
        begun = time.perf_counter()
        evaluate(["auc"], tensor, targets)
        return (time.perf_counter() - begun) / len(scores)

    def theirs() -> float:
        begun = time.perf_counter()
        for row in scores[:32]:
            roc_auc_score(validation.labels, row)
        return (time.perf_counter() - begun) / 32

    ours()
    own, other = alternate(ours, theirs, 3 * bench.repeats)
    return Figure("auc_per_s", 1 / own, "candidates/s", "roc_auc_score, one call a candidate", other / own)


def screening(bench: Bench) -> Figure:
    """Screening and fingerprinting built expressions, direction check off."""
    grammar = Grammar.standard()

    def fresh() -> list[Expression]:
        rng = np.random.default_rng(0)
        return [grammar.sample(rng, 1 + k % grammar.max_size) for k in range(5000)]

    screen(fresh()[:10])
    rates = []
    for _ in range(bench.repeats):
        expressions = fresh()  # built anew, so that nothing is remembered from the last time
        begun = time.perf_counter()
        screen(expressions)
        rates.append(len(expressions) / (time.perf_counter() - begun))
        del expressions
    return Figure("screening_per_s", median(rates), "expressions/s", "20,000 a second", median(rates) / 20_000)


def search_overhead(bench: Bench) -> Figure:
    """Share of a genetic search's time that is neither training nor metrics, at 5 epochs a candidate."""
    evaluator = LossEvaluator(PointwiseProblem(bench.split), fused(STANDARD), epochs=5)
    training = 0.0

    def add(_: object, evaluations: Sequence[Evaluation], __: object) -> None:
        nonlocal training
        training += sum(one.seconds for one in evaluations if one.charged)

    searcher = GeneticSearcher(Grammar.standard(), evaluator, seed=0)
    begun = time.perf_counter()
    searcher.run(50 if bench.quick else 300, callbacks=[add], progress=False)
    whole = time.perf_counter() - begun
    return Figure(
        "search_overhead",
        100 * (whole - training) / whole,
        "% of wall time",
        "15 %",
        (whole - training) / whole / 0.15,
    )


def whole_search(bench: Bench) -> Figure:
    """A genetic search of 2,000 candidates, 5 epochs each, on two cores."""
    count = 100 if bench.quick else 2000
    evaluator = LossEvaluator(PointwiseProblem(bench.split), fused(STANDARD, 2), epochs=5)
    searcher = GeneticSearcher(Grammar.standard(), evaluator, seed=0)
    begun = time.perf_counter()
    searcher.run(count, progress=False)
    seconds = (time.perf_counter() - begun) * 2000 / count
    return Figure("whole_search_2000", seconds, "s", "120 s", seconds / 120)


FIGURES: tuple[Callable[[Bench], Figure], ...] = (
    fused_mf_sgd,
    fused_mf_adagrad,
    two_cores,
    memory_512,
    stacked_mf,
    module_deep,
    memory_128,
    batched_auc,
    screening,
    search_overhead,
    whole_search,
    gpu_1024,
)


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure every figure, one after the other."""
    for figure in FIGURES:
        if figure is gpu_1024 and not torch.cuda.is_available():
            say("skipping gpu_1024: there is no GPU here")
            continue
        if figure is batched_auc and find_spec("sklearn") is None:
            say("skipping auc_per_s: scikit-learn, its baseline, is not installed")
            continue
        say(f"measuring: {(figure.__doc__ or figure.__name__).splitlines()[0]}")
        yield figure(bench)


def table_of(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """The figures for people."""
    return pd.DataFrame(
        [
            {
                "figure": row["name"],
                "value": f"{row['value']:,.1f} {row['unit']}",
                "baseline": row["baseline"],
                "ratio": f"{row['ratio']:,.2f}",
            }
            for row in rows
        ]
    )


class BenchSettings(options.FolderSettings):
    """What is measured."""

    quick: options.Quick = False
    out: options.Out = Path("results/bench")


@command("bench", BenchSettings)
def run(settings: BenchSettings, folder: RunFolder) -> Page:
    """Measure speed and memory, each figure against its baseline."""
    torch.set_num_threads(1)
    split = load_dataset("ml-100k" if data_folder() is not None else "synthetic")
    machine = f"{environment()['cpu']}, one core; {split.name}"
    with folder.open({split.name: split.describe()}):
        rows = [asdict(figure) | {"machine": machine} for figure in measure(Bench(split, settings.quick))]
        text = json.dumps({"machine": environment() | versions(), "figures": rows}, indent=1)
        write_text_atomic(folder.file("bench.json"), text + "\n")
        return folder.save(Page(f"Benchmark: {machine}", "", [Section("Figures", [Table(table_of(rows))])]))


if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
