"""Data and losses as options name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from experiments.command import options
from gploss.files.text import read_text
from gploss.language.expression import Expression
from gploss.language.parsing import ExpressionError
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES, POINTWISE
from recmodels.data.interactions import Split
from recmodels.data.noise import Flips, Noise
from recmodels.data.pointwise import PointwiseProblem
from recmodels.datasets import load_dataset
from recmodels.verdict.rivals import Rival, rivals_of


def load_data(dataset: str, settings: options.ReadingSettings, *, columns: bool = True) -> Split:
    """Return a dataset in three parts, with the noise that is asked for.

    Args:
        dataset: a name, or the path of a table.
        settings: columns, how a table is read, how rows are split, and noise.
        columns: whether to look at options about columns and files, which datasets with names do not take.

    Raises:
        ValueError: an option is not for this dataset, or the data cannot be used.
    """
    given = _given(settings)
    if not columns:
        given = {name: value for name, value in given.items() if name in ("positive_from", "split")}
    try:
        split = load_dataset(dataset, **given)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return noise_of(settings).applied_to(split)


#: Options that say that there is none of something.
_DENIED: Final = {"no_header": "header", "no_quotes": "quotes", "timeless": "time"}


def _given(settings: options.TableSettings) -> dict[str, Any]:
    """Return what is asked for of a table, as `load_dataset` takes it; what has its default is not passed on.

    Raises:
        ValueError: an option says what another one denies.
    """
    fields = options.TableSettings.model_fields
    own = {name: getattr(settings, name) for name in fields if getattr(settings, name) != fields[name].default}
    given = {name: value for name, value in own.items() if name not in _DENIED}
    for flag in own.keys() & _DENIED.keys():
        if _DENIED[flag] in given:
            raise ValueError(f"give {_DENIED[flag]} or {flag}, not both")
        given[_DENIED[flag]] = False
    if given.get("separator") == "tab":
        given["separator"] = "\t"
    return given


def load_problem(dataset: str, settings: options.ReadingSettings, *, columns: bool = True) -> PointwiseProblem:
    """Return a dataset as a problem, with the metrics that are asked for; see `load_data`."""
    return problem_of(load_data(dataset, settings, columns=columns), settings)


def problem_of(split: Split, settings: options.RunSettings) -> PointwiseProblem:
    """Return a split as a problem: the metric that steers first, then that of the test."""
    steering = settings.metric or POINTWISE.metric
    tested = settings.test_metric if isinstance(settings, options.JudgeSettings) else None
    return PointwiseProblem(split, list(dict.fromkeys([steering, tested or steering])))


def noise_of(settings: options.ReadingSettings) -> Noise:
    """Return the noise that is asked for.

    Raises:
        ValueError: it is not understood.
    """
    return Noise(
        train=Flips.parse(settings.train_noise) if settings.train_noise else Flips(),
        negatives=settings.negatives,
        validation=Flips.parse(settings.validation_noise) if settings.validation_noise else Flips(),
        seed=settings.seed,
    )


def read_rival(text: str) -> Rival:
    """Return the loss that a name or a formula stands for.

    Raises:
        LookupError: it is neither.
        ExpressionError: the formula cannot be read.
    """
    (rival,) = rivals_of([text], POINTWISE)
    return rival


def read_losses(path: Path) -> list[NamedLoss]:
    """Read losses from a text file: a line a formula or known name, which may begin with ``name:``.

    Empty lines and what follows a ``#`` do not count.

    Raises:
        OSError: there is no such file.
        ValueError: it cannot be read, or a line of it; the message names it.
    """
    losses = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, colon, formula = text.partition(":")
        formula = formula.strip() if colon else text
        try:
            expression = LOSSES[formula].expression if formula in LOSSES else Expression.parse(formula)
        except ExpressionError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        losses.append(NamedLoss(name.strip() if colon or formula in LOSSES else f"loss {number}", expression))
    if not losses:
        raise ValueError(f"{path} holds no loss: write one formula a line")
    return losses
