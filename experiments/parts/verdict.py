"""Judging: what was found against what is known, on test; and what is said and drawn of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.command import options
from experiments.command.running import say
from gploss.compute.kinds import Loss
from gploss.report import plots
from gploss.report.page import Note, Part, Table
from gploss.screening.screening import screen
from gploss.search.cache import Cache
from gploss.tasks import Task
from recmodels.training.problem import Problem
from recmodels.training.trainer import Trainer
from recmodels.verdict.confirmation import Verdict, confirm
from recmodels.verdict.rivals import Rival, rivals_of
from recmodels.verdict.tables import ONLY_WRITTEN, verdict_notes, verdict_table


def judge(
    settings: options.JudgeSettings,
    found: Sequence[Rival],
    trainer: Trainer,
    problem: Problem,
    cache_file: Path,
    *,
    epochs: int,
    tuning_problems: Sequence[Problem] | None = None,
) -> Verdict:
    """Tune found and hand-made losses alike, choose on validation, and compare on test.

    Args:
        settings: which hand-made losses there are (all that the task knows, where none is named), how many
            finalists and seeds.
        found: losses that searches found, grouped by what found them.
        trainer: trains everybody alike.
        problem: data and metrics; its test part is looked at once.
        cache_file: where what was trained is kept.
        epochs: at most so many.
        tuning_problems: what choices are made on; the problem's own validation part where None.
    """
    rivals = rivals_of(settings.rivals or problem.task.losses.names(), problem.task)
    with Cache(cache_file) as cache:
        return confirm(
            [*rivals, *found],
            trainer,
            problem,
            epochs=epochs,
            seed=settings.seed,
            metric=settings.test_metric,
            tuning_seeds=settings.tuning_seeds,
            fresh_seeds=settings.tests,
            finalists=settings.finalists,
            tuning_problems=tuning_problems,
            cache=cache,
            say=say,
        )


def verdict_parts(verdict: Verdict) -> list[Part]:
    """Return a verdict's table, and how it came about."""
    table = verdict_table(verdict).drop(columns=["expression"])
    unprinted = [name for name in ONLY_WRITTEN if name in table.columns]
    return [Table(table, only_written=unprinted), *map(Note, verdict_notes(verdict))]


def found_table(model: str, dataset: str, losses: Mapping[str, Loss]) -> pd.DataFrame:
    """Return found losses, the best first, as `gploss transfer --found` reads them."""
    rows = [
        {"model": model, "dataset": dataset, "name": name, "expression": str(loss)} for name, loss in losses.items()
    ]
    return pd.DataFrame(rows, columns=["model", "dataset", "name", "expression"])


def loss_curves(losses: Mapping[str, Loss], task: Task, *, scale_free: bool) -> dict[str, plots.Curves]:
    """Return value and gradient of losses, as trained, over the task's score, for `plots.loss_curves`."""
    curves: dict[str, plots.Curves] = {}
    for name, loss in losses.items():
        ready = screen([loss], task, scale_free=scale_free).losses
        own = {}
        for kind, inputs in task.views.items():
            values, gradients = ready.losses(inputs)
            own[kind] = (inputs[task.score], values[0], gradients[task.score][0])
        curves[name if name in task.losses else f"{name}: {loss.readable()}"] = own
    return curves
