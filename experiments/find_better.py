"""Search hard for a loss that beats the best tuned hand-made one, and say honestly whether it does.

    gploss improve --dataset ml-100k --model deep --budget 1000 --out results/better-deep
    gploss improve --dataset ml-100k --model mf --budget 10000 --out results/better-mf

Searches begin with the hand-made losses, and reward a loss by its mean over several validation parts. Their best
are tuned together with the hand-made ones, on validation parts and seeds that no search has seen; the one that is
best there is the only one that is compared on the test part.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.parts.reading import load_problem, problem_of, read_losses
from experiments.parts.searching import (
    finish,
    make_searcher,
    make_trainer,
    search_file,
)
from experiments.parts.verdict import found_table, judge, loss_curves, verdict_parts
from experiments.parts.workers import default_jobs, side_by_side
from gploss.compute.kinds import Loss
from gploss.files.whole import write_csv_atomic
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.report import plots
from gploss.report.page import Figure, Note, Page, Section
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.tasks import Task
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.splits import repeated_splits, rolling_splits
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.evaluators.repeated import RepeatedEvaluator
from recmodels.training.protocol import STANDARD
from recmodels.verdict.confirmation import Verdict
from recmodels.verdict.rivals import Rival
from recmodels.verdict.tables import verdict_sentence, verdict_table

#: Validation parts that searches look at, and those that choices are made on, have seeds of their own.
_SEARCH_SPLITS, _CHOICE_SPLITS = 1, 2

FOUND: Final = "found"

#: The standard grammar's limits are a little tight for varying the longer of the hand-made losses.
_GRAMMAR: Final = replace(
    Grammar.standard(extra=["softplus", "log_positive"]), name="wide", max_size=32, max_depth=12
)


class Improve(options.DataSettings, options.VerdictSettings):
    """What is done, and how."""

    searchers: options.Searchers = ("genetic",)
    budget: options.Budget = 1000
    seeds: options.Seeds = 2
    epochs: options.Epochs = 5
    population: options.Population = 100
    start_with: options.StartWith = None
    validation_parts: options.ValidationParts = 3
    validation: options.Validation = "drawn"
    contenders: options.Contenders = 10
    final_epochs: options.FinalEpochs = 20
    tuning_seeds: options.TuningSeeds = 2
    tests: options.Tests = 20
    jobs: options.Jobs = None
    out: options.Out = Path("results/better")


@command("improve", Improve)
def run(settings: Improve, folder: RunFolder) -> Page:
    """Search hard from the hand-made losses on; test the one find that is best on fresh validation parts."""
    problem = load_problem(settings.dataset, settings)
    initial = [loss.expression for _, loss in problem.task.losses.items()]
    if settings.start_with is not None:
        initial += [loss.expression for loss in read_losses(settings.start_with)]
    with folder.open({settings.dataset: problem.split.describe()}):
        cache = folder.file("cache.sqlite")
        arguments = [
            (settings, problem, name, replicate, initial, cache, search_file(folder, f"{name}-{replicate}"))
            for replicate in range(settings.seeds)
            for name in settings.searchers
        ]
        results = side_by_side(search, arguments, settings.jobs or default_jobs(settings.device, len(arguments)))
        verdict = judge(
            settings,
            contenders(results, settings, problem.task),
            make_trainer(settings.model, STANDARD, settings.device),
            problem,
            cache,
            epochs=settings.final_epochs,
            tuning_problems=validation_problems(settings, problem, _CHOICE_SPLITS),
        )
        finalists = [one.tuned for one in verdict.comparisons if one.tuned.group == FOUND]
        found = {one.name: one.loss for one in finalists}
        folder.note(searches=[{"counts": dict(one.counts), "seconds": one.elapsed[-1]} for one in results])
        write_csv_atomic(verdict_table(verdict), folder.file("confirmation.csv"))
        write_csv_atomic(found_table(settings.model, settings.dataset, found), folder.file("found.csv"))
        return folder.save(page_of(settings, problem, results, verdict, found))


def validation_problems(settings: Improve, problem: PointwiseProblem, purpose: int) -> list[PointwiseProblem]:
    """Return what losses are rewarded or chosen on; rolling parts are the same for both, training seeds are not."""
    if settings.validation == "rolling":
        splits = rolling_splits(problem.split, settings.validation_parts)
    else:
        seed = training_seed(settings.seed, purpose)
        splits = repeated_splits(problem.split, settings.validation_parts, seed=seed)
    return [problem_of(split, settings) for split in splits]


def search(
    settings: Improve,
    problem: PointwiseProblem,
    name: str,
    replicate: int,
    initial: Sequence[Expression],
    cache_file: Path,
    checkpoint: Path,
) -> SearchResult:
    """Run one search from the known losses on."""
    trainer = make_trainer(settings.model, STANDARD, settings.device)
    with Cache(cache_file) as cache:
        parts = [
            LossEvaluator(
                part,
                trainer,
                epochs=settings.epochs,
                seed=training_seed(settings.seed, replicate * settings.validation_parts + number),
                cache=cache,
            )
            for number, part in enumerate(validation_problems(settings, problem, _SEARCH_SPLITS))
        ]
        searcher = make_searcher(
            name,
            _GRAMMAR,
            RepeatedEvaluator(parts),
            replicate,
            begin_with=[loss for loss in initial if loss in _GRAMMAR],
            population_size=settings.population,
        )
        return finish(searcher, settings.budget, checkpoint)


def contenders(results: Sequence[SearchResult], settings: Improve, task: Task) -> list[Rival]:
    """The best of the found losses that are none of the known ones."""
    best = SearchResult.join(results).top(settings.contenders + len(task.losses))
    known = {loss.expression.canonical() for _, loss in task.losses.items()}
    found = [loss.expression for loss in best if loss.expression.canonical() not in known][: settings.contenders]
    return [Rival(f"found {place}", FOUND, loss) for place, loss in enumerate(found, start=1)]


def page_of(
    settings: Improve,
    problem: PointwiseProblem,
    results: Sequence[SearchResult],
    verdict: Verdict,
    found: Mapping[str, Loss],
) -> Page:
    """What the run came to."""
    best = verdict.comparisons[0].tuned
    trained = sum(one.counts["trained"] for one in results)
    beginning = "" if settings.start_with is None else f" and those of {settings.start_with.name}"
    how = Note(
        f"{len(results)} search(es) by {', '.join(settings.searchers)} of {settings.budget:,} candidates each, "
        f"beginning with the hand-made losses{beginning}: {trained:,} losses trained for {settings.epochs} epochs "
        f"on {settings.validation_parts} {settings.validation} validation parts. The {settings.contenders} best "
        f"were tuned together with the hand-made losses on {settings.validation_parts} parts with "
        f"{settings.tuning_seeds} seed(s) each."
    )
    shown = {best.name: best.loss, **found}
    curves = plots.loss_curves(loss_curves(shown, problem.task, scale_free=STANDARD.scale_free))
    return Page(
        f"A better loss for {settings.model} on {problem.name}?",
        verdict_sentence(verdict),
        [
            Section("Confirmation", [how, *verdict_parts(verdict)]),
            Section("Figures", [Figure("losses.png", curves, "The losses and their gradients")]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main(["improve", *sys.argv[1:]]))
