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
from experiments.parts import (
    default_jobs,
    finish,
    grammar_of,
    load_data,
    loss_curves,
    make_trainer,
    search_file,
    side_by_side,
)
from gploss.files.whole import write_csv_atomic
from gploss.report import plots
from gploss.report.page import Figure, Note, Page, Section, Table
from gploss.report.summary import readable_summary, summary
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.search.searcher import SEARCHERS
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import PROTOCOLS, STANDARD
from recmodels.verdict.confirmation import Verdict, confirm
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tables import ONLY_WRITTEN, verdict_notes, verdict_sentence, verdict_table

#: Losses that every search is measured against.
REFERENCES = ("bce", "mse", "hinge", "focal", "maxr", "sumr", "logmin")


class Compare(options.DataSettings):
    """What is compared, and how."""

    searchers: options.Searchers = ("random", "genetic", "rl")
    budget: options.Budget = 200
    seeds: options.Seeds = 3
    epochs: options.Epochs = 3
    protocol: options.Protocol = "standard"
    check_direction: options.CheckDirection = False
    finalists: options.Finalists = 3
    final_epochs: options.FinalEpochs = 10
    tuning_seeds: options.TuningSeeds = 3
    tests: options.Tests = 10
    jobs: options.Jobs = 0
    out: options.Out = Path("results/compare")


@command("compare", Compare)
def run(settings: Compare, folder: RunFolder) -> Page:
    """Compare searchers at equal budgets, and confirm their best losses on test."""
    split = load_data(settings)
    if settings.protocol == "paper":
        say(
            "note: protocol 'paper' was made for a search that starts from a partly trained model; from scratch, "
            "rewards after a few epochs are close to chance"
        )
    with folder.open({settings.dataset: split.describe()}):
        cache = folder.file("cache.sqlite")
        reference = reference_rewards(settings, split, cache)
        results = search(settings, split, cache, folder)
        say("confirmation: tuning all losses alike on validation, then fresh seeds on test")
        verdict = judge(settings, split, results, cache)
        evaluations = evaluation_table(results)
        write_csv_atomic(evaluations.drop(columns=["complexity", "elapsed"]), folder.file("evaluations.csv"))
        write_csv_atomic(summary(evaluations), folder.file("summary.csv"))
        write_csv_atomic(verdict_table(verdict), folder.file("confirmation.csv"))
        folder.note(searches=[one.settings for one in results])
        return folder.save(page_of(settings, split, evaluations, reference, results, verdict))


def judge(settings: Compare, split: Split, results: Sequence[SearchResult], cache_file: Path) -> Verdict:
    """Tune all losses alike, and compare them on test."""
    with Cache(cache_file) as cache:
        return confirm(
            rivals(results, settings),
            make_trainer(settings.model, STANDARD, settings.device),
            PointwiseProblem(split),
            epochs=settings.final_epochs,
            seed=settings.seed,
            tuning_seeds=settings.tuning_seeds,
            fresh_seeds=settings.tests,
            cache=cache,
            say=say,
        )


def evaluator_of(settings: Compare, split: Split, replicate: int, cache: Cache) -> LossEvaluator:
    """Return what evaluates losses in one replicate: all searchers of it share the training seed."""
    return LossEvaluator(
        PointwiseProblem(split),
        make_trainer(settings.model, PROTOCOLS[settings.protocol], settings.device),
        epochs=settings.epochs,
        seed=training_seed(settings.seed, replicate),
        cache=cache,
        check_direction=settings.check_direction,
    )


def reference_rewards(settings: Compare, split: Split, cache_file: Path) -> dict[str, float]:
    """Median over replicates of each hand-made loss's reward, at the protocol's own rate and decay."""
    rewards: dict[str, list[float]] = {name: [] for name in REFERENCES}
    with Cache(cache_file) as cache:
        for replicate in range(settings.seeds):
            evaluator = evaluator_of(settings, split, replicate, cache)
            evaluations = evaluator.evaluate([LOSSES[name].expression for name in REFERENCES], {}, len(REFERENCES))
            for name, evaluation in zip(REFERENCES, evaluations, strict=True):
                rewards[name].append(float("nan") if evaluation.reward is None else evaluation.reward)
    return {name: float(np.median(values)) for name, values in rewards.items()}


def search(settings: Compare, split: Split, cache_file: Path, folder: RunFolder) -> list[SearchResult]:
    """Run every searcher once a replicate; replicates go side by side, with the same results for any number."""
    arguments = []
    for replicate in range(settings.seeds):
        files = {name: search_file(folder, f"{name}-{replicate}") for name in settings.searchers}
        arguments.append((settings, split, replicate, cache_file, files))
    jobs = settings.jobs or default_jobs(settings.device, settings.seeds)
    return [result for replicate in side_by_side(run_replicate, arguments, jobs) for result in replicate]


def run_replicate(
    settings: Compare, split: Split, replicate: int, cache_file: Path, files: Mapping[str, Path]
) -> list[SearchResult]:
    """Run every searcher once, one after the other."""
    with Cache(cache_file) as cache:
        evaluator = evaluator_of(settings, split, replicate, cache)
        grammar = grammar_of(PROTOCOLS[settings.protocol])
        return [
            finish(SEARCHERS[name](grammar, evaluator, seed=replicate), settings.budget, file)
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


def rivals(results: Sequence[SearchResult], settings: Compare) -> list[Rival]:
    """Hand-made losses, and each searcher's best few over all replicates."""
    chosen = [Rival(name, HAND_MADE, LOSSES[name].expression) for name in REFERENCES]
    for searcher in settings.searchers:
        best = SearchResult.join(result for result in results if result.searcher == searcher).top(
            settings.finalists
        )
        chosen += [
            Rival(f"{searcher} {place}", searcher, loss.expression) for place, loss in enumerate(best, start=1)
        ]
    return chosen


def figures_of(
    settings: Compare, evaluations: pd.DataFrame, reference: Mapping[str, float], results: Sequence[SearchResult]
) -> list[Figure]:
    """Draw the four figures."""
    metric = "validation AUC"
    shown = [LOSSES["bce"]]
    for searcher in settings.searchers:
        best = SearchResult.join(result for result in results if result.searcher == searcher).best
        shown += [] if best is None else [NamedLoss(searcher, best.expression)]
    curves = loss_curves(shown, PROTOCOLS[settings.protocol].scale_free)
    return [
        Figure("efficiency.png", plots.efficiency(evaluations, reference, metric), "Search efficiency"),
        Figure("filters.png", plots.filters(evaluations), "What was rejected, and why"),
        Figure("pareto.png", plots.pareto(evaluations, metric), "Reward against complexity"),
        Figure("losses.png", plots.loss_curves(curves), "The best losses and their gradients"),
    ]


def page_of(
    settings: Compare,
    split: Split,
    evaluations: pd.DataFrame,
    reference: Mapping[str, float],
    results: Sequence[SearchResult],
    verdict: Verdict,
) -> Page:
    """What the run came to."""
    protocol = PROTOCOLS[settings.protocol]
    trainer = make_trainer(settings.model, protocol, settings.device)
    references = [{"loss": name, "validation AUC": f"{value:.4f}"} for name, value in reference.items()]
    how = Note(
        f"Model {settings.model}, protocol {protocol.name}, grammar {grammar_of(protocol).name}; {settings.budget} "
        f"candidates a run, {settings.epochs} epoch(s) each, {settings.seeds} seed(s); trainer {trainer.name}."
    )
    notes = [
        *verdict_notes(verdict),
        f"Protocol standard; {settings.tuning_seeds} tuning seeds; at most {settings.final_epochs} epochs.",
    ]
    sections = [
        Section("Search", [how, Table(readable_summary(summary(evaluations), "validation AUC"))]),
        Section(
            "Hand-made losses",
            [
                Note("At the protocol's own rate and decay, median over the same seeds."),
                Table(pd.DataFrame(references)),
            ],
        ),
        Section("Confirmation", [Table(verdict_table(verdict), only_written=ONLY_WRITTEN), *map(Note, notes)]),
        Section("Figures", figures_of(settings, evaluations, reference, results)),
    ]
    return Page(f"Searchers compared on {split.name}", verdict_sentence(verdict), sections)


if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
