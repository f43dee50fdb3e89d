"""Compare searchers end to end: the same data, model, grammar, trainer, reward filter and budget for each.

    python experiments/compare_searchers.py --dataset ml-100k --budget 300 --seeds 5 --out results/ml-100k

Writes tables and plots of search efficiency, and ends with a confirmation: the best loss of each searcher against
hand-made and published ones, all tuned alike, from fresh seeds, on the test split.
"""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.parts import default_jobs, grammar_of, loss_curves, make_trainer, side_by_side
from gploss.environment import environment, versions
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.language.grammar import Grammar
from gploss.report import plots
from gploss.report import tables as report
from gploss.report.summary import readable_summary, summary
from gploss.search.cache import Cache
from gploss.search.result import SearchResult
from gploss.search.searcher import SEARCHERS
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.datasets import load_dataset
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.models.base import MODELS
from recmodels.training.protocol import PROTOCOLS, STANDARD, Protocol
from recmodels.training.trainer import Trainer
from recmodels.verdict.confirmation import HAND_MADE, Candidate, Comparison, confirm

#: Losses that every search is measured against.
REFERENCES = ("bce", "mse", "hinge", "focal", "maxr", "sumr", "logmin")

#: How many of a searcher's best losses take part in the confirmation's tuning.
TOP = 3


@dataclass(frozen=True)
class Settings:
    """What is compared, and how."""

    dataset: str
    model: str
    searchers: tuple[str, ...]
    budget: int
    seeds: int
    epochs: int
    protocol: Protocol
    device: str
    check_direction: bool
    out: Path
    seed: int
    jobs: int

    @property
    def grammar(self) -> Grammar:
        """The protocol's own grammar."""
        return grammar_of(self.protocol)

    @property
    def command(self) -> str:
        """The command that does the same again."""
        options = {
            "dataset": self.dataset,
            "model": self.model,
            "searchers": ",".join(self.searchers),
            "budget": self.budget,
            "seeds": self.seeds,
            "epochs": self.epochs,
            "protocol": self.protocol.name,
            "device": self.device,
            "seed": self.seed,
            "out": self.out,
        }
        words = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items()]
        flag = ["--check-direction"] if self.check_direction else []
        return " ".join(["python experiments/compare_searchers.py", *words, *flag])

    def trainer(self, protocol: Protocol) -> Trainer:
        """Return a trainer of the chosen model under a protocol."""
        return make_trainer(self.model, protocol, self.device)

    def evaluator(self, split: Split, replicate: int, cache: Cache) -> LossEvaluator:
        """Return what evaluates losses in one replicate: all searchers of it share the training seed."""
        return LossEvaluator(
            split,
            self.trainer(self.protocol),
            epochs=self.epochs,
            seed=training_seed(self.seed, replicate),
            cache=cache,
            check_direction=self.check_direction,
        )


@click.command(context_settings={"show_default": True})
@click.option("--dataset", default="synthetic", help="synthetic, ml-100k, filmtrust, or the path of a table.")
@click.option("--model", type=click.Choice(MODELS.names()), default="mf", help="Recommender model.")
@click.option("--searchers", default="random,genetic,rl", help="Names, separated by commas.")
@click.option("--budget", type=click.IntRange(1), default=200, help="Candidates that a run trains.")
@click.option("--seeds", type=click.IntRange(1), default=3, help="Runs of each searcher.")
@click.option("--epochs", type=click.IntRange(1), default=3, help="Epochs that a candidate is trained.")
@click.option("--protocol", type=click.Choice(PROTOCOLS.names()), default="standard", help="How models train.")
@click.option("--device", default="auto", help="auto, cpu, cuda, or cuda:N.")
@click.option("--check-direction", is_flag=True, help="Reject losses that fail AutoLossGen's validity check.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/compare"), help="Folder to write to.")
@click.option("--jobs", type=click.IntRange(0), default=0, help="Seeds at the same time; 0: as many as cores.")
@click.option("--resume", is_flag=True, help="Go on with the runs in the folder, where they are unfinished.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the whole experiment.")
def main(searchers: str, protocol: str, out: Path, resume: bool, jobs: int, **options: Any) -> None:
    """Compare searchers for loss functions on one dataset and model."""
    names = tuple(name.strip() for name in searchers.split(",") if name.strip())
    try:
        for name in names:
            SEARCHERS[name]
        jobs = jobs or default_jobs(options["device"], options["seeds"])
        settings = Settings(searchers=names, protocol=PROTOCOLS[protocol], out=out, jobs=jobs, **options)
        run(settings, resume=resume)
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command with --resume goes on from there") from None
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def run(settings: Settings, *, resume: bool) -> None:
    """Do the whole experiment and write its files."""
    console = Console(stderr=True)
    out = settings.out
    (out / "runs").mkdir(parents=True, exist_ok=True)
    split = load_dataset(settings.dataset)
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in split.parts().items())
    console.print(f"data: {split.name}: {split.n_users:,} users, {split.n_items:,} items; rows: {sizes}")
    if settings.protocol.name == "paper":
        console.print(
            "note: protocol 'paper' was made for a search that starts from a partly trained model; from scratch, "
            "rewards after a few epochs are close to chance (AUC 0.5)"
        )
    with Cache(out / "cache.sqlite") as cache:
        reference = reference_rewards(settings, split, cache)
    results = search(settings, split, resume=resume)
    evaluations = evaluation_table(results)
    write_csv_atomic(evaluations.drop(columns=["complexity", "elapsed"]), out / "evaluations.csv")
    write_plots(settings, evaluations, reference, results)
    console.print("confirmation: tuning all losses alike on validation, then fresh seeds on test")
    comparisons = confirm(
        candidates(results, settings),
        settings.trainer(STANDARD),
        split,
        epochs=max(10, settings.epochs),
        seed=settings.seed,
        report=console.print,
    )
    write_summary(settings, split, evaluations, reference, results, comparisons)
    console.print(f"done: open {out / 'summary.md'} and the plots beside it")


def reference_rewards(settings: Settings, split: Split, cache: Cache) -> dict[str, float]:
    """Median over replicates of each hand-made loss's reward, at the protocol's own rate and decay."""
    rewards: dict[str, list[float]] = {name: [] for name in REFERENCES}
    for replicate in range(settings.seeds):
        evaluator = settings.evaluator(split, replicate, cache)
        expressions = [LOSSES[name].expression for name in REFERENCES]
        for name, evaluation in zip(REFERENCES, evaluator.evaluate(expressions, {}, len(expressions)), strict=True):
            rewards[name].append(float("nan") if evaluation.reward is None else evaluation.reward)
    return {name: float(np.median(values)) for name, values in rewards.items()}


def search(settings: Settings, split: Split, *, resume: bool) -> list[SearchResult]:
    """Run every searcher once a replicate; replicates go side by side, with the same results for any number."""
    arguments = [(settings, split, replicate, resume) for replicate in range(settings.seeds)]
    replicates = side_by_side(run_replicate, arguments, settings.jobs)
    return [result for replicate in replicates for result in replicate]


def run_replicate(settings: Settings, split: Split, replicate: int, resume: bool) -> list[SearchResult]:
    """Run every searcher once, one after the other."""
    results = []
    with Cache(settings.out / "cache.sqlite") as cache:
        evaluator = settings.evaluator(split, replicate, cache)
        for name in settings.searchers:
            checkpoint = settings.out / "runs" / f"{name}-{replicate}.sqlite"
            if not resume:
                for old in checkpoint.parent.glob(f"{checkpoint.name}*"):
                    old.unlink()
            searcher = SEARCHERS[name](settings.grammar, evaluator, seed=replicate)
            result = searcher.run(settings.budget, checkpoint=checkpoint)
            result.save(settings.out / "runs" / f"{name}-{replicate}.json")
            results.append(result)
            if result.stopped == "interrupted":
                raise click.ClickException(
                    f"interrupted in {name}, seed {replicate}; add --resume to go on from there"
                )
    return results


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


def candidates(results: Sequence[SearchResult], settings: Settings) -> list[Candidate]:
    """Hand-made losses, and each searcher's best few over all replicates."""
    chosen = [Candidate(name, HAND_MADE, LOSSES[name].expression) for name in REFERENCES]
    for searcher in settings.searchers:
        best = SearchResult.join(result for result in results if result.searcher == searcher).top(TOP)
        chosen += [
            Candidate(f"{searcher} {place}", searcher, loss.expression) for place, loss in enumerate(best, start=1)
        ]
    return chosen


def write_plots(
    settings: Settings,
    evaluations: pd.DataFrame,
    reference: dict[str, float],
    results: Sequence[SearchResult],
) -> None:
    """Write the four figures."""
    out = settings.out
    metric = "validation AUC"
    plots.save(plots.efficiency(evaluations, reference, metric), out / "efficiency.png")
    plots.save(plots.filters(evaluations), out / "filters.png")
    plots.save(plots.pareto(evaluations, metric), out / "pareto.png")
    shown = [LOSSES["bce"]]
    for searcher in settings.searchers:
        best = SearchResult.join(result for result in results if result.searcher == searcher).best
        shown += [] if best is None else [NamedLoss(searcher, best.expression)]
    plots.save(plots.loss_curves(loss_curves(shown, settings.protocol.scale_free)), out / "losses.png")


def write_summary(
    settings: Settings,
    split: Split,
    evaluations: pd.DataFrame,
    reference: dict[str, float],
    results: Sequence[SearchResult],
    comparisons: Sequence[Comparison],
) -> None:
    """Write summary.csv, confirmation.csv, summary.md and settings.json, and print the two tables."""
    out = settings.out
    rows = summary(evaluations)
    write_csv_atomic(rows, out / "summary.csv")
    table = readable_summary(rows, "validation AUC")
    confirmed = confirmation_table(comparisons)
    write_csv_atomic(confirmed, out / "confirmation.csv")
    references = pd.DataFrame(
        [{"loss": name, "validation AUC": f"{value:.4f}"} for name, value in reference.items()]
    )
    machine = environment(settings.device) | versions()
    record = {
        "command": settings.command,
        "environment": machine,
        "data": split.describe(),
        "runs": [one.settings for one in results],
    }
    write_text_atomic(out / "settings.json", json.dumps(record, indent=1) + "\n")
    text = "\n".join(
        [
            f"# Searchers compared on {split.name}",
            "",
            f"Model {settings.model}, protocol {settings.protocol.name}, grammar {settings.grammar.name}; "
            f"{settings.budget} candidates a run, {settings.epochs} epoch(s) each, {settings.seeds} seed(s); "
            f"trainer {settings.trainer(settings.protocol).name}.",
            "",
            "## Search",
            "",
            report.to_markdown(table),
            "",
            "Hand-made losses at the protocol's own rate and decay (median over the same seeds):",
            "",
            report.to_markdown(references),
            "",
            "## Confirmation",
            "",
            confirmation_sentence(comparisons),
            "",
            report.to_markdown(confirmed),
            "",
            "Every loss had its learning rate and weight decay tuned on validation over 3 seeds, on one grid that "
            "grows where the best lies on its edge; test AUC is at the epoch with the best validation AUC, from "
            f"{len(comparisons[0].test)} fresh seeds. Intervals: users and seeds bootstrapped jointly, paired with "
            "the best hand-made loss on validation; p-values are Holm's over the searchers' finalists. Hand-made "
            "losses are listed for orientation and not tested. Protocol: standard.",
            "",
            "## Command and machine",
            "",
            f"`{settings.command}`",
            "",
            ", ".join(f"{key}: {value}" for key, value in machine.items()),
            "",
        ]
    )
    write_text_atomic(out / "summary.md", text)
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(report.to_rich_table(table, "Search"))
    console.print(report.to_rich_table(confirmed.drop(columns=["formula"]), "Confirmation"))
    console.print(confirmation_sentence(comparisons))


def confirmation_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a loss, for people."""
    rows = []
    for place, one in enumerate(comparisons):
        baseline = place == 0
        rows.append(
            {
                "loss": one.tuned.name,
                "found by": one.tuned.group,
                "validation AUC": f"{one.tuned.validation:.4f}",
                "test AUC": f"{one.test.mean():.4f}",
                "difference": "baseline" if baseline else f"{one.difference:+.4f}",
                "95% interval": "" if baseline else f"{one.low:+.4f} to {one.high:+.4f}",
                "p (Holm)": "" if np.isnan(one.p_value) else f"{one.p_value:.3f}",
                "rate": f"{one.tuned.setting.learning_rate:g}",
                "decay": f"{one.tuned.setting.weight_decay:g}",
                "formula": str(one.tuned.expression),
            }
        )
    return pd.DataFrame(rows)


def confirmation_sentence(comparisons: Sequence[Comparison]) -> str:
    """Say in words whether a found loss beats the best hand-made one."""
    baseline = comparisons[0].tuned.name
    found = [one for one in comparisons if one.tuned.group != HAND_MADE]
    better = [one for one in found if one.low > 0 and one.p_value < 0.05]
    if better:
        named = "; ".join(f"{one.tuned.name} by {one.difference:.4f}" for one in better)
        return f"On test, these beat the best tuned hand-made loss ({baseline}): {named}."
    if not found:
        return "No searcher found a loss that could be trained."
    closest = max(found, key=lambda one: one.difference)
    return (
        f"No found loss beats the best tuned hand-made loss ({baseline}) on test; the closest is "
        f"{closest.tuned.name}, {closest.difference:+.4f} ({closest.low:+.4f} to {closest.high:+.4f})."
    )


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
