"""Do found losses transfer? Losses found on one (model, dataset) are tried on every other.

    gploss transfer --budget 1000 --out results/transfer
    gploss transfer --found results/a/found.csv,results/b/found.csv --out results/transfer

Without --found it searches on every pair itself. Each loss is tuned on the target like the hand-made ones are, and
compared with the best of these on the target's test part. Everything is under protocol "standard".
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from experiments.paper.published import AUTHORS
from experiments.parts.reading import load_problem
from experiments.parts.searching import (
    RANKING_REPLICATE,
    finish,
    grammar_of,
    make_searcher,
    make_trainer,
    search_file,
)
from experiments.parts.verdict import judge
from gploss.files.text import read_text
from gploss.files.whole import write_csv_atomic
from gploss.language.expression import Expression
from gploss.report import plots
from gploss.report.page import Figure, Page, Section, Table
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import TABLE, find_dataset
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import STANDARD
from recmodels.verdict.rivals import Rival

#: Of a search's best losses, so many are trained again with other seeds to choose the one that goes on a journey.
_CHOICE, _CHOICE_SEEDS = 10, 3

_COLUMNS = ["source", "target", "difference", "low", "high", "p_value", "test", "baseline", "baseline_test"]


@dataclass(frozen=True)
class Place:
    """A model and the data that it learns from."""

    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model} on {self.dataset}"


class Transfer(options.ReadingSettings, options.VerdictSettings):
    """What is done, and how."""

    models: options.Models = ("mf", "deep")
    datasets: options.Datasets = ("ml-100k", "filmtrust", "synthetic")
    found: options.Found = ()
    searchers: options.Searchers = ("genetic",)
    budget: options.Budget = 1000
    epochs: options.Epochs = 3
    rivals: options.Rivals = (*AUTHORS, "hinge")
    final_epochs: options.FinalEpochs = 15
    out: options.Out = Path("results/transfer")

    @property
    def places(self) -> list[Place]:
        """Every model on every dataset."""
        return [Place(model, dataset) for model in self.models for dataset in self.datasets]


@command("transfer", Transfer)
def run(settings: Transfer, folder: RunFolder) -> Page:
    """Try losses found on one model and dataset on every other."""
    tables = {name: find_dataset(name).name == TABLE for name in settings.datasets}
    problems = {name: load_problem(name, settings, columns=is_table) for name, is_table in tables.items()}
    losses = read_found(settings.found)
    with folder.open({name: problem.split.describe() for name, problem in problems.items()}):
        if not losses:
            losses = search(settings, problems, folder)
        rows = [{"source": str(place), "expression": str(loss)} for place, loss in losses.items()]
        write_csv_atomic(pd.DataFrame(rows), folder.file("losses.csv"))
        tried = [try_on(settings, target, problems[target.dataset], losses, folder) for target in settings.places]
        order = {str(place): number for number, place in enumerate(losses)}
        table = pd.concat(tried, ignore_index=True)
        table = table.sort_values("source", key=lambda names: names.map(order), kind="stable")
        write_csv_atomic(table, folder.file("transfer.csv"))
        return folder.save(page_of(settings, table, losses))


def read_found(paths: Sequence[Path]) -> dict[Place, Expression]:
    """Read the best loss of each file.

    Raises:
        ValueError: a file has no loss, or other columns.
    """
    losses = {}
    for path in paths:
        try:
            table = pd.read_csv(StringIO(read_text(path)))
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a table of found losses: {error}") from error
        if not {"model", "dataset", "expression"} <= set(table.columns) or table.empty:
            raise ValueError(f"{path} holds no found losses: it needs rows with model, dataset and expression")
        first = table.iloc[0]
        losses[Place(str(first["model"]), str(first["dataset"]))] = Expression.parse(str(first["expression"]))
    return losses


def search(
    settings: Transfer, problems: Mapping[str, PointwiseProblem], folder: RunFolder
) -> dict[Place, Expression]:
    """Search on every place; a run that was cut off goes on."""
    losses = {}
    with Cache(folder.file("cache.sqlite")) as cache:
        for number, place in enumerate(settings.places):
            say(f"searching: {place}")
            evaluator = evaluator_of(settings, place, problems, cache, 0)
            results = []
            for name in settings.searchers:
                searcher = make_searcher(name, grammar_of(STANDARD), evaluator, settings.seed)
                results.append(finish(searcher, settings.budget, search_file(folder, f"{name}-{number}")))
            best = [loss.expression for loss in SearchResult.join(results).top(_CHOICE)]
            if not best:
                raise RuntimeError(f"no loss could be trained: {place}; raise --budget")
            losses[place] = choose(settings, place, problems, cache, best)
    return losses


def evaluator_of(
    settings: Transfer, place: Place, problems: Mapping[str, PointwiseProblem], cache: Cache, replicate: int
) -> LossEvaluator:
    """Return what evaluates losses on a place, from scratch."""
    trainer = make_trainer(place.model, STANDARD, settings.device)
    seed = training_seed(settings.seed, replicate)
    return LossEvaluator(problems[place.dataset], trainer, epochs=settings.epochs, seed=seed, cache=cache)


def choose(
    settings: Transfer,
    place: Place,
    problems: Mapping[str, PointwiseProblem],
    cache: Cache,
    losses: Sequence[Expression],
) -> Expression:
    """Return the loss with the best validation mean over seeds that the search has not used."""
    values = np.zeros(len(losses))
    for replicate in range(_CHOICE_SEEDS):
        evaluator = evaluator_of(settings, place, problems, cache, RANKING_REPLICATE + replicate)
        values += [one.reward or 0.0 for one in evaluator.evaluate(losses, {}, len(losses))]
    return losses[int(values.argmax())]


def try_on(
    settings: Transfer,
    target: Place,
    problem: PointwiseProblem,
    losses: Mapping[Place, Expression],
    folder: RunFolder,
) -> pd.DataFrame:
    """Tune all losses alike on a target, and compare them on its test part."""
    say(f"trying {len(losses)} losses: {target}")
    names = {str(place): place for place in losses}
    found = [Rival(name, f"found: {name}", losses[place]) for name, place in names.items()]
    trainer = make_trainer(target.model, STANDARD, settings.device)
    cache = folder.file("cache.sqlite")
    verdict = judge(settings, found, trainer, problem, cache, epochs=settings.final_epochs)
    baseline = verdict.comparisons[0]
    rows = [
        {
            "source": name,
            "target": str(target),
            "difference": one.gain.mean,
            "low": one.gain.low,
            "high": one.gain.high,
            "p_value": one.p_value,
            "test": float(one.test.mean()),
            "baseline": baseline.tuned.name,
            "baseline_test": float(baseline.test.mean()),
        }
        for one in verdict.comparisons
        for name in (one.tuned.rival.name, *one.tuned.rival.also)
        if name in names
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def page_of(settings: Transfer, table: pd.DataFrame, losses: Mapping[Place, Expression]) -> Page:
    """What the run came to."""
    metric = settings.test_metric or settings.metric or POINTWISE.metric
    shown = pd.DataFrame(
        {
            "found on": table["source"],
            "tried on": table["target"],
            f"test {metric}": table["test"].map("{:.4f}".format),
            "best hand-made": table["baseline"] + table["baseline_test"].map(" {:.4f}".format),
            "difference": table["difference"].map("{:+.4f}".format),
            "95% interval": table["low"].map("{:+.4f}".format) + table["high"].map(" to {:+.4f}".format),
            "p (Holm)": table["p_value"].map(lambda p: "" if np.isnan(p) else f"{p:.3f}"),
        }
    )
    away, home = table[table["source"] != table["target"]], table[table["source"] == table["target"]]
    sentence = (
        f"Away from where they were found, {int((away['low'] > 0).sum())} of {len(away)} losses beat the best "
        f"tuned hand-made loss with a 95% interval above zero, and {int((away['high'] < 0).sum())} fall below it; "
        f"at home {int((home['low'] > 0).sum())} of {len(home)} beat it."
    )
    formulas = pd.DataFrame(
        {"found on": map(str, losses), "formula": [loss.readable() for loss in losses.values()]}
    )
    return Page(
        "Transfer of found losses",
        sentence,
        [
            Section(
                "Transfer",
                [
                    Table(shown),
                    Figure("transfer.png", plots.heat_map(table, f"test {metric}"), "Where losses lead"),
                ],
            ),
            Section("Losses", [Table(formulas)]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main(["transfer", *sys.argv[1:]]))
