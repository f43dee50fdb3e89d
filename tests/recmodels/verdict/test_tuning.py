"""Tuning: all losses alike, the planted best found, the same loss trained once, nothing trained again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gploss.language.expression import Expression
from gploss.search.cache import Cache
from gploss.setting import Setting
from gploss.tasks.pointwise import POINTWISE
from recmodels.training.protocol import STANDARD
from recmodels.verdict import tuning as module
from recmodels.verdict.race import FIRST, MORE
from recmodels.verdict.rivals import HAND_MADE, Rival, constant_setting, distinct, rivals_of
from recmodels.verdict.tuning import Tuning, tune
from tests.recmodels.verdict.planned import (
    BCE,
    BLIND,
    CUBE,
    HINGE,
    MSE,
    PlannedTrainer,
    Wishes,
    hand_made,
    peak_at,
    text_of,
)

FOCAL = Expression.parse("mul(square(add(label, neg(pred))), mul(g=2, square(logit)))")


def run(rivals: Sequence[Rival], trainer: PlannedTrainer, **options: Any) -> Tuning:
    return tune(rivals, trainer, [Wishes()], **{"epochs": 8, "seed": 0, "seeds": 2, **options})


def doublings(value: float, default: float) -> float:
    return math.log2(value / default)


@pytest.mark.parametrize("peak", [(0, 0), (1, -2), (-2.5, 4), (5, 0)])
def test_the_planted_best_is_found_by_a_metric_of_which_less_is_better(peak: tuple[float, float]) -> None:
    (tuned,) = run(hand_made(MSE), PlannedTrainer(peak_at(*peak))).tuned
    assert doublings(tuned.settings["learning_rate"], STANDARD.learning_rate) == pytest.approx(peak[0], abs=0.8)
    assert doublings(tuned.settings["weight_decay"], STANDARD.weight_decay) == pytest.approx(peak[1], abs=0.8)
    assert tuned.validation == pytest.approx(0.1 + 0.05 / 8, abs=0.01)  # a distance, not its negative
    assert tuned.on_edge == () and tuned.tried >= FIRST + MORE


def test_every_setting_is_trained_with_every_seed_and_continued_rather_than_begun_anew() -> None:
    trainer = PlannedTrainer(peak_at(0.3, 0.3))
    tuning = run(hand_made(MSE, HINGE), trainer, seeds=3)
    begun = [(text, member) for fit in trainer.fits for text, member, epochs in fit if epochs == 2]
    assert len({member.seed for _, member in begun}) == 3
    for one in tuning.tuned:
        own = [member for text, member in begun if text == text_of(one.loss)]
        assert len({(member.seed, *member.settings.items()) for member in own}) == 3 * one.tried
    # 16 settings for 2 epochs, 8 for 2 more, 4 for 4 more; then 8, 4 and 2
    assert trainer.trained == 2 * 3 * (16 * 2 + 8 * 2 + 4 * 4 + 8 * 2 + 4 * 2 + 2 * 4 + 8 * 0)


def test_values_are_means_over_problems_and_seeds() -> None:
    class Other(Wishes):
        name = "other"

    class ByProblem(PlannedTrainer):
        """One problem wants another rate than the other, and has the last word."""

        def fit(self, losses: Any, members: Any, problem: Any, epochs: int, **named: Any) -> Any:
            other = isinstance(problem, Other)
            self.worth = peak_at(2, 0) if other else peak_at(0, 0)
            report = super().fit(losses, members, problem, epochs, **named)
            report.metrics["distance"][...] *= 3.0 if other else 1.0
            return report

    (tuned,) = tune(hand_made(MSE), ByProblem(peak_at(0, 0)), [Wishes(), Other()], epochs=4, seed=0, seeds=1).tuned
    assert doublings(tuned.settings["learning_rate"], STANDARD.learning_rate) == pytest.approx(2, abs=0.8)
    assert tuned.validation == pytest.approx((0.1125 + 0.02 + 3 * 0.1125) / 2, abs=0.03)


def test_losses_that_cannot_be_trained_are_left_out_with_a_reason() -> None:
    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        if text == text_of(HINGE) or (text == text_of(MSE) and settings["learning_rate"] > STANDARD.learning_rate):
            return math.nan
        return -settings["weight_decay"]

    tuning = run(hand_made(MSE, BLIND, HINGE, BCE), PlannedTrainer(worth))
    assert [one.loss for one in tuning.tuned] == [MSE, BCE]
    assert tuning.tuned[0].settings["learning_rate"] <= STANDARD.learning_rate
    assert tuning.left_out == {
        "hand 1": "no dependence on label",
        "hand 2": "no settings can train it: every training diverged",
    }


def test_a_setting_that_diverges_late_never_wins() -> None:
    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        steep = settings["learning_rate"] > STANDARD.learning_rate * 1.5
        return math.nan if steep and epoch > 6 else settings["learning_rate"]

    (tuned,) = run(hand_made(MSE), PlannedTrainer(worth)).tuned
    assert tuned.settings["learning_rate"] <= STANDARD.learning_rate * 1.5


def test_the_same_loss_under_two_names_is_trained_once() -> None:
    twice = Expression.parse("2 * square(pred - label)")  # the same up to its scale
    rivals = [Rival("found 1", "genetic", twice), Rival("mse", HAND_MADE, MSE), Rival("found 2", "rl", CUBE)]
    trainer = PlannedTrainer(peak_at(0.3, 0.3))
    tuning = run(rivals, trainer)
    assert [(one.name, one.group) for one in tuning.tuned] == [("mse = found 1", HAND_MADE), ("found 2", "rl")]
    assert len({text for fit in trainer.fits for text, _, _ in fit}) == 2
    backwards = run(rivals[::-1], PlannedTrainer(peak_at(0.3, 0.3)))
    assert sorted(map(str, backwards.tuned)) == sorted(map(str, tuning.tuned))  # whatever the order


def test_the_order_of_rivals_and_the_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        return peak_at(len(text) % 3, 0)(text, settings, epoch)

    rivals = hand_made(MSE, HINGE, BCE)
    together = run(rivals, PlannedTrainer(worth)).tuned
    monkeypatch.setattr(module, "_AT_A_TIME", 1)
    assert run(rivals[::-1], PlannedTrainer(worth)).tuned == together[::-1]


def test_constants_are_tuned_with_the_other_settings() -> None:
    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        assert set(settings) == {"learning_rate", "weight_decay"}
        value = float(text.partition("mul(")[2].partition("mul(")[2].split(",")[0]) if "mul(" in text else 1
        return peak_at(0, 0)(text, settings, epoch) - abs(math.log2(value / 8))

    (tuned,) = run([Rival("focal", HAND_MADE, FOCAL)], PlannedTrainer(worth)).tuned
    assert tuned.loss.family == FOCAL.family and set(tuned.settings) == {"learning_rate", "weight_decay"}
    assert tuned.loss.constants["g"] == pytest.approx(8, rel=0.7)
    assert tuned.rival.loss is FOCAL


def test_a_search_and_tuning_that_was_cut_off_are_not_trained_again(tmp_path: Path) -> None:
    def worth(text: str, settings: Mapping[str, float], epoch: int) -> float:
        return math.nan if settings["learning_rate"] > 0.5 and epoch > 3 else peak_at(1, 0)(text, settings, epoch)

    class CutOff(PlannedTrainer):
        def fit(self, *arguments: Any, **named: Any) -> Any:
            if len(self.fits) == 4:
                raise KeyboardInterrupt
            return super().fit(*arguments, **named)

    plain = run(hand_made(MSE, HINGE), PlannedTrainer(worth))
    with Cache(tmp_path / "cache.sqlite") as cache:
        with pytest.raises(KeyboardInterrupt):
            run(hand_made(MSE, HINGE), CutOff(worth), cache=cache)
        resumed = PlannedTrainer(worth)
        assert run(hand_made(MSE, HINGE), resumed, cache=cache) == plain
        again = PlannedTrainer(worth)
        assert run(hand_made(MSE, HINGE), again, cache=cache) == plain
    assert again.fits == [] and resumed.fits


def test_tuning_never_looks_at_the_test_part() -> None:
    problem = Wishes()
    tune(hand_made(MSE), PlannedTrainer(peak_at(0, 0)), [problem], epochs=2, seed=0, seeds=1)
    assert "test" not in problem.looked_at


# Who takes part.


def test_rivals_by_name_and_by_text() -> None:
    found = rivals_of(["bce", " mine: square(label - pred) ", "abs(label - pred)"], POINTWISE)
    assert [one.name for one in found] == ["bce", "mine", "abs(label - pred)"]
    assert found[0].loss == POINTWISE.losses["bce"].expression and found[1].loss == MSE
    assert {one.group for one in found} == {HAND_MADE}
    with pytest.raises(LookupError, match="no loss is named 'bec'; choose from: bce"):
        rivals_of(["bec"], POINTWISE)
    with pytest.raises(ValueError, match="wat"):
        rivals_of(["square(wat)"], POINTWISE)


def test_losses_that_agree_only_at_their_constants_are_two() -> None:
    tuned, plain = Expression.parse("mul(g=1, square(logit - label))"), Expression.parse("square(logit - label)")
    pair = [Rival("tuned", HAND_MADE, tuned), Rival("plain", HAND_MADE, plain)]
    assert len(distinct(pair, POINTWISE, scale_free=True)[0]) == 2
    same = [Rival("tuned", HAND_MADE, tuned), Rival("again", "found", tuned)]
    assert [one.title for one in distinct(same, POINTWISE, scale_free=True)[0]] == ["tuned = again"]


def test_ranges_of_constants() -> None:
    assert constant_setting("t", 0.2) == Setting("t", 0.2, 0.025, 1.6)
    assert constant_setting("b", -1.0).low == -3 and constant_setting("b", -1.0).scale == "linear"
    own = Setting("g", 2, 1, 3, "linear")
    assert Rival("f", HAND_MADE, FOCAL, {"g": own}).constant_settings() == {"g": own}
    assert Rival("f", HAND_MADE, FOCAL).constant_settings() == {"g": Setting("g", 2, 0.25, 16)}
