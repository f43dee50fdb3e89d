"""Phase 3 of AutoLossGen: losses trained from scratch, ranked on validation, the best reported on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from experiments.command.folder import RunFolder
from experiments.command.running import say
from experiments.paper.alternating_search import AutoLossGen
from experiments.paper.published import AUTHORS, long_protocol, published
from experiments.parts.searching import RANKING_REPLICATE, TEST_REPLICATE, is_standard, make_trainer
from experiments.parts.verdict import found_table, judge, loss_curves, verdict_parts
from gploss.compute.kinds import Loss
from gploss.files.whole import write_csv_atomic
from gploss.report import plots
from gploss.report.page import Figure, Note, Part, Table
from gploss.search.cache import Cache
from gploss.search.evaluation import Evaluation, Status
from gploss.tasks import NamedLoss
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.metrics import METRICS
from recmodels.training.protocol import PROTOCOLS
from recmodels.verdict.effectiveness import Effect, effectiveness
from recmodels.verdict.rivals import Rival
from recmodels.verdict.tables import verdict_sentence, verdict_table

#: Losses ranked together.
_AT_A_TIME = 64

#: What AutoLossGen's paper reports beside the metric that steers, at the threshold with the best F1.
REPORTED: Final = ("f1", "accuracy")

#: How many found losses the confirmation of protocol "standard" tunes.
_CONFIRMED = 5


def try_losses(
    settings: AutoLossGen, problem: PointwiseProblem, folder: RunFolder, losses: Sequence[NamedLoss]
) -> tuple[str, list[Part]]:
    """Train losses from scratch, rank them on validation, and report them on test, beside the published ones.

    Returns:
        The result in a sentence, and parts of a page: the table, how it came about, and curves; under protocol
        "standard" a confirmation as well.
    """
    protocol = long_protocol(PROTOCOLS[settings.protocol])
    trainer = make_trainer(settings.model, protocol, settings.device)
    if not losses:
        say("phase 3: no loss has passed the validity check; search longer")
    with Cache(folder.file("cache.sqlite")) as cache:
        if len(losses) > settings.top:
            losses = rank(settings, problem, cache, losses, folder)[: settings.top]
        known = {loss.name for loss in losses}
        everybody = [*losses, *(loss for loss in published() if loss.name not in known)]
        seeds = [training_seed(settings.seed, TEST_REPLICATE + k) for k in range(settings.tests)]
        say(f"phase 3: {len(everybody)} losses from scratch, {settings.tests} seeds each")
        expressions = [loss.expression for loss in everybody]
        reported = PointwiseProblem(problem.split, [problem.metric, *REPORTED])
        effects = effectiveness(
            expressions, trainer, reported, epochs=settings.most_epochs, seeds=seeds, cache=cache
        )
    table = effect_table(everybody, effects, problem.metric)
    if settings.dataset == "ml-100k" and settings.model == "mf" and not is_standard(protocol):
        table["authors' code"] = [f"{AUTHORS[name]:.3f}" if name in AUTHORS else "" for name in table["loss"]]
    write_csv_atomic(table, folder.file("effectiveness.csv"))
    write_csv_atomic(seed_table(everybody, effects, problem.metric), folder.file("effectiveness_seeds.csv"))
    found = [loss for loss in losses if loss.name not in AUTHORS]
    best_first = _best_first(everybody, effects, problem.metric)
    found_best_first = {loss.name: loss.expression for loss, _ in best_first if loss in found}
    write_csv_atomic(found_table(settings.model, settings.dataset, found_best_first), folder.file("found.csv"))
    bce = {loss.name: loss.expression for loss in everybody if loss.name == "bce"}
    shown = dict(list(found_best_first.items())[:3]) | bce
    curves = plots.loss_curves(loss_curves(shown, problem.task, scale_free=protocol.scale_free))
    parts: list[Part] = [
        Table(table.drop(columns=["expression"]), only_written=["formula"]),
        _how(settings),
        Figure("losses.png", curves, "The losses and their gradients"),
    ]
    if is_standard(protocol) and found:
        parts += confirm_losses(settings, problem, folder, found_best_first)
    return effect_sentence(everybody, effects, {loss.name for loss in found}, problem.metric), parts


def _how(settings: AutoLossGen) -> Note:
    return Note(
        f"From scratch, at most {settings.most_epochs} epochs, stopping after "
        f"{PROTOCOLS[settings.protocol].patience} without a better one; test figures are at the epoch with the "
        f"best validation value, means over {settings.tests} fresh seeds, at the protocol's own rate and decay. F1 "
        "is at its best threshold on the test part, accuracy at the same."
    )


def rank(
    settings: AutoLossGen, problem: PointwiseProblem, cache: Cache, losses: Sequence[NamedLoss], folder: RunFolder
) -> list[NamedLoss]:
    """Train every loss from scratch with one seed; return those that can be trained, best on validation first."""
    evaluator = LossEvaluator(
        problem,
        make_trainer(settings.model, long_protocol(PROTOCOLS[settings.protocol]), settings.device),
        epochs=settings.most_epochs,
        seed=training_seed(settings.seed, RANKING_REPLICATE),
        cache=cache,
    )
    seen: dict[str, Evaluation] = {}
    evaluations: list[Evaluation] = []
    for first in range(0, len(losses), _AT_A_TIME):
        part = losses[first : first + _AT_A_TIME]
        say(f"phase 3: ranking losses {first + 1} to {first + len(part)} of {len(losses)} on validation")
        new = evaluator.evaluate([loss.expression for loss in part], seen, len(part))
        seen.update({one.fingerprint: one for one in new if one.charged and one.fingerprint is not None})
        evaluations += new
    rows = [
        {
            "loss": loss.name,
            "status": str(one.status),
            "reason": one.reason or "",
            "reward": one.reward,
            "expression": str(loss.expression),
        }
        for loss, one in zip(losses, evaluations, strict=True)
    ]
    table = pd.DataFrame(rows).sort_values("reward", ascending=not problem.higher_is_better, kind="stable")
    write_csv_atomic(table, folder.file("ranking.csv"))
    pairs = [pair for pair in zip(losses, evaluations, strict=True) if pair[1].status is Status.TRAINED]
    sign = -1.0 if problem.higher_is_better else 1.0
    pairs.sort(key=lambda pair: sign * (pair[1].reward or 0.0))
    if not pairs:
        raise ValueError("none of the losses can be trained; ranking.csv says why")
    return [loss for loss, _ in pairs]


def _validation(effect: Effect, metric: str) -> float:
    """Mean validation value; where a seed diverged it has the worst one."""
    worst = 0.0 if METRICS[metric].higher_is_better else float("inf")
    return float(np.nan_to_num(effect.validation, nan=worst).mean())


def _best_first(
    losses: Sequence[NamedLoss], effects: Sequence[Effect], metric: str
) -> list[tuple[NamedLoss, Effect]]:
    sign = -1.0 if METRICS[metric].higher_is_better else 1.0
    return sorted(zip(losses, effects, strict=True), key=lambda pair: sign * _validation(pair[1], metric))


def effect_table(losses: Sequence[NamedLoss], effects: Sequence[Effect], metric: str) -> pd.DataFrame:
    """A row a loss, the best on validation first: means over seeds, with the standard deviation on test."""
    rows = []
    for loss, effect in _best_first(losses, effects, metric):
        row = {"loss": loss.name, f"validation {metric}": f"{_validation(effect, metric):.4f}"}
        row |= {f"test {name}": f"{values.mean():.4f}" for name, values in effect.test.items()}
        values = effect.test[metric]
        row[f"sd of test {metric}"] = f"{values.std(ddof=1):.4f}" if len(values) > 1 else ""
        row["lowest to highest"] = f"{values.min():.3f} to {values.max():.3f}"
        row["seeds"] = str(len(effect.validation))
        row["best epochs"] = f"{effect.best_epoch.min()} to {effect.best_epoch.max()}"
        row["formula"] = loss.expression.readable()
        row["expression"] = str(loss.expression)
        rows.append(row)
    return pd.DataFrame(rows)


def seed_table(losses: Sequence[NamedLoss], effects: Sequence[Effect], metric: str) -> pd.DataFrame:
    """A row a loss and seed; seeds have the same numbers for all losses."""
    frames = [
        pd.DataFrame(
            {
                "loss": loss.name,
                "seed": range(len(effect.validation)),
                f"validation_{metric}": effect.validation,
                f"test_{metric}": effect.test[metric],
                "best_epoch": effect.best_epoch,
            }
        )
        for loss, effect in zip(losses, effects, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def effect_sentence(losses: Sequence[NamedLoss], effects: Sequence[Effect], found: set[str], metric: str) -> str:
    """Say how the best found loss does beside the best known one, both chosen on validation."""
    pairs = _best_first(losses, effects, metric)
    ours = [pair for pair in pairs if pair[0].name in found]
    theirs = [pair for pair in pairs if pair[0].name not in found]
    if not ours or not theirs:
        return "No found loss takes part; these are the published losses."
    (loss, effect), (known, other) = ours[0], theirs[0]
    difference = effect.test[metric] - other.test[metric]
    return (
        f"The best found loss on validation is {loss.name}, `{loss.expression.readable()}`: {metric} on test "
        f"{effect.test[metric].mean():.4f}; the best published one is {known.name} with "
        f"{other.test[metric].mean():.4f}. Seed by seed the difference is {difference.mean():+.4f} "
        f"({difference.min():+.4f} to {difference.max():+.4f})."
    )


def confirm_losses(
    settings: AutoLossGen, problem: PointwiseProblem, folder: RunFolder, found: Mapping[str, Loss]
) -> list[Part]:
    """Tune the best found losses and the hand-made ones alike, and compare them on test."""
    rivals = [Rival(name, "found", loss) for name, loss in list(found.items())[:_CONFIRMED]]
    trainer = make_trainer(settings.model, PROTOCOLS[settings.protocol], settings.device)
    verdict = judge(settings, rivals, trainer, problem, folder.file("cache.sqlite"), epochs=settings.most_epochs)
    write_csv_atomic(verdict_table(verdict), folder.file("confirmation.csv"))
    return ["All tuned alike:", verdict_sentence(verdict), *verdict_parts(verdict)]
