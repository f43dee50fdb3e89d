"""What is each part of the reward filter worth? The same search with one part switched off at a time.

    python experiments/ablate_filter.py --dataset ml-100k --protocol paper --searcher rl --out results/paper
    python experiments/ablate_filter.py --dataset ml-100k --protocol standard --searcher genetic --out results/std

No cache helps any variant; what differs is how many losses are trained, how long that takes, and what comes out.
Protocol "paper" searches alternately, so many rounds (the result is the recommender's validation AUC after the last
one); "standard" from scratch, with the same number of proposals (the result is the best validation AUC of a loss).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.parts import (
    alternating,
    alternating_searcher,
    grammar_of,
    is_standard,
    long_protocol,
    make_trainer,
    plain_searcher,
    searcher_names,
)
from gploss.environment import environment, versions
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.report import plots
from gploss.report import tables as report
from gploss.screening.screening import Reason
from gploss.search.budget import Budget
from gploss.search.evaluation import Evaluation
from gploss.search.record import Progress
from gploss.search.reward import BaselineFilter
from gploss.search.run import Callback, StopSearch
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import load_dataset
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.models.base import MODELS
from recmodels.training.protocol import PROTOCOLS, Protocol


@dataclass(frozen=True)
class Variant:
    """A filter with some parts on.

    Attributes:
        duplicates: losses with a known gradient are not trained again.
        allow: reasons for which a loss is trained all the same.
        direction: losses that fail the validity check are turned down.
        baseline: rewards below the moving baseline count as -1.
    """

    duplicates: bool = True
    allow: Collection[Reason] = ()
    direction: bool = False
    baseline: bool = True


EXPLANATION: Final = (
    "No cache helps any variant. Protocol paper searches alternately, so many rounds, and the result is the "
    "recommender's validation AUC after the last one; standard searches from scratch with the same number of "
    "proposals, and the result is the best validation AUC of a loss. Differences are to the whole filter, seed by "
    "seed."
)

_ALL_REASONS: Final = (Reason.ZERO_GRADIENT, Reason.NO_DEPENDENCE)

VARIANTS: Final = {
    "the filter": Variant(),
    "without duplicates": Variant(duplicates=False),
    "without zero gradient": Variant(allow=(Reason.ZERO_GRADIENT,)),
    "without label dependence": Variant(allow=(Reason.NO_DEPENDENCE,)),
    "with direction check": Variant(direction=True),
    "without baseline": Variant(baseline=False),
    "nothing filtered": Variant(duplicates=False, allow=_ALL_REASONS, baseline=False),
}


@dataclass(frozen=True)
class Settings:
    """What is done, and how."""

    dataset: str
    model: str
    protocol: Protocol
    searcher: str
    rounds: int
    samples: int
    epochs: int
    seeds: int
    device: str
    out: Path
    seed: int

    @property
    def proposals(self) -> int:
        """How many proposals a search from scratch makes."""
        return self.rounds * self.samples


@click.command(context_settings={"show_default": True})
@click.option("--dataset", default="synthetic", help="synthetic, ml-100k, filmtrust, or the path of a table.")
@click.option("--model", type=click.Choice(MODELS.names()), default="mf", help="Recommender model.")
@click.option("--protocol", type=click.Choice(PROTOCOLS.names()), default="paper", help="How models train.")
@click.option("--searcher", type=click.Choice(searcher_names()), default="rl", help="What searches.")
@click.option("--rounds", type=click.IntRange(1), default=20, help="Rounds of the search.")
@click.option("--samples", type=click.IntRange(1), default=100, help="Samples of a round.")
@click.option("--epochs", type=click.IntRange(1), default=3, help="Epochs of a candidate from scratch.")
@click.option("--seeds", type=click.IntRange(1), default=5, help="Runs of each variant.")
@click.option("--device", default="auto", help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/ablation"), help="Folder to write to."
)
@click.option("--resume", is_flag=True, help="Keep the runs that the folder holds already.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the whole experiment.")
def main(protocol: str, resume: bool, **options: Any) -> None:
    """Switch the parts of the reward filter off, one at a time."""
    try:
        run(Settings(protocol=PROTOCOLS[protocol], **options), resume=resume)
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, *, resume: bool) -> None:
    """Run every variant with every seed, and write table and plot."""
    console = Console(stderr=True)
    folder = settings.out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    split = load_dataset(settings.dataset)
    warm_up(settings, split)
    rows = []
    # Seeds outermost: a machine that slows down slows all variants down.
    for replicate in range(settings.seeds):
        for name, variant in VARIANTS.items():
            path = folder / f"{name.replace(' ', '-')}-{replicate}.json"
            if not (resume and path.is_file()):
                row = {"variant": name, "seed": replicate, **one_run(settings, split, variant, replicate)}
                write_text_atomic(path, json.dumps(row) + "\n")
                console.print(f"{name}, seed {replicate}: {row}")
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    write(settings, split, pd.DataFrame(rows))


def warm_up(settings: Settings, split: Split) -> None:
    """Train one loss, so that no variant's clock pays for compiling."""
    for protocol in (settings.protocol, long_protocol(settings.protocol)):
        trainer = make_trainer(settings.model, protocol, settings.device)
        LossEvaluator(PointwiseProblem(split), trainer, epochs=1).evaluate([LOSSES["bce"].expression], {}, 1)


def one_run(settings: Settings, split: Split, variant: Variant, replicate: int) -> dict[str, float]:
    """Search once; return what it cost and what came out."""
    scratch = is_standard(settings.protocol)
    inner = LossEvaluator(
        PointwiseProblem(split),
        make_trainer(settings.model, settings.protocol, settings.device),
        epochs=settings.epochs if scratch else 1,
        seed=training_seed(settings.seed, replicate),
        check_direction=variant.direction,
        allow=variant.allow,
        recognise_duplicates=variant.duplicates,
    )
    grammar = grammar_of(settings.protocol)
    begun = time.perf_counter()
    if scratch:
        searcher = plain_searcher(
            settings.searcher,
            grammar,
            inner,
            replicate,
            reward_filter=BaselineFilter() if variant.baseline else None,
            proposals_at_once=min(50, settings.proposals),
        )
        result = searcher.run(Budget(candidates=settings.proposals), callbacks=[_stop_after(settings.proposals)])
        outcome = float("nan") if result.best is None else result.best.reward
    else:
        step_trainer = make_trainer(settings.model, long_protocol(settings.protocol), settings.device)
        evaluator = alternating(inner, step_trainer, settings.rounds, settings.samples)
        searcher = alternating_searcher(
            settings.searcher, grammar, evaluator, replicate, reward_filter=variant.baseline
        )
        most = 2 * (settings.samples + searcher.proposals_at_once) * settings.rounds
        result = searcher.run(Budget(candidates=most))
        outcome = evaluator.start_value
    counts = result.counts
    return {
        "proposals": counts["proposals"],
        "trained": counts["trained"] + counts["diverged"],
        "rejected": counts["rejected"],
        "duplicates": counts["duplicates"],
        "seconds": time.perf_counter() - begun,
        "training_seconds": sum(one.seconds for one in result.records if one.charged),
        "result": outcome,
    }


def _stop_after(proposals: int) -> Callback:
    """Return a callback that ends a run after so many proposals."""

    def stop(searcher: object, new: Sequence[Evaluation], progress: Progress) -> None:
        if progress.spending.proposals >= proposals:
            raise StopSearch

    return stop


def table_of(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a variant: medians over seeds, and the paired difference of the result to the whole filter."""
    whole = runs[runs["variant"] == next(iter(VARIANTS))].set_index("seed")["result"]
    rows = []
    for name in VARIANTS:
        own = runs[runs["variant"] == name].set_index("seed")
        difference = (own["result"] - whole).to_numpy(dtype=np.float64)
        is_whole = name == next(iter(VARIANTS))
        rows.append(
            {
                "variant": name,
                "proposals": f"{own['proposals'].median():,.0f}",
                "trained": f"{own['trained'].median():,.0f}",
                "rejected": f"{own['rejected'].median():,.0f}",
                "duplicates": f"{own['duplicates'].median():,.0f}",
                "seconds": f"{own['seconds'].median():,.1f}",
                "validation AUC": f"{own['result'].median():.4f}",
                "mean difference": "" if is_whole else f"{difference.mean():+.4f}",
                "from seed to seed": "" if is_whole else f"{difference.min():+.4f} to {difference.max():+.4f}",
            }
        )
    return pd.DataFrame(rows)


def write(settings: Settings, split: Split, runs: pd.DataFrame) -> None:
    """Write runs.csv, ablation.csv, summary.md and the figure."""
    table = table_of(runs)
    write_csv_atomic(runs, settings.out / "runs.csv")
    write_csv_atomic(table, settings.out / "ablation.csv")
    measures = {"trained": "trained candidates", "seconds": "seconds", "result": "validation AUC at the end"}
    title = "What each part of the reward filter is worth"
    subtitle = f"{settings.searcher}, protocol {settings.protocol.name}; a dot a seed, a line at the median"
    plots.save(plots.ablation(runs, measures, title, subtitle), settings.out / "ablation.png")
    machine = environment(settings.device) | versions()
    lines = [
        f"# The reward filter, part by part, on {split.name}",
        "",
        f"Searcher {settings.searcher}, model {settings.model}, protocol {settings.protocol.name}; "
        f"{settings.seeds} seeds. {EXPLANATION}",
        "",
        report.to_markdown(table),
        "",
        ", ".join(f"{key}: {value}" for key, value in machine.items()),
        "",
    ]
    write_text_atomic(settings.out / "summary.md", "\n".join(lines))
    Console().print(report.to_rich_table(table, title))


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
