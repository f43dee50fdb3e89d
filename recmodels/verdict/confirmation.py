"""Is a found loss really better? All losses tuned alike, fresh seeds, the test split once, paired intervals.

On the validation part, over several seeds, choose each loss's learning rate and weight decay, the best hand-made
loss, and one finalist a searcher. Then train the chosen ones from fresh seeds and compare them on the test part:
users and seeds are bootstrapped jointly, differences are paired, and p-values are corrected (Holm) over finalists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import training_seed
from recmodels.training.trainer import Member, Outcome, Trainer, TrainReport

Floats = npt.NDArray[np.float64]

#: Replicates from here on are fresh seeds: no search and no tuning has seen them.
_FRESH: Final = 1_000_000
_TUNING: Final = 500_000

#: How often the grid may grow by one step in each direction in which the best lies on its edge.
_GROWTHS: Final = 3


@dataclass(frozen=True)
class Setting:
    """Learning rate and weight decay of a loss."""

    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Tuned:
    """A loss with its best setting.

    Attributes:
        name: for tables.
        group: "hand-made", or the searcher that found it.
        expression: the loss.
        setting: the best one on validation.
        validation: mean over tuning splits and seeds of the best validation AUC, under that setting.
        settings_tried: how many settings were compared.
    """

    name: str
    group: str
    expression: Expression
    setting: Setting
    validation: float
    settings_tried: int


@dataclass(frozen=True)
class Comparison:
    """A loss on the test part.

    Attributes:
        tuned: the loss and its setting.
        test: (S,) test AUC of each fresh seed, at the epoch with the best validation AUC.
        difference: mean of test AUC less that of the best hand-made loss, seed by seed.
        low: lower end of the 95% interval of the difference.
        high: its upper end.
        p_value: two-sided bootstrap p-value of no difference, corrected over finalists; NaN for hand-made ones.
    """

    tuned: Tuned
    test: Floats
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Candidate:
    """A loss that takes part.

    Attributes:
        name: for tables.
        group: "hand-made", or the searcher that found it.
        expression: the loss.
    """

    name: str
    group: str
    expression: Expression


HAND_MADE: Final = "hand-made"

#: Called with a line of text about what is done next.
Report = Callable[[str], None]


def confirm(
    candidates: Sequence[Candidate],
    trainer: Trainer,
    split: Split,
    *,
    epochs: int,
    seed: int = 0,
    tuning_seeds: int = 3,
    fresh_seeds: int = 10,
    resamples: int = 1000,
    tuning_splits: Sequence[Split] | None = None,
    report: Report = lambda line: None,
) -> list[Comparison]:
    """Tune candidates, choose on validation, compare on test.

    Args:
        candidates: hand-made losses (group `HAND_MADE`) and found ones; of each other group the best one on
            validation becomes its finalist.
        trainer: trains everybody alike.
        split: data; its test part is looked at once, at the end.
        epochs: at most so many.
        seed: of the experiment.
        tuning_seeds: seeds over which validation is averaged.
        fresh_seeds: seeds of the comparison on test.
        resamples: bootstrap resamples.
        tuning_splits: what choices are made on, each with `tuning_seeds` seeds; the split's own validation part by
            default. `recmodels.data.splits.repeated_splits` gives more.
        report: told what is done next.

    Returns:
        One comparison a hand-made loss and finalist, the best hand-made first, then by test AUC.

    Raises:
        ValueError: no hand-made candidate trains.
    """
    splits = [split] if tuning_splits is None else tuning_splits
    tuned = tune(candidates, trainer, splits, epochs=epochs, seed=seed, seeds=tuning_seeds, report=report)
    hand_made = [one for one in tuned if one.group == HAND_MADE]
    if not hand_made:
        raise ValueError("no hand-made loss could be trained; a confirmation needs one to compare with")
    best = max(hand_made, key=lambda one: one.validation)
    finalists: dict[str, Tuned] = {}
    for one in tuned:
        if one.group != HAND_MADE and (
            one.group not in finalists or one.validation > finalists[one.group].validation
        ):
            finalists[one.group] = one
    chosen = [best, *(one for one in hand_made if one is not best), *finalists.values()]
    report(f"testing {len(chosen)} losses with {fresh_seeds} fresh seeds each")
    scores = _test_scores(chosen, trainer, split, epochs, seed, fresh_seeds)
    return _compare(chosen, scores, split.test, resamples, seed)


def tune(
    candidates: Sequence[Candidate],
    trainer: Trainer,
    splits: Sequence[Split],
    *,
    epochs: int,
    seed: int,
    seeds: int,
    report: Report = lambda line: None,
) -> list[Tuned]:
    """Find each candidate's best learning rate and weight decay on validation.

    The grid starts at the protocol's own values, halved and doubled, and grows while the best lies on its edge.

    Args:
        candidates: losses.
        trainer: trains them all.
        splits: on whose validation parts settings are compared, by the mean.
        epochs: at most so many.
        seed: of the experiment.
        seeds: training seeds on each split.
        report: told what is done next.

    Returns:
        The candidates that can be trained; those that screening rejects or that always diverge are left out.
    """
    program, sound = _compile(candidates, trainer)
    protocol = trainer.protocol
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    values: list[dict[tuple[int, int], float]] = [{} for _ in sound]
    waiting = [(row, step) for row in range(len(sound)) for step in steps]
    for _ in range(1 + _GROWTHS):
        report(f"tuning {len(sound)} losses: {len(waiting)} settings with {seeds * len(splits)} runs each")
        members = [
            Member(
                row,
                training_seed(seed, _TUNING + s),
                _settings(*_setting(protocol.learning_rate, protocol.weight_decay, step)),
            )
            for row, step in waiting
            for s in range(seeds)
        ]
        values_of_splits = [
            _best_values(trainer.fit(program, members, PointwiseProblem(split), epochs)) for split in splits
        ]
        means = np.mean(values_of_splits, axis=0).reshape(len(waiting), seeds).mean(axis=1)
        for (row, step), mean in zip(waiting, means.tolist(), strict=True):
            values[row][step] = mean
        waiting = [(row, step) for row in range(len(sound)) for step in _growth(values[row])]
        if not waiting:
            break
    tuned = []
    for own, candidate in zip(values, sound, strict=True):
        step = max(own, key=lambda key: own[key])
        if own[step] > 0:
            setting = Setting(*_setting(protocol.learning_rate, protocol.weight_decay, step))
            tuned.append(Tuned(candidate.name, candidate.group, candidate.expression, setting, own[step], len(own)))
    return tuned


def _compile(candidates: Sequence[Candidate], trainer: Trainer) -> tuple[Program, list[Candidate]]:
    scale_free = trainer.protocol.scale_free
    reasons = screen([one.expression for one in candidates], scale_free=scale_free).reasons
    sound = [one for one, reason in zip(candidates, reasons, strict=True) if reason is None]
    return screen([one.expression for one in sound], scale_free=scale_free).program, sound


def _setting(learning_rate: float, weight_decay: float, step: tuple[int, int]) -> tuple[float, float]:
    return learning_rate * 2.0 ** step[0], weight_decay * 2.0 ** step[1]


def _settings(learning_rate: float, weight_decay: float) -> dict[str, float]:
    return {"learning_rate": learning_rate, "weight_decay": weight_decay}


def _growth(values: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Settings around the best one that have not been tried."""
    i, j = max(values, key=lambda key: values[key])
    around = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    return [step for step in around if step not in values]


def _best_values(report: TrainReport) -> Floats:
    """Best validation AUC of each member; 0 for one that diverged."""
    column = np.nan_to_num(report.metrics["auc"], nan=0.0)
    best: Floats = column.max(axis=1)
    best[[outcome is Outcome.DIVERGED for outcome in report.outcomes]] = 0.0
    return best


def _test_scores(
    chosen: Sequence[Tuned], trainer: Trainer, split: Split, epochs: int, seed: int, fresh_seeds: int
) -> npt.NDArray[np.float32]:
    """Scores (losses, seeds, N) on the test part, of each model at its best epoch on validation."""
    scale_free = trainer.protocol.scale_free
    program = screen([one.expression for one in chosen], scale_free=scale_free).program
    members = [
        Member(
            row,
            training_seed(seed, _FRESH + s),
            _settings(one.setting.learning_rate, one.setting.weight_decay),
        )
        for row, one in enumerate(chosen)
        for s in range(fresh_seeds)
    ]
    problem = PointwiseProblem(split)
    report = trainer.fit(program, members, problem, epochs, keep="best")
    assert report.states is not None
    return trainer.predict(report.states, problem.rows("test")).reshape(len(chosen), fresh_seeds, -1)


def _compare(
    chosen: Sequence[Tuned], scores: npt.NDArray[np.float32], test: Interactions, resamples: int, seed: int
) -> list[Comparison]:
    rng = np.random.default_rng([seed, _FRESH])
    weights = _user_weights(test, resamples, rng)
    seeds = scores.shape[1]
    plain = np.array(
        [[weighted_auc(own, test.labels, np.ones((1, len(test))))[0] for own in row] for row in scores]
    )
    boot = np.array([[weighted_auc(own, test.labels, weights) for own in row] for row in scores])
    drawn = rng.integers(seeds, size=(resamples, seeds))
    # (losses, resamples): the mean over drawn seeds, with users drawn too
    means = np.stack([row[drawn, np.arange(resamples)[:, None]].mean(axis=1) for row in boot])
    means = means[:, np.isfinite(means[0])]  # no AUC where the users drawn have one label only
    comparisons = []
    for k, one in enumerate(chosen):
        differences = means[k] - means[0]
        low, high = np.quantile(differences, [0.025, 0.975])
        tail = min((differences <= 0).mean(), (differences >= 0).mean())
        p_value = float("nan") if one.group == HAND_MADE else min(1.0, 2 * max(float(tail), 1 / resamples))
        difference = float((plain[k] - plain[0]).mean())
        comparisons.append(Comparison(one, plain[k], difference, float(low), float(high), p_value))
    corrected = _holm([one.p_value for one in comparisons])
    comparisons = [
        Comparison(one.tuned, one.test, one.difference, one.low, one.high, p_value)
        for one, p_value in zip(comparisons, corrected, strict=True)
    ]
    return [comparisons[0], *sorted(comparisons[1:], key=lambda one: -one.test.mean())]


def _user_weights(test: Interactions, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each row counts in each resample of the users, (resamples, N)."""
    users, index = np.unique(test.users, return_inverse=True)
    counts = rng.multinomial(len(users), np.full(len(users), 1 / len(users)), size=resamples)
    return counts[:, index].astype(np.float64)


def weighted_auc(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return the AUC under each of R weightings of the rows; a tie counts half.

    Args:
        scores: (N,).
        labels: (N,) of 0 and 1.
        weights: (R, N), at least 0.

    Returns:
        (R,); NaN where one class has no weight.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    _, first, group = np.unique(ordered, return_index=True, return_inverse=True)
    positive = weights[:, order] * labels[order]
    negative = weights[:, order] * (1 - labels[order])
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(negative, axis=1)], axis=1)
    ends = np.append(first[1:], len(ordered))
    rank = (below[:, first] + below[:, ends]) / 2  # (R, groups): negatives below, ties half
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = (positive * rank[:, group]).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return result


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction; NaN stays and does not count."""
    order = sorted((k for k, p in enumerate(p_values) if p == p), key=lambda k: p_values[k])
    corrected = list(p_values)
    largest = 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, p_values[k] * (len(order) - place)))
        corrected[k] = largest
    return corrected
