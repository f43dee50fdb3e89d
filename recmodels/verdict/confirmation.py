"""Is a found loss really better? All losses tuned alike, fresh seeds, the test part once, paired intervals.

On validation parts, over several seeds, choose each loss's settings, the best hand-made loss, and the finalists of
each group. Then train the chosen ones from fresh seeds and compare them on the test part: users and seeds are
bootstrapped jointly, differences are paired, and p-values are corrected (Holm) over finalists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gploss.arguments import instance, whole_number
from gploss.search.cache import Cache
from recmodels.evaluators.evaluator import training_seed
from recmodels.training.problem import Problem
from recmodels.training.trainer import Trainer
from recmodels.verdict.bootstrap import Floats, Gain, draw_seeds, gains, holm
from recmodels.verdict.examination import Examination, Marks
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tuning import Say, Tuned, Tuning, tune

#: Replicates from here on are fresh seeds: no search and no tuning has seen them.
_FRESH: Final = 1_000_000


@dataclass(frozen=True)
class Comparison:
    """A loss on the test part.

    Attributes:
        tuned: the loss and its settings.
        test: (S,) the metric on test of each fresh seed, at the epoch that is best on validation.
        diverged: how many of the seeds diverged before they had a value; they count as models that give every row
            the same score.
        gain: by how much it is better than the best hand-made loss, seed by seed.
        p_value: `gain.p_value`, corrected over finalists; NaN for hand-made ones.
        detectable: the smallest gain that would have been found here four times out of five.
    """

    tuned: Tuned
    test: Floats
    diverged: int
    gain: Gain
    p_value: float
    detectable: float


@dataclass(frozen=True)
class Verdict:
    """What was compared, and how.

    Attributes:
        comparisons: the best hand-made loss first, then by the metric on test, the better ones first.
        left_out: why other losses could not be trained, by name.
        metric: what was compared.
        higher_is_better: its direction.
        chosen_by: the metric on validation by which settings, epochs and finalists were chosen.
        by_row: whether rows were drawn in the bootstrap, because the problem has no users.
        n_units: users (or rows) of the test part.
        resamples: of the bootstrap.
    """

    comparisons: list[Comparison]
    left_out: dict[str, str]
    metric: str
    higher_is_better: bool
    chosen_by: str
    by_row: bool
    n_units: int
    resamples: int


def confirm(
    rivals: Sequence[Rival],
    trainer: Trainer,
    problem: Problem,
    *,
    epochs: int,
    seed: int = 0,
    metric: str | None = None,
    tuning_seeds: int = 3,
    fresh_seeds: int = 10,
    finalists: int = 1,
    resamples: int = 1000,
    tuning_problems: Sequence[Problem] | None = None,
    cache: Cache | None = None,
    say: Say = lambda line: None,
) -> Verdict:
    """Tune losses, choose on validation, compare on test.

    Args:
        rivals: hand-made losses (group `HAND_MADE`) and found ones; of each other group the best ones on validation
            become its finalists.
        trainer: trains everybody alike.
        problem: data and metrics; its test part is looked at once, at the end.
        epochs: at most so many.
        seed: of the experiment.
        metric: which of the problem's metrics is compared on test; by default the first, which steers all else.
        tuning_seeds: seeds over which validation is averaged.
        fresh_seeds: seeds of the comparison on test.
        finalists: of each group of found losses.
        resamples: bootstrap resamples.
        tuning_problems: what choices are made on, each with `tuning_seeds` seeds; the problem's own validation part
            by default.
        cache: keeps what was trained and measured, so that a run that was cut off goes on where it was; or None.
        say: told what is done next.

    Raises:
        TypeError: an argument is of another kind.
        LookupError: the problem has no such metric.
        ValueError: no hand-made loss can be trained, or the metric is undefined on the test part.
    """
    instance("problem", problem, Problem, "a Problem, such as PointwiseProblem(split)")
    tuning_seeds = whole_number("tuning_seeds", tuning_seeds, least=1)
    fresh_seeds = whole_number("fresh_seeds", fresh_seeds, least=1)
    finalists = whole_number("finalists", finalists, least=1)
    resamples = whole_number("resamples", resamples, least=1)
    metric = instance("metric", problem.metric if metric is None else metric, str, "a text")
    if metric not in problem.metrics:
        raise LookupError(f"{problem.name} has no metric {metric!r}; choose from: {', '.join(problem.metrics)}")
    problems = [problem] if tuning_problems is None else tuning_problems
    tuning = tune(rivals, trainer, problems, epochs=epochs, seed=seed, seeds=tuning_seeds, cache=cache, say=say)
    chosen = _choose(tuning, finalists, higher_is_better=problem.higher_is_better)
    say(f"testing {len(chosen)} losses with {fresh_seeds} fresh seeds each")
    examination = Examination(trainer, problem, metric, epochs=epochs, resamples=resamples, seed=seed, cache=cache)
    seeds = [training_seed(seed, _FRESH + s) for s in range(fresh_seeds)]
    marks = examination.run(chosen, seeds, say)
    higher = problem.metrics[metric]
    compared = gains(
        marks.plain, marks.resampled, draw_seeds(fresh_seeds, resamples, seed), higher_is_better=higher
    )
    return Verdict(
        comparisons=_compare(chosen, marks, compared, higher_is_better=higher),
        left_out=tuning.left_out,
        metric=metric,
        higher_is_better=higher,
        chosen_by=problem.metric,
        by_row=examination.by_row,
        n_units=examination.n_units,
        resamples=resamples,
    )


def _choose(tuning: Tuning, finalists: int, *, higher_is_better: bool) -> list[Tuned]:
    """Return the best hand-made loss on validation, the other hand-made ones, and the finalists of each group."""
    sign = -1.0 if higher_is_better else 1.0
    ordered = sorted(tuning.tuned, key=lambda one: (sign * one.validation, one.name))
    hand_made = [one for one in ordered if one.group == HAND_MADE]
    if not hand_made:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in tuning.left_out.items())
        raise ValueError(
            f"no hand-made loss can be trained, and found ones are compared with the best of them"
            f"{reasons and f' ({reasons})'}: name one that can"
        )
    found: dict[str, list[Tuned]] = {}
    for one in ordered:
        if one.group != HAND_MADE:
            found.setdefault(one.group, []).append(one)
    return hand_made + [one for group in sorted(found) for one in found[group][:finalists]]


def _compare(
    chosen: Sequence[Tuned],
    marks: Marks,
    compared: Sequence[Gain],
    *,
    higher_is_better: bool,
) -> list[Comparison]:
    is_finalist = [one.group != HAND_MADE for one in chosen]
    p_values = holm(
        [gain.p_value if found else float("nan") for gain, found in zip(compared, is_finalist, strict=True)]
    )
    comparisons = [
        Comparison(one, test, int(lost.sum()), gain, p_value, gain.detectable(sum(is_finalist)))
        for one, test, lost, gain, p_value in zip(
            chosen, marks.plain, marks.diverged, compared, p_values, strict=True
        )
    ]
    sign = -1.0 if higher_is_better else 1.0
    rest = sorted(comparisons[1:], key=lambda one: (sign * float(np.mean(one.test)), one.tuned.name))
    return [comparisons[0], *rest]
