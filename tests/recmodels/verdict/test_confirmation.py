"""Confirmation: the statistics against oracles, tuning against planted optima, and a whole one on real training."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from recmodels.data.interactions import Interactions, Split
from recmodels.data.rows import Rows, Schema
from recmodels.models.mf import MF
from recmodels.training.problem import Problem
from recmodels.training.protocol import STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import EpochsDone, Keep, Member, Outcome, State, Trainer, TrainReport
from recmodels.verdict import confirmation
from recmodels.verdict.confirmation import HAND_MADE, Candidate, Comparison, confirm, tune, weighted_auc
from tests.recmodels.training.trainer_contract import PROBLEM, SPLIT

BCE = Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))")
MSE = Expression.parse("square(label - pred)")
CUBE = Expression.parse("abs(label - pred) * square(label - pred)")
HINGE = Expression.parse("relu(1 - (2 * label - 1) * logit)")
WRONG_WAY = Expression.parse("neg(square(label - pred))")
NO_LABEL = Expression.parse("square(pred)")


# Statistics.


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40),
    resamples=st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_weighted_auc_equals_scikit_learn(rows: list[tuple[int, bool, int]], resamples: int) -> None:
    scores = np.array([row[0] for row in rows], np.float32) - 2  # many ties
    labels = np.array([row[1] for row in rows], np.float32)
    weights = np.stack([np.roll([row[2] for row in rows], shift) for shift in range(resamples)]).astype(float)
    found = weighted_auc(scores, labels, weights)
    for value, weight in zip(found, weights, strict=True):
        if weight[labels == 1].sum() and weight[labels == 0].sum():
            expected = roc_auc_score(labels, scores, sample_weight=weight)
            assert value == pytest.approx(expected, abs=1e-12)
        else:
            assert math.isnan(value)


def test_weighted_auc_of_distinct_scores() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=500).astype(np.float32), (rng.random(500) < 0.4).astype(np.float32)
    weights = rng.integers(0, 4, size=(20, 500)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=weight) for weight in weights]
    np.testing.assert_allclose(weighted_auc(scores, labels, weights), expected, atol=1e-12)


def test_users_are_drawn_with_all_of_their_rows() -> None:
    test = SPLIT.test
    weights = confirmation._user_weights(test, 200, np.random.default_rng(0))
    users = np.unique(test.users)
    assert weights.shape == (200, len(test))
    per_user = np.stack([weights[:, test.users == user] for user in users[:1]])
    assert (per_user == per_user[..., :1]).all()
    first_rows = [int(np.flatnonzero(test.users == user)[0]) for user in users]
    assert (weights[:, first_rows].sum(axis=1) == len(users)).all()
    assert weights.mean() == pytest.approx(1.0, rel=0.05)


def plain_holm(values: Sequence[float]) -> list[float]:
    """Holm (1979): the i-th smallest of m is multiplied with m - i + 1, never below the one before, at most 1."""
    present = [value for value in values if not math.isnan(value)]
    result = []
    for value in values:
        if math.isnan(value):
            result.append(value)
            continue
        smaller = sorted(other for other in present if other <= value)
        result.append(min(1.0, max(other * (len(present) - i) for i, other in enumerate(smaller))))
    return result


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan), st.sampled_from([0.01, 0.02])), max_size=8))
def test_holm(values: list[float]) -> None:
    assert confirmation._holm(values) == pytest.approx(plain_holm(values), nan_ok=True)


def test_holm_by_hand() -> None:
    assert confirmation._holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx(
        [0.06, math.nan, 0.03, 0.06], nan_ok=True
    )


# A trainer whose results are planned.


class PlannedTrainer(Trainer):
    """Says how good each loss is: its AUC by (loss text, rate, decay), scores with a planned separation.

    Args:
        value: validation AUC of (loss, rate, decay).
        separation: distance between positive and negative scores of a loss.
    """

    name: ClassVar[str] = "planned"

    def __init__(
        self,
        value: Callable[[str, float, float], float],
        separation: Callable[[str], float] = lambda text: 1.0,
    ) -> None:
        self.protocol = STANDARD
        self.value = value
        self.separation = separation
        self.fits: list[list[tuple[str, Member]]] = []
        self.predicted: list[Rows] = []

    def fit(
        self,
        losses: Program,
        members: Sequence[Member],
        problem: Problem,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: EpochsDone | None = None,
    ) -> TrainReport:
        texts = [str(losses.expressions[member.loss]) for member in members]
        self.fits.append(list(zip(texts, members, strict=True)))
        values = np.array([self.value(text, *m.settings.values()) for text, m in self.fits[-1]], np.float64)
        outcomes = [Outcome.DIVERGED if math.isnan(value) else Outcome.TRAINED for value in values]
        reasons = ["non-finite" if math.isnan(value) else None for value in values]
        separations = torch.tensor([[self.separation(text), float(m.seed)] for text, m in self.fits[-1]]).double()
        epochs_done = np.full(len(members), epochs)
        states = State({"plan": separations}, {}, epochs_done) if keep != "none" else None
        table = np.repeat(values[:, None], epochs, axis=1)
        table[:, 0] -= 0.1  # the best epoch is not the first
        return TrainReport({"auc": table}, outcomes, reasons, epochs_done, np.ones(len(members)), states)

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        self.predicted.append(rows)
        scores = []
        for separation, seed in states.weights["plan"].tolist():
            noise = np.random.default_rng(int(seed)).normal(size=len(rows))  # all losses meet the same luck
            scores.append(separation * rows.inputs["label"] + noise)
        return np.array(scores, np.float32)

    def describe(self, schema: Schema) -> dict[str, JSON]:
        return {}


def text_of(expression: Expression) -> str:
    return str(expression.canonical())


def hand_made(*expressions: Expression) -> list[Candidate]:
    return [Candidate(f"hand {k}", HAND_MADE, expression) for k, expression in enumerate(expressions)]


def optimum_at(rate_steps: float, decay_steps: float) -> Callable[[str, float, float], float]:
    def value(text: str, rate: float, decay: float) -> float:
        away = abs(math.log2(rate / STANDARD.learning_rate) - rate_steps)
        away += abs(math.log2(decay / STANDARD.weight_decay) - decay_steps)
        return 0.9 - 0.01 * away

    return value


# Tuning.


@pytest.mark.parametrize("steps", [(0, 0), (1, -1), (2, 0), (-3, 3), (4, 4), (1, -4)])
def test_the_grid_grows_until_the_best_setting_is_inside(steps: tuple[int, int]) -> None:
    trainer = PlannedTrainer(optimum_at(*steps))
    (tuned,) = tune(hand_made(MSE), trainer, [SPLIT], epochs=3, seed=0, seeds=2)
    assert tuned.setting.learning_rate == pytest.approx(STANDARD.learning_rate * 2.0 ** steps[0])
    assert tuned.setting.weight_decay == pytest.approx(STANDARD.weight_decay * 2.0 ** steps[1])
    assert tuned.validation == pytest.approx(0.9)
    settings_tried = {tuple(member.settings.values()) for fit in trainer.fits for _, member in fit}
    assert tuned.settings_tried == len(settings_tried)
    if steps == (0, 0):
        assert len(trainer.fits) == 1 and tuned.settings_tried == 9


def test_settings_are_compared_by_their_mean_over_splits() -> None:
    other = Split("other", SPLIT.train, SPLIT.train, SPLIT.test)

    class ByPart(PlannedTrainer):
        """One validation part wants another setting than the other, and has the last word."""

        def fit(self, *arguments: Any, **named: Any) -> TrainReport:
            is_other = len(arguments[2].rows("validation")) == len(other.validation)
            self.value = optimum_at(1, 0) if is_other else optimum_at(0, 0)
            report = super().fit(*arguments, **named)
            report.metrics["auc"] *= 1.05 if is_other else 1.0
            return report

    (tuned,) = tune(hand_made(MSE), ByPart(optimum_at(0, 0)), [SPLIT, other], epochs=3, seed=0, seeds=2)
    assert tuned.setting.learning_rate == pytest.approx(STANDARD.learning_rate * 2)
    assert tuned.validation == pytest.approx((0.9 * 1.05 + 0.9 - 0.01) / 2)


def test_the_grid_stops_growing() -> None:
    trainer = PlannedTrainer(optimum_at(50, 0))
    (tuned,) = tune(hand_made(MSE), trainer, [SPLIT], epochs=3, seed=0, seeds=1)
    assert len(trainer.fits) == 4
    assert tuned.setting.learning_rate == pytest.approx(STANDARD.learning_rate * 2.0**4)


def test_every_setting_is_trained_once_with_every_seed_and_growth_is_each_losss_own() -> None:
    def value(text: str, rate: float, decay: float) -> float:
        return optimum_at(0 if text == text_of(MSE) else 2, 0)(text, rate, decay)

    trainer = PlannedTrainer(value)
    tuned = tune(hand_made(MSE, HINGE), trainer, [SPLIT], epochs=3, seed=0, seeds=3)
    trained = [(text, member.seed, *member.settings.values()) for fit in trainer.fits for text, member in fit]
    assert len(trained) == len(set(trained))
    seeds = {seed for _, seed, _, _ in trained}
    assert len(seeds) == 3
    for one in tuned:
        own = [entry for entry in trained if entry[0] == text_of(one.expression)]
        assert len(own) == 3 * one.settings_tried
    assert tuned[0].settings_tried == 9 < tuned[1].settings_tried


def test_losses_that_cannot_be_trained_are_left_out() -> None:
    def value(text: str, rate: float, decay: float) -> float:
        if text == text_of(HINGE):
            return math.nan
        return math.nan if text == text_of(MSE) and rate > STANDARD.learning_rate else 0.7

    candidates = hand_made(MSE, NO_LABEL, HINGE, BCE)
    tuned = tune(candidates, PlannedTrainer(value), [SPLIT], epochs=2, seed=0, seeds=2)
    assert [one.expression for one in tuned] == [MSE, BCE]
    assert tuned[0].setting.learning_rate <= STANDARD.learning_rate


def test_tuning_never_sees_the_test_part() -> None:
    split = Split(SPLIT.name, SPLIT.train, SPLIT.validation, SPLIT.test)
    object.__setattr__(split, "test", None)
    assert tune(hand_made(MSE), PlannedTrainer(optimum_at(0, 0)), [split], epochs=1, seed=0, seeds=1)


# The comparison.


def validation_order(text: str, rate: float, decay: float) -> float:
    order = [text_of(WRONG_WAY), text_of(HINGE), text_of(CUBE), text_of(MSE), text_of(BCE)]
    return 0.5 + 0.1 * order.index(text) + optimum_at(0, 0)(text, rate, decay) / 100


def run_planned(separation: dict[Expression, float], candidates: Sequence[Candidate], **options: Any) -> Any:
    table = {text_of(expression): value for expression, value in separation.items()}
    trainer = PlannedTrainer(validation_order, lambda text: table.get(text, 1.0))
    comparisons = confirm(candidates, trainer, SPLIT, epochs=3, fresh_seeds=5, resamples=400, **options)
    return comparisons, trainer


CANDIDATES = [
    *hand_made(MSE, HINGE),
    Candidate("found", "genetic", BCE),
    Candidate("second", "genetic", CUBE),
    Candidate("other", "rl", WRONG_WAY),
]


def test_finalists_and_order() -> None:
    comparisons, _ = run_planned({BCE: 2.0, WRONG_WAY: -1.0}, CANDIDATES)
    assert [one.tuned.expression for one in comparisons] == [MSE, BCE, HINGE, WRONG_WAY]
    assert [one.tuned.group for one in comparisons] == [HAND_MADE, "genetic", HAND_MADE, "rl"]
    assert [math.isnan(one.p_value) for one in comparisons] == [True, False, True, False]


def test_a_better_loss_lies_above_and_a_worse_one_below() -> None:
    (best, better, _, worse), _ = run_planned({BCE: 2.0, WRONG_WAY: 0.2}, CANDIDATES)
    assert best.difference == best.low == best.high == 0
    assert 0 < better.low < better.difference < better.high and better.p_value < 0.02
    assert worse.low < worse.difference < worse.high < 0 and worse.p_value < 0.02
    assert len(better.test) == 5
    assert better.difference == pytest.approx(float((better.test - best.test).mean()))


def test_equal_losses_differ_by_nothing() -> None:
    (_, found, *_), _ = run_planned({}, [*hand_made(MSE), Candidate("found", "genetic", BCE)])
    assert found.difference == found.low == found.high == 0
    assert found.p_value == 1


def test_p_values_are_corrected_over_finalists_only() -> None:
    def p_value(candidates: Sequence[Candidate]) -> float:
        found, _ = run_planned({BCE: 1.02, WRONG_WAY: 0.9}, candidates)
        (own,) = [one.p_value for one in found if one.tuned.expression is BCE]
        return float(own)

    alone = p_value([*hand_made(MSE), CANDIDATES[2]])
    with_hand_made = p_value([*hand_made(MSE, HINGE), CANDIDATES[2]])
    assert 0 < alone < 0.5
    assert with_hand_made == alone
    assert p_value([*hand_made(MSE), CANDIDATES[2], CANDIDATES[4]]) >= alone


def test_the_test_part_is_used_once_with_fresh_seeds_and_tuned_settings() -> None:
    comparisons, trainer = run_planned({}, CANDIDATES, tuning_seeds=3)
    assert [rows.content_hash for rows in trainer.predicted] == [PROBLEM.rows("test").content_hash]
    *tuning, final = trainer.fits
    seen = {member.seed for fit in tuning for _, member in fit}
    fresh = {member.seed for _, member in final}
    assert len(seen) == 3 and len(fresh) == 5 and not seen & fresh
    assert len(final) == 5 * len(comparisons)
    for one in comparisons:
        own = [member for text, member in final if text == text_of(one.tuned.expression)]
        assert {member.seed for member in own} == fresh
        assert {tuple(m.settings.values()) for m in own} == {
            (one.tuned.setting.learning_rate, one.tuned.setting.weight_decay)
        }


def test_a_confirmation_repeats_itself() -> None:
    def values(comparisons: Sequence[Comparison]) -> list[tuple[float, float, float]]:
        return [(one.difference, one.low, one.high) for one in comparisons]

    first, second = (run_planned({BCE: 1.1}, CANDIDATES, seed=4)[0] for _ in range(2))
    assert values(first) == values(second)
    assert values(run_planned({BCE: 1.1}, CANDIDATES, seed=5)[0]) != values(first)


def test_few_users_still_give_an_interval() -> None:
    """With three users some draws hold one label only; they have no AUC and are left aside."""
    test = Interactions(np.array([0, 1, 2, 2]), np.arange(4), np.array([1.0, 0.0, 1.0, 0.0], np.float32), 40, 60)
    split = Split("tiny", SPLIT.train, SPLIT.validation, test)
    trainer = PlannedTrainer(validation_order)
    for one in confirm([*hand_made(MSE), CANDIDATES[2]], trainer, split, epochs=2, resamples=200):
        assert all(math.isfinite(value) for value in (one.difference, one.low, one.high))


def test_what_a_confirmation_needs() -> None:
    trainer = PlannedTrainer(validation_order)
    with pytest.raises(ValueError, match="no hand-made loss"):
        confirm(CANDIDATES[2:], trainer, SPLIT, epochs=1)
    with pytest.raises(ValueError, match="no hand-made loss"):
        confirm([Candidate("bad", HAND_MADE, NO_LABEL)], trainer, SPLIT, epochs=1)


def test_reports_say_what_is_done() -> None:
    lines: list[str] = []
    run_planned({}, CANDIDATES, report=lines.append)
    assert lines[0] == "tuning 5 losses: 45 settings with 3 runs each"
    assert lines[-1] == "testing 4 losses with 5 fresh seeds each"


# The whole, with real training.


def test_a_real_confirmation() -> None:
    model = functools.partial(MF, embedding_size=4)
    protocol = dataclasses.replace(STANDARD, batch_size=256, patience=2)
    trainer = StackedTrainer(model, protocol, device="cpu")
    candidates = [
        Candidate("mse", HAND_MADE, MSE),
        Candidate("the same", "genetic", Expression.parse("square(pred - label)")),
        Candidate("wrong way", "rl", WRONG_WAY),
    ]
    found = confirm(candidates, trainer, SPLIT, epochs=6, tuning_seeds=2, fresh_seeds=4, resamples=300)
    by_name = {one.tuned.name: one for one in found}
    same, wrong = by_name["the same"], by_name["wrong way"]
    assert same.difference == same.low == same.high == 0 and same.p_value == 1
    assert wrong.high < 0 and wrong.p_value < 0.05
    assert float(by_name["mse"].test.mean()) > 0.6 > float(wrong.test.mean())
    assert same.tuned.setting == by_name["mse"].tuned.setting


def test_a_finalist_that_diverges_from_fresh_seeds_still_gets_a_figure() -> None:
    """Its scores are NaN, all alike, and so worth 0.5."""

    class Diverging(PlannedTrainer):
        def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
            scores = super().predict(states, rows)
            scores[-1] = np.nan
            return scores

    found = confirm(
        [*hand_made(MSE), CANDIDATES[2]], Diverging(validation_order), SPLIT, epochs=2, fresh_seeds=2, resamples=50
    )
    assert found[1].test[-1] == 0.5
    assert math.isfinite(found[1].low) and math.isfinite(found[1].high)
