"""Phases 1 and 2 of AutoLossGen: alternating search, and the validity check of all that it met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.parts import (
    alternating,
    alternating_searcher,
    grammar_of,
    long_protocol,
    make_trainer,
    side_by_side,
)
from gploss.compute.program import Program
from gploss.files.whole import write_csv_atomic
from gploss.language.expression import Expression
from gploss.report import plots
from gploss.search.budget import Budget
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.search.result import SearchResult
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import DIRECTION_NEEDED, DIRECTION_POINTS, POINTWISE, right_directions
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import Protocol

#: Losses whose directions are looked at together.
_AT_A_TIME = 64


@dataclass(frozen=True)
class Settings:
    """What is done, and how.

    Attributes:
        candidates: how many losses a search trains before it ends; None lets `rounds` end it.
    """

    dataset: str
    model: str
    protocol: Protocol
    searchers: tuple[str, ...]
    rounds: int
    candidates: int | None
    samples: int
    seeds: int
    survivors: int
    top: int
    tests: int
    epochs: int
    device: str
    out: Path
    seed: int
    jobs: int

    @property
    def runs(self) -> Path:
        """Folder of phase 1's runs."""
        return self.out / "runs"

    def describe(self) -> dict[str, object]:
        """Return all settings as JSON."""
        return asdict(self) | {"protocol": self.protocol.describe(), "out": str(self.out)}


def search(settings: Settings, split: Split, *, resume: bool, console: Console) -> None:
    """Run every searcher once a replicate; write each run, the rounds' history, and three figures.

    Replicates go side by side, with the same results for any number of jobs.
    """
    arguments = [(settings, split, replicate, resume) for replicate in range(settings.seeds)]
    for replicate, lines in enumerate(side_by_side(run_replicate, arguments, settings.jobs)):
        for line in lines:
            console.print(f"phase 1: seed {replicate}: {line}")
    history, evaluations = histories(settings), evaluation_table(settings)
    plots.save(plots.rounds(history), settings.out / "rounds.png")
    plots.save(plots.filters(evaluations), settings.out / "filters.png")
    title = "How fast each searcher improves the recommender"
    figure = plots.efficiency(steps(history, evaluations), {}, "validation AUC", title=title)
    plots.save(figure, settings.out / "efficiency.png")
    write_csv_atomic(history, settings.out / "rounds.csv")


def run_replicate(settings: Settings, split: Split, replicate: int, resume: bool) -> list[str]:
    """Run every searcher once, one after the other; return a line of text about each."""
    with Cache(settings.out / "cache.sqlite") as cache:
        return [run_search(settings, split, cache, name, replicate, resume) for name in settings.searchers]


def run_search(settings: Settings, split: Split, cache: Cache, name: str, replicate: int, resume: bool) -> str:
    """Run one searcher and write what it did; return a line of text about it."""
    checkpoint = settings.runs / f"{name}-{replicate}.sqlite"
    if not resume:
        for old in settings.runs.glob(f"{name}-{replicate}.*"):
            old.unlink()
    inner = LossEvaluator(
        PointwiseProblem(split),
        make_trainer(settings.model, settings.protocol, settings.device),
        epochs=1,
        seed=training_seed(settings.seed, replicate),
        cache=cache,
    )
    step_trainer = make_trainer(settings.model, long_protocol(settings.protocol), settings.device)
    rounds = None if settings.candidates else settings.rounds
    evaluator = alternating(inner, step_trainer, rounds, settings.samples)
    searcher = alternating_searcher(name, grammar_of(settings.protocol), evaluator, replicate)
    # Where rounds end the run, no more samples than these can come before their end.
    most = settings.candidates or 2 * (settings.samples + searcher.proposals_at_once) * settings.rounds
    result = searcher.run(Budget(candidates=most), checkpoint=checkpoint)
    if result.stopped == "interrupted":
        raise RuntimeError(f"interrupted in {name}, seed {replicate}; add --resume to go on from there")
    if not evaluator.history:
        raise ValueError(
            f"{name}, seed {replicate}, trained {most} losses before its first round ended: allow more"
        )
    history = pd.DataFrame([asdict(step) for step in evaluator.history])
    write_csv_atomic(history, settings.runs / f"{name}-{replicate}.rounds.csv")
    result.save(settings.runs / f"{name}-{replicate}.json")
    counts = result.counts
    return (
        f"{name} trained {counts['trained']} of {counts['proposals']} samples in {len(history)} rounds and "
        f"{result.elapsed[-1]:.0f} s; the recommender's validation AUC is {evaluator.start_value:.4f}"
    )


def steps(history: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """A row a round, for `gploss.report.plots.efficiency`: what the recommender has reached, and at what cost."""
    frames = []
    for (name, seed), run in history.groupby(["searcher", "seed"], sort=False):
        own = evaluations[(evaluations["searcher"] == name) & (evaluations["seed"] == seed)]
        last = run["samples"].cumsum().to_numpy() - 1
        frame = pd.DataFrame({"searcher": name, "seed": seed, "step": run["round"], "reward": run["end"]})
        frame["status"] = Status.TRAINED.value
        frame["candidate"] = run["trained"].cumsum()
        frame["elapsed"] = own["elapsed"].to_numpy()[last]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def finished_runs(settings: Settings) -> list[tuple[str, int]]:
    """Searcher and replicate of every run in the folder."""
    found = []
    for path in sorted(settings.runs.glob("*.json")):
        name, _, replicate = path.stem.rpartition("-")
        found.append((name, int(replicate)))
    if not found:
        raise ValueError(f"{settings.runs} holds no finished search: run phase 1 first")
    return found


def histories(settings: Settings) -> pd.DataFrame:
    """How each round of each run ended, a row a round."""
    frames = []
    for name, replicate in finished_runs(settings):
        frame = pd.read_csv(settings.runs / f"{name}-{replicate}.rounds.csv")
        frame.insert(0, "searcher", name)
        frame.insert(1, "seed", replicate)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def evaluation_table(settings: Settings) -> pd.DataFrame:
    """All evaluations of all runs, a row a sample."""
    frames = []
    for name, replicate in finished_runs(settings):
        frame = SearchResult.load(settings.runs / f"{name}-{replicate}.json").evaluations.copy()
        frame.insert(0, "searcher", name)
        frame.insert(1, "seed", replicate)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def check(settings: Settings, console: Console) -> None:
    """Look at every loss that phase 1 trained, and write which of them pull predictions the right way."""
    met: dict[str, dict[str, object]] = {}
    for name, replicate in finished_runs(settings):
        result = SearchResult.load(settings.runs / f"{name}-{replicate}.json")
        history = pd.read_csv(settings.runs / f"{name}-{replicate}.rounds.csv")
        ended = np.repeat(history["start"].to_numpy(), history["samples"].to_numpy())
        # a search that trained its last candidate may have left a round unfinished: it started where the last ended
        starts = np.append(ended, np.full(len(result.records) - len(ended), history["end"].iloc[-1]))
        for evaluation, start in zip(result.records, starts, strict=True):
            if evaluation.status is Status.TRAINED:
                _add(met, evaluation, float(start), name)
    rows = list(met.values())
    for first in range(0, len(rows), _AT_A_TIME):
        part = rows[first : first + _AT_A_TIME]
        counts = _right_directions([Expression.parse(str(row["expression"])) for row in part])
        for row, right in zip(part, counts, strict=True):
            row["right"], row["valid"] = right, right > DIRECTION_NEEDED
    columns = ["expression", "searcher", "times", "gain", "reward", "complexity", "right", "valid"]
    table = pd.DataFrame(rows, columns=columns).sort_values(["gain", "complexity"], ascending=[False, True])
    write_csv_atomic(table, settings.out / "valid.csv")
    console.print(
        f"phase 2: {int(table['valid'].sum())} of {len(table)} losses are right in more than "
        f"{DIRECTION_NEEDED} of {2 * DIRECTION_POINTS} cases"
    )


def _add(met: dict[str, dict[str, object]], evaluation: Evaluation, start: float, searcher: str) -> None:
    """Record a trained loss, or a better result of one that is known."""
    assert evaluation.fingerprint is not None and evaluation.reward is not None
    gain = evaluation.reward - start
    known = met.get(evaluation.fingerprint)
    if known is not None:
        known["times"] = int(str(known["times"])) + 1
        if gain <= float(str(known["gain"])):
            return
    met[evaluation.fingerprint] = {
        "expression": str(evaluation.expression),
        "searcher": searcher,
        "times": 1 if known is None else known["times"],
        "gain": gain,
        "reward": evaluation.reward,
        "complexity": evaluation.expression.complexity,
    }


def _right_directions(expressions: Sequence[Expression]) -> list[int]:
    program = Program.compile(expressions, POINTWISE)
    return [int(count) for count in right_directions(lambda points: program.losses(points)[1])]


def survivors(settings: Settings) -> list[NamedLoss]:
    """The valid losses of phase 2 with the largest gains over their rounds' starts; maybe none."""
    path = settings.out / "valid.csv"
    if not path.is_file():
        raise ValueError(f"{path} is not there: run phase 2 first")
    table = pd.read_csv(path)
    table = table[table["valid"]].head(settings.survivors)
    counts: dict[str, int] = {}
    losses = []
    for searcher, text in zip(table["searcher"], table["expression"], strict=True):
        counts[searcher] = counts.get(searcher, 0) + 1
        losses.append(NamedLoss(f"{searcher} {counts[searcher]}", Expression.parse(text)))
    return losses
