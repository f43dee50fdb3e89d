"""AutoLossGen (arXiv 2204.13160) in three phases: alternating search, validity check, effectiveness test.

    python experiments/autolossgen.py --dataset ml-100k --protocol paper --searcher rl --rounds 50 --out results/alg
    python experiments/autolossgen.py --dataset ml-100k --phase 3 --losses published --tests 5 --out results/seven
    python experiments/autolossgen.py --dataset ml-100k --phase 3 --losses my_losses.txt --out results/mine

Each phase reads what the one before it wrote to the folder, so that any of them can be run or resumed alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from experiments.alternating_search import Settings, check, search, survivors
from experiments.effect_test import try_losses
from experiments.parts import default_jobs, long_epochs, published, read_losses, searcher_names
from gploss.search.cache import Cache
from recmodels.datasets import load_dataset
from recmodels.models.base import MODELS
from recmodels.training.protocol import PROTOCOLS

PUBLISHED = "published"


@click.command(context_settings={"show_default": True})
@click.option("--dataset", default="synthetic", help="synthetic, ml-100k, filmtrust, or the path of a table.")
@click.option("--model", type=click.Choice(MODELS.names()), default="mf", help="Recommender model.")
@click.option("--protocol", type=click.Choice(PROTOCOLS.names()), default="paper", help="How models train.")
@click.option("--searcher", default="rl", help=f"One of {', '.join(searcher_names())}, or several with commas.")
@click.option(
    "--rounds", type=click.IntRange(1), default=50, help="Rounds of the search: steps of the recommender."
)
@click.option("--candidates", type=click.IntRange(1), help="End a search at so many trained losses, not by rounds.")
@click.option("--samples", type=click.IntRange(1), default=100, help="Samples of a round.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Searches of each searcher.")
@click.option("--survivors", type=click.IntRange(1), default=64, help="Most losses that phase 3 trains to the end.")
@click.option("--top", type=click.IntRange(1), default=10, help="How many of them are tested with fresh seeds.")
@click.option("--tests", type=click.IntRange(1), default=5, help="Fresh seeds of the test.")
@click.option("--epochs", type=click.IntRange(0), default=0, help="Most epochs in phase 3; 0: 300 (paper) or 30.")
@click.option("--phase", type=click.Choice(["1", "2", "3"]), multiple=True, help="Only these phases.")
@click.option("--losses", help=f"Phase 3 for the losses of this text file, or for the {PUBLISHED!r} ones.")
@click.option("--device", default="auto", help="auto, cpu, cuda, or cuda:N.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/autolossgen"), help="Folder to write."
)
@click.option("--jobs", type=click.IntRange(0), default=0, help="Seeds at the same time; 0: as many as cores.")
@click.option("--resume", is_flag=True, help="Go on with the searches in the folder, where they are unfinished.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the whole experiment.")
def main(
    protocol: str,
    searcher: str,
    phase: tuple[str, ...],
    losses: str | None,
    resume: bool,
    epochs: int,
    jobs: int,
    **options: Any,
) -> None:
    """Search losses as AutoLossGen does, check them, and train with them from scratch."""
    names = tuple(name.strip() for name in searcher.split(",") if name.strip())
    unknown = sorted(set(names) - set(searcher_names()))
    if unknown or not names:
        raise click.ClickException(
            f"no searcher is named {', '.join(unknown)!r}: use {', '.join(searcher_names())}"
        )
    if losses is not None and set(phase) - {"3"}:
        raise click.ClickException("--losses is for phase 3 alone: leave --phase out, or give --phase 3")
    chosen = PROTOCOLS[protocol]
    settings = Settings(
        protocol=chosen,
        searchers=names,
        epochs=epochs or long_epochs(chosen),
        jobs=jobs or default_jobs(options["device"], options["seeds"]),
        **options,
    )
    try:
        run(settings, phases=phase or ("1", "2", "3"), losses=losses, resume=resume)
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, *, phases: Sequence[str], losses: str | None, resume: bool) -> None:
    """Do the phases asked for, or phase 3 alone on given losses."""
    console = Console(stderr=True)
    settings.runs.mkdir(parents=True, exist_ok=True)
    split = load_dataset(settings.dataset)
    console.print(f"data: {split.name}; model {settings.model}, protocol {settings.protocol.name}")
    with Cache(settings.out / "cache.sqlite") as cache:
        if losses is not None:
            given = published() if losses == PUBLISHED else read_losses(Path(losses))
            try_losses(settings, split, cache, given, console)
            return
        if "1" in phases:
            search(settings, split, resume=resume, console=console)
        if "2" in phases:
            check(settings, console)
        if "3" in phases:
            try_losses(settings, split, cache, survivors(settings), console)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
