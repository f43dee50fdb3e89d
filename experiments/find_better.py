"""Search hard for a loss that beats the best tuned hand-made one, and say honestly whether it does.

    python experiments/find_better.py --dataset ml-100k --model deep --budget 1000 --out results/better-deep
    python experiments/find_better.py --dataset ml-100k --model mf --budget 10000 --out results/better-mf

Genetic searches begin with the hand-made losses, and reward a loss by its mean over several validation parts. Their
best are tuned together with the hand-made ones, on validation parts and seeds that no search has seen; the one that
is best there is the only one that is compared on the test part.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import pandas as pd
from rich.console import Console

from experiments.parts import (
    default_jobs,
    loss_curves,
    make_trainer,
    read_losses,
    side_by_side,
)
from gploss.environment import environment, versions
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.language.grammar import Grammar
from gploss.report import plots
from gploss.report import tables as report
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.searchers.genetic import GeneticSearcher
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.splits import repeated_splits, rolling_splits
from recmodels.datasets import load_dataset
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.evaluators.repeated import RepeatedEvaluator
from recmodels.models.base import MODELS
from recmodels.training.protocol import STANDARD
from recmodels.verdict.confirmation import Verdict, confirm
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tables import verdict_notes, verdict_sentence, verdict_table

#: Validation parts that searches look at, and those that choices are made on, have seeds of their own.
_SEARCH_SPLITS, _CHOICE_SPLITS = 1, 2

FOUND: Final = "found"

#: The standard grammar's limits are a little tight for varying the longer of the hand-made losses.
_MAX_SIZE: Final = 24
_MAX_DEPTH: Final = 10


@dataclass(frozen=True)
class Settings:
    """What is done, and how."""

    dataset: str
    model: str
    budget: int
    seeds: int
    epochs: int
    splits: int
    validation: str
    population: int
    start_with: Path | None
    finalists: int
    long_epochs: int
    tuning_seeds: int
    tests: int
    device: str
    out: Path
    seed: int
    jobs: int


@click.command(context_settings={"show_default": True})
@click.option("--dataset", default="synthetic", help="synthetic, ml-100k, filmtrust, or the path of a table.")
@click.option("--model", type=click.Choice(MODELS.names()), default="mf", help="Recommender model.")
@click.option("--budget", type=click.IntRange(1), default=1000, help="Candidates of each search.")
@click.option("--seeds", type=click.IntRange(1), default=2, help="Searches.")
@click.option("--epochs", type=click.IntRange(1), default=5, help="Epochs of a candidate in a search.")
@click.option("--splits", type=click.IntRange(1), default=3, help="Validation parts, in search and in choice.")
@click.option(
    "--validation",
    type=click.Choice(["drawn", "rolling"]),
    default="drawn",
    help="The other validation parts: drawn at random, or each user's last rows before the first part.",
)
@click.option("--population", type=click.IntRange(2), default=100, help="Individuals that survive a round.")
@click.option(
    "--start-with",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A text file of losses, a formula a line, that searches begin with beside the hand-made ones.",
)
@click.option("--finalists", type=click.IntRange(1), default=10, help="Found losses that are tuned.")
@click.option("--long-epochs", type=click.IntRange(1), default=20, help="Most epochs in tuning and test.")
@click.option(
    "--tuning-seeds", type=click.IntRange(1), default=2, help="Seeds of each setting and split in tuning."
)
@click.option("--tests", type=click.IntRange(2), default=20, help="Fresh seeds of the test.")
@click.option("--device", default="auto", help="auto, cpu, cuda, or cuda:N.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/better"), help="Folder to write to.")
@click.option("--jobs", type=click.IntRange(0), default=0, help="Searches at the same time; 0: as many as cores.")
@click.option("--resume", is_flag=True, help="Go on with the searches in the folder, where they are unfinished.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the whole experiment.")
def main(resume: bool, jobs: int, **options: Any) -> None:
    """Search hard for a loss that beats the best tuned hand-made one."""
    try:
        run(Settings(jobs=jobs or default_jobs(options["device"], options["seeds"]), **options), resume=resume)
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, *, resume: bool) -> None:
    """Search, choose, confirm, and write what came out."""
    console = Console(stderr=True)
    (settings.out / "runs").mkdir(parents=True, exist_ok=True)
    split = load_dataset(settings.dataset)
    arguments = [(settings, split, replicate, resume) for replicate in range(settings.seeds)]
    results = side_by_side(search, arguments, settings.jobs)
    found = [loss.expression for loss in SearchResult.join(results).top(settings.finalists + len(LOSSES))]
    known = {loss.expression.canonical() for _, loss in LOSSES.items()}
    found = [loss for loss in found if loss.canonical() not in known][: settings.finalists]
    rivals = [Rival(name, HAND_MADE, loss.expression) for name, loss in LOSSES.items()]
    rivals += [Rival(f"found {place}", FOUND, loss) for place, loss in enumerate(found, start=1)]
    with Cache(settings.out / "cache.sqlite") as cache:
        verdict = confirm(
            rivals,
            make_trainer(settings.model, STANDARD, settings.device),
            PointwiseProblem(split),
            epochs=settings.long_epochs,
            seed=settings.seed,
            tuning_seeds=settings.tuning_seeds,
            fresh_seeds=settings.tests,
            tuning_problems=[PointwiseProblem(one) for one in validation_splits(settings, split, _CHOICE_SPLITS)],
            cache=cache,
            say=console.print,
        )
    write(settings, split, results, verdict)


def validation_splits(settings: Settings, split: Split, purpose: int) -> list[Split]:
    """Return what losses are rewarded or chosen on; rolling parts are the same for both, training seeds are not."""
    if settings.validation == "rolling":
        return rolling_splits(split, settings.splits)
    return repeated_splits(split, settings.splits, seed=training_seed(settings.seed, purpose))


def search(settings: Settings, split: Split, replicate: int, resume: bool) -> SearchResult:
    """Run one genetic search from the hand-made losses on."""
    checkpoint = settings.out / "runs" / f"genetic-{replicate}.sqlite"
    if not resume:
        for old in checkpoint.parent.glob(f"{checkpoint.name}*"):
            old.unlink()
    trainer = make_trainer(settings.model, STANDARD, settings.device)
    grammar = replace(Grammar.standard(), name="wide", max_size=_MAX_SIZE, max_depth=_MAX_DEPTH)
    initial = [loss.expression for _, loss in LOSSES.items()]
    if settings.start_with is not None:
        initial += [loss.expression for loss in read_losses(settings.start_with)]
    with Cache(settings.out / "cache.sqlite") as cache:
        cores = [
            LossEvaluator(
                PointwiseProblem(part),
                trainer,
                epochs=settings.epochs,
                seed=training_seed(settings.seed, replicate * settings.splits + number),
                cache=cache,
            )
            for number, part in enumerate(validation_splits(settings, split, _SEARCH_SPLITS))
        ]
        searcher = GeneticSearcher(
            grammar,
            RepeatedEvaluator(cores),
            seed=replicate,
            population_size=settings.population,
            initial=[loss for loss in initial if loss in grammar],
        )
        result = searcher.run(settings.budget, checkpoint=checkpoint)
    result.save(checkpoint.with_suffix(".json"))
    if result.stopped == "interrupted":
        raise click.ClickException(f"interrupted in seed {replicate}; add --resume to go on from there")
    return result


def write(settings: Settings, split: Split, results: Sequence[SearchResult], verdict: Verdict) -> None:
    """Write confirmation.csv, found.csv, losses.png, settings.json and summary.md."""
    out = settings.out
    table = verdict_table(verdict)
    write_csv_atomic(table, out / "confirmation.csv")
    finalists = [one.tuned for one in verdict.comparisons if one.tuned.group == FOUND]
    rows = [
        {
            "model": settings.model,
            "dataset": settings.dataset,
            "name": one.name,
            "expression": str(one.expression),
        }
        for one in finalists
    ]
    write_csv_atomic(pd.DataFrame(rows, columns=["model", "dataset", "name", "expression"]), out / "found.csv")
    shown = [NamedLoss(one.tuned.name, one.tuned.expression) for one in verdict.comparisons[:1]]
    shown += [NamedLoss(one.name, one.expression) for one in finalists]
    plots.save(plots.loss_curves(loss_curves(shown, scale_free=True)), out / "losses.png")
    machine = environment(settings.device) | versions()
    record = {
        "environment": machine,
        "data": split.describe(),
        "settings": asdict(settings) | {"out": str(out), "start_with": str(settings.start_with or "")},
        "searches": [{"counts": one.counts, "seconds": one.elapsed[-1]} for one in results],
    }
    write_text_atomic(out / "settings.json", json.dumps(record, indent=1) + "\n")
    trained = sum(one.counts["trained"] for one in results)
    lines = [
        f"# A better loss for {settings.model} on {split.name}?",
        "",
        verdict_sentence(verdict),
        "",
        report.to_markdown(table),
        "",
        f"{settings.seeds} genetic search(es) of {settings.budget:,} candidates each, beginning with the hand-made "
        f"losses{'' if settings.start_with is None else f' and those of {settings.start_with.name}'}: {trained:,} "
        f"losses trained for {settings.epochs} epochs on {settings.splits} {settings.validation} validation parts. "
        f"The {settings.finalists} best were tuned together with the hand-made losses on {settings.splits} "
        f"parts with {settings.tuning_seeds} seed(s) each; validation AUC is the mean over them. The found loss "
        "that is best there was compared on the test part.",
        "",
        *verdict_notes(verdict),
        "",
        ", ".join(f"{key}: {value}" for key, value in machine.items()),
        "",
    ]
    write_text_atomic(out / "summary.md", "\n".join(lines))
    console = Console()
    console.print(report.to_rich_table(table.drop(columns=["formula"]), "Confirmation"))
    console.print(verdict_sentence(verdict))


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
