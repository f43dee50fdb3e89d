"""Phase 3 of AutoLossGen: losses trained from scratch, ranked on validation, the best reported on test."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.console import Console

from experiments.alternating_search import Settings
from experiments.parts import (
    AUTHORS,
    RANKING_REPLICATE,
    TEST_REPLICATE,
    is_standard,
    long_protocol,
    loss_curves,
    make_trainer,
    published,
)
from gploss.environment import environment, versions
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.report import plots
from gploss.report import tables as report
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.tasks import NamedLoss
from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.verdict.confirmation import confirm
from recmodels.verdict.effectiveness import Effect, effectiveness
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tables import verdict_sentence, verdict_table

#: Losses ranked together.
_AT_A_TIME = 64

#: As AutoLossGen's paper reports them; F1 and accuracy at the threshold with the best F1.
TEST_METRICS = ("auc", "f1", "accuracy")

#: How many found losses the confirmation of protocol "standard" tunes.
_CONFIRMED = 5


def try_losses(
    settings: Settings, split: Split, cache: Cache, losses: Sequence[NamedLoss], console: Console
) -> None:
    """Train losses from scratch, rank them on validation, and report them on test, beside the published ones."""
    protocol = long_protocol(settings.protocol)
    trainer = make_trainer(settings.model, protocol, settings.device)
    if not losses:
        console.print("phase 3: no loss has passed the validity check; search longer")
    if len(losses) > settings.top:
        losses = rank(settings, split, cache, losses, console)[: settings.top]
    known = {loss.name for loss in losses}
    everybody = [*losses, *(loss for loss in published() if loss.name not in known)]
    seeds = [training_seed(settings.seed, TEST_REPLICATE + k) for k in range(settings.tests)]
    console.print(f"phase 3: {len(everybody)} losses from scratch, {settings.tests} seeds each")
    problem = PointwiseProblem(split, TEST_METRICS)
    effects = effectiveness(
        [loss.expression for loss in everybody], trainer, problem, epochs=settings.epochs, seeds=seeds, cache=cache
    )
    table = effect_table(everybody, effects)
    authors = settings.dataset == "ml-100k" and settings.model == "mf" and not is_standard(protocol)
    if authors:
        table["authors' code"] = [f"{AUTHORS[name]:.3f}" if name in AUTHORS else "" for name in table["loss"]]
    write_csv_atomic(table, settings.out / "effectiveness.csv")
    write_csv_atomic(seed_table(everybody, effects), settings.out / "effectiveness_seeds.csv")
    found = [loss for loss in losses if loss.name not in AUTHORS]
    sentence = effect_sentence(everybody, effects, {loss.name for loss in found})
    best_first = sorted(zip(everybody, effects, strict=True), key=lambda pair: -_validation(pair[1]))
    write_found(settings, [loss for loss, _ in best_first if loss in found])
    shown = [loss for loss, _ in best_first if loss in found][:3]
    shown += [loss for loss in everybody if loss.name == "bce"]
    plots.save(plots.loss_curves(loss_curves(shown, protocol.scale_free)), settings.out / "losses.png")
    confirmed = None
    if is_standard(protocol) and found:
        confirmed = confirm_losses(settings, split, [loss for loss, _ in best_first if loss in found], console)
    write_summary(settings, split, table, sentence, confirmed)


def rank(
    settings: Settings, split: Split, cache: Cache, losses: Sequence[NamedLoss], console: Console
) -> list[NamedLoss]:
    """Train every loss from scratch with one seed; return those that can be trained, best on validation first."""
    evaluator = LossEvaluator(
        PointwiseProblem(split),
        make_trainer(settings.model, long_protocol(settings.protocol), settings.device),
        epochs=settings.epochs,
        seed=training_seed(settings.seed, RANKING_REPLICATE),
        cache=cache,
    )
    seen: dict[str, Evaluation] = {}
    evaluations: list[Evaluation] = []
    for first in range(0, len(losses), _AT_A_TIME):
        part = losses[first : first + _AT_A_TIME]
        console.print(f"phase 3: ranking losses {first + 1} to {first + len(part)} of {len(losses)} on validation")
        new = evaluator.evaluate([loss.expression for loss in part], seen, len(part))
        seen.update({one.fingerprint: one for one in new if one.charged and one.fingerprint is not None})
        evaluations += new
    rows = [
        {
            "loss": loss.name,
            "status": str(one.status),
            "reason": one.reason or "",
            "validation AUC": one.reward,
            "expression": str(loss.expression),
        }
        for loss, one in zip(losses, evaluations, strict=True)
    ]
    table = pd.DataFrame(rows).sort_values("validation AUC", ascending=False, kind="stable")
    write_csv_atomic(table, settings.out / "ranking.csv")
    pairs = [pair for pair in zip(losses, evaluations, strict=True) if pair[1].status is Status.TRAINED]
    pairs.sort(key=lambda pair: -(pair[1].reward or 0.0))
    if not pairs:
        raise ValueError("none of the losses can be trained; ranking.csv says why")
    return [loss for loss, _ in pairs]


def _validation(effect: Effect) -> float:
    """Mean validation AUC; 0 where a seed diverged."""
    return float(np.nan_to_num(effect.validation, nan=0.0).mean())


def effect_table(losses: Sequence[NamedLoss], effects: Sequence[Effect]) -> pd.DataFrame:
    """A row a loss, the best on validation first: means over seeds, with the standard deviation of test AUC."""
    rows = []
    for loss, effect in sorted(zip(losses, effects, strict=True), key=lambda pair: -_validation(pair[1])):
        row = {"loss": loss.name, "validation AUC": f"{_validation(effect):.4f}"}
        for name in TEST_METRICS:
            row[f"test {'AUC' if name == 'auc' else name}"] = f"{effect.test[name].mean():.4f}"
        auc = effect.test["auc"]
        row["sd of test AUC"] = f"{auc.std(ddof=1):.4f}" if len(auc) > 1 else ""
        row["lowest to highest"] = f"{auc.min():.3f} to {auc.max():.3f}"
        row["seeds"] = str(len(effect.validation))
        row["best epochs"] = f"{effect.best_epoch.min()} to {effect.best_epoch.max()}"
        row["formula"] = str(loss.expression)
        rows.append(row)
    return pd.DataFrame(rows)


def seed_table(losses: Sequence[NamedLoss], effects: Sequence[Effect]) -> pd.DataFrame:
    """A row a loss and seed; seeds have the same numbers for all losses."""
    frames = [
        pd.DataFrame(
            {
                "loss": loss.name,
                "seed": range(len(effect.validation)),
                "validation_auc": effect.validation,
                "test_auc": effect.test["auc"],
                "best_epoch": effect.best_epoch,
            }
        )
        for loss, effect in zip(losses, effects, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def effect_sentence(losses: Sequence[NamedLoss], effects: Sequence[Effect], found: set[str]) -> str:
    """Say how the best found loss does beside the best known one, both chosen on validation."""
    pairs = list(zip(losses, effects, strict=True))
    ours = [pair for pair in pairs if pair[0].name in found]
    theirs = [pair for pair in pairs if pair[0].name not in found]
    if not ours or not theirs:
        return "No found loss takes part; these are the published losses."
    (loss, effect), (known, other) = (max(group, key=lambda pair: _validation(pair[1])) for group in (ours, theirs))
    difference = effect.test["auc"] - other.test["auc"]
    return (
        f"The best found loss on validation is {loss.name}, `{loss.expression}`: test AUC "
        f"{effect.test['auc'].mean():.4f}; the best published one is {known.name} with "
        f"{other.test['auc'].mean():.4f}. Seed by seed the difference is {difference.mean():+.4f} "
        f"({difference.min():+.4f} to {difference.max():+.4f})."
    )


def write_found(settings: Settings, found: Sequence[NamedLoss]) -> None:
    """Write the found losses, the best first, for the experiment on transfer."""
    rows = [
        {"model": settings.model, "dataset": settings.dataset, "name": one.name, "expression": str(one.expression)}
        for one in found
    ]
    table = pd.DataFrame(rows, columns=["model", "dataset", "name", "expression"])
    write_csv_atomic(table, settings.out / "found.csv")


def confirm_losses(
    settings: Settings, split: Split, found: Sequence[NamedLoss], console: Console
) -> tuple[str, pd.DataFrame]:
    """Tune the best found losses and the published ones alike, and compare them on test."""
    rivals = [Rival(loss.name, HAND_MADE, loss.expression) for loss in published()]
    rivals += [Rival(loss.name, "found", loss.expression) for loss in found[:_CONFIRMED]]
    verdict = confirm(
        rivals,
        make_trainer(settings.model, settings.protocol, settings.device),
        PointwiseProblem(split),
        epochs=settings.epochs,
        seed=settings.seed,
        fresh_seeds=max(settings.tests, 2),
        say=console.print,
    )
    table = verdict_table(verdict)
    write_csv_atomic(table, settings.out / "confirmation.csv")
    return verdict_sentence(verdict), table


def write_summary(
    settings: Settings, split: Split, table: pd.DataFrame, sentence: str, confirmed: tuple[str, pd.DataFrame] | None
) -> None:
    """Write summary.md and settings.json, and print the table."""
    machine = environment(settings.device) | versions()
    record = {"environment": machine, "data": split.describe(), "settings": settings.describe()}
    write_text_atomic(settings.out / "settings.json", json.dumps(record, indent=1) + "\n")
    lines = [
        f"# AutoLossGen on {split.name}",
        "",
        f"Model {settings.model}, protocol {settings.protocol.name}.",
        "",
        "## Effectiveness",
        "",
        sentence,
        "",
        report.to_markdown(table),
        "",
        f"From scratch, at most {settings.epochs} epochs, stopping after {settings.protocol.patience} without a "
        "better one; test figures are at the epoch with the best validation AUC, means over "
        f"{settings.tests} fresh seeds, at the protocol's own rate and decay. F1 is at its best threshold on the "
        "test part, accuracy at the same.",
    ]
    if confirmed is not None:
        lines += ["", "## Confirmation: all tuned alike", "", confirmed[0], "", report.to_markdown(confirmed[1])]
    lines += ["", "## Machine", "", ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    write_text_atomic(settings.out / "summary.md", "\n".join(lines))
    console = Console()
    console.print(report.to_rich_table(table.drop(columns=["formula"]), "Effectiveness"))
    console.print(sentence)
    if confirmed is not None:
        console.print(report.to_rich_table(confirmed[1].drop(columns=["formula"]), "Confirmation"))
        console.print(confirmed[0])
