"""Compare searchers end to end: the same data, model, grammar, trainer, reward filter and budget for each.

    gploss compare --dataset ml-100k --budget 300 --seeds 5 --out results/ml-100k

Writes tables and plots of search efficiency, and ends with a confirmation: the best loss of each searcher against
hand-made and published ones, all tuned alike, from fresh seeds, on the test split.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from experiments.parts.reading import load_problem
from experiments.parts.searching import (
    finish,
    grammar_of,
    make_searcher,
    make_trainer,
    search_file,
)
from experiments.parts.verdict import judge, loss_curves, verdict_parts
from experiments.parts.workers import default_jobs, side_by_side
from gploss.files.whole import write_csv_atomic
from gploss.report import plots
from gploss.report.page import Figure, Note, Page, Section, Table
from gploss.report.summary import readable_summary, summary
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import PROTOCOLS, STANDARD
from recmodels.verdict.confirmation import Verdict
from recmodels.verdict.rivals import Rival, rivals_of
from recmodels.verdict.tables import verdict_sentence, verdict_table


class Compare(options.DataSettings, options.VerdictSettings):
    """What is compared, and how."""

    searchers: options.Searchers = ("random", "genetic", "rl")
    budget: options.Budget = 200
    seeds: options.Seeds = 3
    epochs: options.Epochs = 3
    protocol: options.Protocol = "standard"
    check_direction: options.CheckDirection = False
    rivals: options.Rivals = ("bce", "mse", "hinge", "focal", "maxr", "sumr", "logmin")
    jobs: options.Jobs = None
    out: options.Out = Path("results/compare")


@command("compare", Compare)
def run(settings: Compare, folder: RunFolder) -> Page:
    """Compare searchers at equal budgets, and confirm their best losses on test."""
    problem = load_problem(settings.dataset, settings)
    if settings.protocol == "paper":
        say(
            "note: protocol 'paper' was made for a search that starts from a partly trained model; from scratch, "
            "rewards after a few epochs are close to chance"
        )
    with folder.open({settings.dataset: problem.split.describe()}):
        cache = folder.file("cache.sqlite")
        reference = reference_rewards(settings, problem, cache)
        results = search(settings, problem, cache, folder)
        say("confirmation: tuning all losses alike on validation, then fresh seeds on test")
        trainer = make_trainer(settings.model, STANDARD, settings.device)
        found = contenders(results, settings)
        verdict = judge(settings, found, trainer, problem, cache, epochs=settings.final_epochs)
        evaluations = evaluation_table(results)
        write_csv_atomic(evaluations.drop(columns=["complexity", "elapsed"]), folder.file("evaluations.csv"))
        write_csv_atomic(
            summary(evaluations, higher_is_better=problem.higher_is_better), folder.file("summary.csv")
        )
        write_csv_atomic(verdict_table(verdict), folder.file("confirmation.csv"))
        folder.note(searches=[one.settings for one in results])
        return folder.save(page_of(settings, problem, evaluations, reference, results, verdict))


def evaluator_of(settings: Compare, problem: PointwiseProblem, replicate: int, cache: Cache) -> LossEvaluator:
    """Return what evaluates losses in one replicate: all searchers of it share the training seed."""
    return LossEvaluator(
        problem,
        make_trainer(settings.model, PROTOCOLS[settings.protocol], settings.device),
        epochs=settings.epochs,
        seed=training_seed(settings.seed, replicate),
        cache=cache,
        check_direction=settings.check_direction,
    )


def reference_rewards(settings: Compare, problem: PointwiseProblem, cache_file: Path) -> dict[str, float]:
    """Median over replicates of each rival's reward, at the protocol's own rate and decay."""
    rivals = rivals_of(settings.rivals or problem.task.losses.names(), problem.task)
    rewards: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    with Cache(cache_file) as cache:
        for replicate in range(settings.seeds):
            evaluator = evaluator_of(settings, problem, replicate, cache)
            evaluations = evaluator.evaluate([rival.loss for rival in rivals], {}, len(rivals))
            for rival, evaluation in zip(rivals, evaluations, strict=True):
                rewards[rival.name].append(float("nan") if evaluation.reward is None else evaluation.reward)
    return {name: float(np.median(values)) for name, values in rewards.items()}


def search(settings: Compare, problem: PointwiseProblem, cache_file: Path, folder: RunFolder) -> list[SearchResult]:
    """Run every searcher once a replicate; replicates go side by side, with the same results for any number."""
    arguments = []
    for replicate in range(settings.seeds):
        files = {name: search_file(folder, f"{name}-{replicate}") for name in settings.searchers}
        arguments.append((settings, problem, replicate, cache_file, files))
    jobs = settings.jobs or default_jobs(settings.device, settings.seeds)
    return [result for replicate in side_by_side(run_replicate, arguments, jobs) for result in replicate]


def run_replicate(
    settings: Compare, problem: PointwiseProblem, replicate: int, cache_file: Path, files: Mapping[str, Path]
) -> list[SearchResult]:
    """Run every searcher once, one after the other."""
    with Cache(cache_file) as cache:
        evaluator = evaluator_of(settings, problem, replicate, cache)
        grammar = grammar_of(PROTOCOLS[settings.protocol])
        return [
            finish(make_searcher(name, grammar, evaluator, replicate), settings.budget, file)
            for name, file in files.items()
        ]


def evaluation_table(results: Sequence[SearchResult]) -> pd.DataFrame:
    """All evaluations, a row a proposal; `elapsed` counts what the cache saved as if it had been trained."""
    frames = []
    for result in results:
        frame = result.evaluations.copy()
        frame.insert(0, "searcher", result.searcher)
        frame.insert(1, "seed", result.seed)
        saved = frame["seconds"].where(frame["cached"], 0.0).cumsum()
        frame["elapsed"] = frame["elapsed"] + saved
        frames.append(frame.drop(columns=["duplicate_of"]))
    return pd.concat(frames, ignore_index=True)


def contenders(results: Sequence[SearchResult], settings: Compare) -> list[Rival]:
    """Each searcher's best few over all replicates."""
    found = []
    for searcher in settings.searchers:
        best = best_of(results, searcher).top(settings.contenders)
        found += [
            Rival(f"{searcher} {place}", searcher, loss.evaluation.loss) for place, loss in enumerate(best, start=1)
        ]
    return found


def best_of(results: Sequence[SearchResult], searcher: str) -> SearchResult:
    """All runs of a searcher as one result."""
    return SearchResult.join(result for result in results if result.searcher == searcher)


def figures_of(
    settings: Compare,
    problem: PointwiseProblem,
    evaluations: pd.DataFrame,
    reference: Mapping[str, float],
    results: Sequence[SearchResult],
) -> list[Figure]:
    """Draw the four figures."""
    metric, higher = f"validation {problem.metric}", problem.higher_is_better
    best = {searcher: best_of(results, searcher).best for searcher in settings.searchers}
    known = rivals_of(settings.rivals or problem.task.losses.names(), problem.task)[0]
    found = {searcher: loss.evaluation.loss for searcher, loss in best.items() if loss is not None}
    shown = {known.name: known.loss, **found}
    curves = loss_curves(shown, problem.task, scale_free=PROTOCOLS[settings.protocol].scale_free)
    efficiency = plots.efficiency(evaluations, reference, metric, higher_is_better=higher)
    return [
        Figure("efficiency.png", efficiency, "Search efficiency"),
        Figure("filters.png", plots.filters(evaluations), "What was rejected, and why"),
        Figure(
            "pareto.png", plots.pareto(evaluations, metric, higher_is_better=higher), "Reward against complexity"
        ),
        Figure("losses.png", plots.loss_curves(curves), "The best losses and their gradients"),
    ]


def page_of(
    settings: Compare,
    problem: PointwiseProblem,
    evaluations: pd.DataFrame,
    reference: Mapping[str, float],
    results: Sequence[SearchResult],
    verdict: Verdict,
) -> Page:
    """What the run came to."""
    protocol, metric = PROTOCOLS[settings.protocol], f"validation {problem.metric}"
    trainer = make_trainer(settings.model, protocol, settings.device)
    how = Note(
        f"Model {settings.model}, protocol {protocol.name}, grammar {grammar_of(protocol).name}; {settings.budget} "
        f"candidates a run, {settings.epochs} epoch(s) each, {settings.seeds} seed(s); trainer "
        f"{trainer.describe(problem.schema)['trainer']}."
    )
    condensed = readable_summary(summary(evaluations, higher_is_better=problem.higher_is_better), metric)
    references = pd.DataFrame([{"loss": name, metric: f"{value:.4f}"} for name, value in reference.items()])
    untuned = Note("At the protocol's own rate and decay, median over the same seeds.")
    tuned = Note(
        f"Protocol standard; {settings.tuning_seeds} tuning seeds; at most {settings.final_epochs} epochs."
    )
    sections = [
        Section("Search", [how, Table(condensed)]),
        Section("Hand-made losses", [untuned, Table(references)]),
        Section("Confirmation", [*verdict_parts(verdict), tuned]),
        Section("Figures", figures_of(settings, problem, evaluations, reference, results)),
    ]
    return Page(f"Searchers compared on {problem.name}", verdict_sentence(verdict), sections)


if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
