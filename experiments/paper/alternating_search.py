"""Phases 1 and 2 of AutoLossGen: alternating search, and the validity check of all that it met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.command import options
from experiments.command.folder import RunFolder
from experiments.command.running import say
from experiments.paper.published import AUTHORS, long_epochs, long_protocol
from experiments.parts.searching import (
    finish,
    grammar_of,
    make_searcher,
    make_trainer,
    search_file,
)
from experiments.parts.workers import default_jobs, side_by_side
from gploss.compute.program import Program
from gploss.files.whole import write_csv_atomic
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.report import plots
from gploss.report.page import Figure
from gploss.search.budget import Budget
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.search.result import SearchResult
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import AskTellSearcher
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import DIRECTION_NEEDED, DIRECTION_POINTS, POINTWISE, right_directions
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.alternating import AlternatingEvaluator
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import PROTOCOLS
from recmodels.training.trainer import Trainer

#: Losses whose directions are looked at together.
_AT_A_TIME = 64


class AutoLossGen(options.DataSettings, options.JudgeSettings):
    """What is done, and how."""

    protocol: options.Protocol = "paper"
    searchers: options.Searchers = ("rl",)
    rounds: options.Rounds = 50
    budget: options.BudgetOrRounds = None
    samples: options.Samples = 100
    seeds: options.Seeds = 1
    phases: options.Phases = ("1", "2", "3")
    losses: options.Losses = None
    rivals: options.Rivals = tuple(AUTHORS)
    survivors: options.Survivors = 64
    top: options.Top = 10
    tests: options.Tests = 5
    final_epochs: options.LongEpochs = None
    jobs: options.Jobs = None
    out: options.Out = Path("results/autolossgen")

    @property
    def most_epochs(self) -> int:
        """How long the final training may last."""
        return self.final_epochs or long_epochs(PROTOCOLS[self.protocol])


def search(settings: AutoLossGen, problem: PointwiseProblem, folder: RunFolder) -> list[Figure]:
    """Run every searcher once a replicate; write each run and the rounds' history, and draw three figures.

    Replicates go side by side, with the same results for any number of jobs.
    """
    cache = folder.file("cache.sqlite")
    arguments = []
    for replicate in range(settings.seeds):
        files = {name: search_file(folder, f"{name}-{replicate}") for name in settings.searchers}
        for name in settings.searchers:
            folder.file(f"runs/{name}-{replicate}.rounds.csv")
        arguments.append((settings, problem, replicate, cache, files))
    jobs = settings.jobs or default_jobs(settings.device, settings.seeds)
    for replicate, lines in enumerate(side_by_side(run_replicate, arguments, jobs)):
        for line in lines:
            say(f"phase 1: seed {replicate}: {line}")
    history, evaluations = histories(settings), evaluation_table(settings)
    write_csv_atomic(history, folder.file("rounds.csv"))
    metric, higher = f"validation {problem.metric}", problem.higher_is_better
    title = "How fast each searcher improves the recommender"
    efficiency = plots.efficiency(steps(history, evaluations), {}, metric, title=title, higher_is_better=higher)
    return [
        Figure("rounds.png", plots.rounds(history, metric), "The recommender after each round"),
        Figure("filters.png", plots.filters(evaluations), "What was rejected, and why"),
        Figure("efficiency.png", efficiency, title),
    ]


def run_replicate(
    settings: AutoLossGen, problem: PointwiseProblem, replicate: int, cache_file: Path, files: Mapping[str, Path]
) -> list[str]:
    """Run every searcher once, one after the other; return a line of text about each."""
    with Cache(cache_file) as cache:
        return [run_search(settings, problem, cache, name, replicate, file) for name, file in files.items()]


def run_search(
    settings: AutoLossGen, problem: PointwiseProblem, cache: Cache, name: str, replicate: int, checkpoint: Path
) -> str:
    """Run one searcher and write what it did; return a line of text about it."""
    protocol = PROTOCOLS[settings.protocol]
    inner = LossEvaluator(
        problem,
        make_trainer(settings.model, protocol, settings.device),
        epochs=1,
        seed=training_seed(settings.seed, replicate),
        cache=cache,
    )
    step_trainer = make_trainer(settings.model, long_protocol(protocol), settings.device)
    evaluator = alternating(inner, step_trainer, None if settings.budget else settings.rounds, settings.samples)
    searcher = alternating_searcher(name, grammar_of(protocol), evaluator, replicate)
    # Where rounds end the run, no more samples than these can come before their end.
    most = settings.budget or 2 * (settings.samples + searcher.proposals_at_once) * settings.rounds
    result = finish(searcher, Budget(candidates=most), checkpoint)
    if not evaluator.history:
        raise ValueError(
            f"{name}, seed {replicate}, trained {most} losses before its first round ended: allow more"
        )
    history = pd.DataFrame([asdict(step) for step in evaluator.history])
    write_csv_atomic(history, checkpoint.with_suffix(".rounds.csv"))
    counts = result.counts
    return (
        f"{name} trained {counts['trained']} of {counts['proposals']} samples in {len(history)} rounds and "
        f"{result.elapsed[-1]:.0f} s; the recommender's validation value is {evaluator.start_value:.4f}"
    )


def alternating(
    inner: LossEvaluator, step_trainer: Trainer, rounds: int | None = None, samples: int = 100
) -> AlternatingEvaluator:
    """Return phase 1's evaluator: as many fresh samples as a round has are tried where none of these will do."""
    return AlternatingEvaluator(
        inner, step_trainer=step_trainer, samples_per_round=samples, fresh_samples=samples, rounds=rounds
    )


def alternating_searcher(
    name: str, grammar: Grammar, evaluator: AlternatingEvaluator, seed: int, *, reward_filter: bool | None = None
) -> AskTellSearcher:
    """Return a searcher whose batches fit into rounds.

    Args:
        name: as registered; "rl" makes 10 proposals at a time (one update), "genetic" has 30 survivors.
        grammar: what may be proposed.
        evaluator: alternating.
        seed: of the searcher.
        reward_filter: whether rewards below the baseline count as -1; by default for "rl" only, since a population
            ranks its members, and needs no baseline.
    """
    use_filter = name == "rl" if reward_filter is None else reward_filter
    at_once = 10 if name == "rl" else min(50, evaluator.samples_per_round)
    return make_searcher(
        name,
        grammar,
        evaluator,
        seed,
        reward_filter=BaselineFilter(start=evaluator.start_value) if use_filter else None,
        proposals_at_once=at_once,
        population_size=30,
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


def finished_runs(settings: AutoLossGen) -> list[tuple[str, int, Path]]:
    """Searcher, replicate and result of every run.

    Raises:
        ValueError: one is not finished.
    """
    found = []
    for name in settings.searchers:
        for replicate in range(settings.seeds):
            path = settings.out / "runs" / f"{name}-{replicate}.json"
            if not path.is_file():
                raise ValueError(f"{path} is not there: run phase 1 first")
            found.append((name, replicate, path))
    return found


def histories(settings: AutoLossGen) -> pd.DataFrame:
    """How each round of each run ended, a row a round."""
    frames = []
    for name, replicate, path in finished_runs(settings):
        frame = pd.read_csv(path.with_suffix(".rounds.csv"))
        frame.insert(0, "searcher", name)
        frame.insert(1, "seed", replicate)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def evaluation_table(settings: AutoLossGen) -> pd.DataFrame:
    """All evaluations of all runs, a row a sample."""
    frames = []
    for name, replicate, path in finished_runs(settings):
        frame = SearchResult.load(path).evaluations.copy()
        frame.insert(0, "searcher", name)
        frame.insert(1, "seed", replicate)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def check(settings: AutoLossGen, folder: RunFolder) -> str:
    """Look at every loss that phase 1 trained, write which pull predictions the right way, and say how many."""
    met: dict[str, dict[str, object]] = {}
    for name, _, path in finished_runs(settings):
        result = SearchResult.load(path)
        history = pd.read_csv(path.with_suffix(".rounds.csv"))
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
    write_csv_atomic(table, folder.file("valid.csv"))
    return (
        f"{int(table['valid'].sum())} of {len(table)} trained losses pull predictions the right way in more than "
        f"{DIRECTION_NEEDED} of {2 * DIRECTION_POINTS} cases."
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


def survivors(settings: AutoLossGen) -> list[NamedLoss]:
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
