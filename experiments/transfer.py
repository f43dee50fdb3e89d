"""Do found losses transfer? Losses found on one (model, dataset) are tried on every other.

    python experiments/transfer.py --budget 1000 --out results/transfer
    python experiments/transfer.py --found results/a/found.csv --found results/b/found.csv --out results/transfer

Without --found it searches on every pair itself. Each loss is tuned on the target like the hand-made ones are, and
compared with the best of these on the target's test part. Everything is under protocol "standard".
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.parts import (
    RANKING_REPLICATE,
    grammar_of,
    make_trainer,
    plain_searcher,
    published,
    searcher_names,
)
from gploss.environment import environment, versions
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.language.expression import Expression
from gploss.report import plots
from gploss.report import tables as report
from gploss.search.cache import Cache
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import load_dataset
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.models.base import MODELS
from recmodels.training.protocol import STANDARD
from recmodels.verdict.confirmation import confirm
from recmodels.verdict.rivals import HAND_MADE, Rival

#: Of a search's best losses, so many are trained again with other seeds to choose the one that goes on a journey.
_CHOICE, _CHOICE_SEEDS = 10, 3

_COLUMNS = ["source", "target", "difference", "low", "high", "p_value", "test_auc", "baseline", "baseline_auc"]


@dataclass(frozen=True)
class Place:
    """A model and the data that it learns from."""

    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def slug(self) -> str:
        """Name for files."""
        return f"{self.model}-{Path(self.dataset).name}"


@dataclass(frozen=True)
class Settings:
    """What is done, and how."""

    places: tuple[Place, ...]
    searcher: str
    budget: int
    search_epochs: int
    epochs: int
    tuning_seeds: int
    tests: int
    device: str
    out: Path
    seed: int


@click.command(context_settings={"show_default": True})
@click.option("--models", default="mf,deep", help="Models, separated by commas.")
@click.option("--datasets", default="ml-100k,filmtrust,synthetic", help="Names or paths, separated by commas.")
@click.option("--found", type=click.Path(path_type=Path), multiple=True, help="A found.csv of autolossgen.py.")
@click.option("--searcher", type=click.Choice(searcher_names()), default="genetic", help="What searches.")
@click.option("--budget", type=click.IntRange(1), default=1000, help="Candidates of each search.")
@click.option("--search-epochs", type=click.IntRange(1), default=3, help="Epochs of a candidate in the search.")
@click.option("--epochs", type=click.IntRange(1), default=15, help="Most epochs in tuning and test.")
@click.option("--tuning-seeds", type=click.IntRange(1), default=3, help="Seeds of each setting in tuning.")
@click.option("--tests", type=click.IntRange(2), default=10, help="Fresh seeds of the test.")
@click.option("--device", default="auto", help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/transfer"), help="Folder to write to."
)
@click.option("--resume", is_flag=True, help="Keep what the folder holds already.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the whole experiment.")
def main(models: str, datasets: str, found: tuple[Path, ...], resume: bool, **options: Any) -> None:
    """Try losses found on one model and dataset on every other."""
    names = [name.strip() for name in models.split(",") if name.strip()]
    sets = [name.strip() for name in datasets.split(",") if name.strip()]
    try:
        places = tuple(Place(model, dataset) for model in names for dataset in sets if MODELS[model])
        run(Settings(places=places, **options), found, resume=resume)
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, found: Sequence[Path], *, resume: bool) -> None:
    """Find or read the losses, try each of them everywhere, and write tables and the map."""
    console = Console(stderr=True)
    (settings.out / "runs").mkdir(parents=True, exist_ok=True)
    if not resume:
        for old in (settings.out / "runs").iterdir():
            old.unlink()
    splits = {dataset: load_dataset(dataset) for dataset in dict.fromkeys(one.dataset for one in settings.places)}
    with Cache(settings.out / "cache.sqlite") as cache:
        losses = read_found(found) if found else search(settings, splits, cache, console)
    rows = [{"source": str(place), "expression": str(loss)} for place, loss in losses.items()]
    write_csv_atomic(pd.DataFrame(rows), settings.out / "losses.csv")
    tables = [try_on(settings, target, splits[target.dataset], losses, console) for target in settings.places]
    write(settings, pd.concat(tables, ignore_index=True), losses)


def read_found(paths: Sequence[Path]) -> dict[Place, Expression]:
    """Read the best loss of each file.

    Raises:
        ValueError: a file has no loss, or other columns.
    """
    losses = {}
    for path in paths:
        table = pd.read_csv(path)
        if not {"model", "dataset", "expression"} <= set(table.columns) or table.empty:
            raise ValueError(f"{path} holds no found losses: it needs rows with model, dataset and expression")
        first = table.iloc[0]
        losses[Place(str(first["model"]), str(first["dataset"]))] = Expression.parse(str(first["expression"]))
    return losses


def search(settings: Settings, splits: dict[str, Split], cache: Cache, console: Console) -> dict[Place, Expression]:
    """Search on every place; a run that was cut off goes on."""
    losses = {}
    for place in settings.places:
        console.print(f"searching: {place}")
        evaluator = evaluator_of(settings, place, splits, cache, 0)
        searcher = plain_searcher(settings.searcher, grammar_of(STANDARD), evaluator, settings.seed)
        result = searcher.run(settings.budget, checkpoint=settings.out / "runs" / f"{place.slug}.sqlite")
        if result.stopped == "interrupted":
            raise RuntimeError(f"interrupted in {place}; add --resume to go on from there")
        best = [loss.expression for loss in result.top(_CHOICE)]
        if not best:
            raise RuntimeError(f"no loss could be trained: {place}; raise --budget")
        losses[place] = choose(settings, place, splits, cache, best)
    return losses


def evaluator_of(
    settings: Settings, place: Place, splits: dict[str, Split], cache: Cache, replicate: int
) -> LossEvaluator:
    """Return what evaluates losses on a place, from scratch."""
    trainer = make_trainer(place.model, STANDARD, settings.device)
    seed = training_seed(settings.seed, replicate)
    return LossEvaluator(
        PointwiseProblem(splits[place.dataset]), trainer, epochs=settings.search_epochs, seed=seed, cache=cache
    )


def choose(
    settings: Settings, place: Place, splits: dict[str, Split], cache: Cache, losses: Sequence[Expression]
) -> Expression:
    """Return the loss with the best validation mean over seeds that the search has not used."""
    values = np.zeros(len(losses))
    for replicate in range(_CHOICE_SEEDS):
        evaluator = evaluator_of(settings, place, splits, cache, RANKING_REPLICATE + replicate)
        values += [one.reward or 0.0 for one in evaluator.evaluate(losses, {}, len(losses))]
    return losses[int(values.argmax())]


def try_on(
    settings: Settings, target: Place, split: Split, losses: dict[Place, Expression], console: Console
) -> pd.DataFrame:
    """Tune all losses alike on a target, and compare them on its test part; kept in a file, and read from it."""
    path = settings.out / "runs" / f"target-{target.slug}.json"
    key = [str(target), {str(place): str(loss) for place, loss in losses.items()}]
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["key"] == key:
            return pd.DataFrame(record["rows"], columns=_COLUMNS)
    console.print(f"trying {len(losses)} losses: {target}")
    hand_made = [*published(), LOSSES["hinge"]]
    rivals = [Rival(loss.name, HAND_MADE, loss.expression) for loss in hand_made]
    rivals += [Rival(str(source), f"found: {source}", loss) for source, loss in losses.items()]
    comparisons = confirm(
        rivals,
        make_trainer(target.model, STANDARD, settings.device),
        PointwiseProblem(split),
        epochs=settings.epochs,
        seed=settings.seed,
        tuning_seeds=settings.tuning_seeds,
        fresh_seeds=settings.tests,
        say=console.print,
    ).comparisons
    baseline = comparisons[0]
    rows = [
        {
            "source": name,
            "target": str(target),
            "difference": one.gain.mean,
            "low": one.gain.low,
            "high": one.gain.high,
            "p_value": one.p_value,
            "test_auc": float(one.test.mean()),
            "baseline": baseline.tuned.name,
            "baseline_auc": float(baseline.test.mean()),
        }
        for one in comparisons
        for name in (one.tuned.rival.name, *one.tuned.rival.also)
        if name in map(str, losses)
    ]
    write_text_atomic(path, json.dumps({"key": key, "rows": rows}) + "\n")
    return pd.DataFrame(rows, columns=_COLUMNS)


def write(settings: Settings, table: pd.DataFrame, losses: dict[Place, Expression]) -> None:
    """Write transfer.csv, the map, and summary.md."""
    order = {str(place): number for number, place in enumerate(losses)}
    table = table.sort_values("source", key=lambda names: names.map(order), kind="stable")
    write_csv_atomic(table, settings.out / "transfer.csv")
    plots.save(plots.heat_map(table), settings.out / "transfer.png")
    shown = pd.DataFrame(
        {
            "found on": table["source"],
            "tried on": table["target"],
            "test AUC": table["test_auc"].map("{:.4f}".format),
            "best hand-made": table["baseline"] + table["baseline_auc"].map(" {:.4f}".format),
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
    formulas = pd.DataFrame({"found on": map(str, losses), "formula": map(str, losses.values())})
    machine = environment(settings.device) | versions()
    lines = ["# Transfer of found losses", "", sentence, "", report.to_markdown(shown), "", "## Losses", "",
             report.to_markdown(formulas), "", "## Machine", "",
             ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]  # fmt: skip
    write_text_atomic(settings.out / "summary.md", "\n".join(lines))
    console = Console()
    console.print(report.to_rich_table(shown, "Transfer"))
    console.print(sentence)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
