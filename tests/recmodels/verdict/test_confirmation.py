"""Confirmation: chosen on validation, looked at once on test, directions and draws right, and a whole real one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gploss.language.expression import Expression
from gploss.search.cache import Cache
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Rows
from recmodels.metrics import METRICS
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import STANDARD
from recmodels.training.trainer import State
from recmodels.verdict.confirmation import Verdict, confirm
from recmodels.verdict.rivals import HAND_MADE, Rival
from tests.recmodels.training.cases import PROBLEM, SPLIT, mf_for
from tests.recmodels.verdict.planned import (
    BCE,
    BLIND,
    CUBE,
    HINGE,
    MSE,
    WRONG_WAY,
    PlannedTrainer,
    Wishes,
    hand_made,
    peak_at,
    text_of,
)

ORDER = [text_of(one) for one in (WRONG_WAY, HINGE, CUBE, MSE, BCE)]

RIVALS = [
    *hand_made(MSE, HINGE),
    Rival("found", "genetic", BCE),
    Rival("second", "genetic", CUBE),
    Rival("other", "rl", WRONG_WAY),
]


def by_order(text: str, settings: Mapping[str, float], epoch: int) -> float:
    """The better on validation, the later in `ORDER`; settings hardly matter."""
    return ORDER.index(text) + peak_at(0, 0)(text, settings, epoch) / 100


def run(noise: Mapping[Expression, float], rivals: Sequence[Rival] = RIVALS, **options: Any) -> Verdict:
    trainer = PlannedTrainer(by_order, {text_of(loss): value for loss, value in noise.items()})
    return confirm(rivals, trainer, Wishes(), **{"epochs": 2, "fresh_seeds": 5, "resamples": 300, **options})


def losses(verdict: Verdict) -> list[Expression]:
    return [one.tuned.loss for one in verdict.comparisons]


def figures(verdict: Verdict) -> list[str]:
    return [f"{one.tuned.name} {one.test.tolist()} {one.gain} {one.p_value}" for one in verdict.comparisons]


def test_finalists_are_chosen_on_validation_and_ordered_by_test() -> None:
    verdict = run({BCE: 0.5, WRONG_WAY: 2.0})
    assert losses(verdict) == [MSE, BCE, HINGE, WRONG_WAY]  # CUBE was the second of its group
    assert [math.isnan(one.p_value) for one in verdict.comparisons] == [True, False, True, False]
    assert losses(run({BCE: 0.5, WRONG_WAY: 2.0, CUBE: 3.0}, finalists=2)) == [MSE, BCE, HINGE, WRONG_WAY, CUBE]
    assert (verdict.metric, verdict.higher_is_better, verdict.n_units, verdict.by_row) == (
        "distance",
        False,
        30,
        False,
    )


@pytest.mark.parametrize("metric", ["distance", "nearness"])
def test_a_nearer_loss_gains_and_a_farther_one_loses_whatever_the_direction(metric: str) -> None:
    verdict = run({BCE: 0.5, WRONG_WAY: 2.0}, metric=metric)
    best, better, _, worse = verdict.comparisons
    assert best.gain.mean == best.gain.low == best.gain.high == 0
    assert 0 < better.gain.low < better.gain.mean < better.gain.high and better.p_value < 0.02
    assert worse.gain.low < worse.gain.mean < worse.gain.high < 0 and worse.p_value < 0.02
    sign = 1 if metric == "nearness" else -1
    assert better.gain.mean == pytest.approx(sign * float((better.test - best.test).mean()))
    assert len(better.test) == 5 and verdict.chosen_by == "distance"


def test_values_on_test_are_those_of_the_judge_and_resamples_those_of_copied_groups() -> None:
    """By hand: the mean over shops drawn is, with as many rows in each shop, the mean of the shops' own means."""
    noise = {MSE: 1.0, BCE: 0.8}
    verdict = run(noise, [*hand_made(MSE), Rival("found", "genetic", BCE)], fresh_seeds=3, resamples=2000)
    problem, first = Wishes(), verdict.comparisons[0]
    assert first.test == pytest.approx(math.sqrt(2 / math.pi), rel=0.15)
    rows = problem.rows("test")
    # the error of the gain from seeds and shops, from their own spread
    seeds_alone = verdict.comparisons[1].test - first.test
    assert len(rows) == 240 and verdict.comparisons[1].gain.mean == pytest.approx(-float(seeds_alone.mean()))
    assert verdict.comparisons[1].gain.mean == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.15)


def test_rows_are_drawn_where_there_are_no_groups() -> None:
    trainer = PlannedTrainer(by_order, {text_of(BCE): 0.9})
    verdict = confirm(RIVALS, trainer, Wishes(grouped=False), epochs=1, fresh_seeds=3, resamples=100)
    assert verdict.by_row and verdict.n_units == 240
    assert verdict.comparisons[1].gain.low > 0


def test_equal_losses_differ_by_nothing() -> None:
    found = run({}, [*hand_made(MSE), Rival("found", "genetic", BCE)]).comparisons[1]
    assert found.gain.mean == found.gain.low == found.gain.high == 0
    assert found.p_value == 1 and found.detectable == 0


def test_p_values_are_corrected_over_finalists_only() -> None:
    def p_value(rivals: Sequence[Rival]) -> float:
        verdict = run({BCE: 0.995, WRONG_WAY: 1.1}, rivals, resamples=200)
        (own,) = [one.p_value for one in verdict.comparisons if one.tuned.loss is BCE]
        return own

    alone = p_value([*hand_made(MSE), RIVALS[2]])
    assert 0 < alone < 0.5
    assert p_value([*hand_made(MSE, HINGE), RIVALS[2]]) == alone
    assert p_value([*hand_made(MSE), RIVALS[2], RIVALS[4]]) >= alone


def test_the_test_part_is_looked_at_once_with_fresh_seeds_and_tuned_settings() -> None:
    class Once(Wishes):
        def judge(self, part: Any, device: Any = "cpu") -> Any:
            self.looked_at.append(f"judged {part}")  # type: ignore[arg-type]
            return super().judge(part, device)

    problem, trainer = Once(), PlannedTrainer(by_order)
    verdict = confirm(RIVALS, trainer, problem, epochs=2, fresh_seeds=5, resamples=50)
    assert problem.looked_at.count("judged test") == 1  # type: ignore[arg-type]
    *tuning, final = trainer.fits
    seen = {member.seed for fit in tuning for _, member, _ in fit}
    fresh = {member.seed for _, member, _ in final}
    assert len(seen) == 3 and len(fresh) == 5 and not seen & fresh
    assert len(final) == 5 * len(verdict.comparisons)
    for one in verdict.comparisons:
        own = [member for text, member, _ in final if text == text_of(one.tuned.loss)]
        assert {member.seed for member in own} == fresh
        assert all(member.settings == one.tuned.settings for member in own)


def test_a_verdict_repeats_itself_in_any_order_of_rivals() -> None:
    noise = {BCE: 0.95, WRONG_WAY: 1.05}
    assert figures(run(noise, seed=4)) == figures(run(noise, RIVALS[::-1], seed=4))
    assert figures(run(noise, seed=5)) != figures(run(noise, seed=4))


def test_a_verdict_that_was_cut_off_trains_nothing_twice(tmp_path: Path) -> None:
    def interrupt(states: State, rows: Rows) -> Any:
        raise KeyboardInterrupt

    broken = PlannedTrainer(by_order)
    broken.predict = interrupt  # type: ignore[method-assign]

    def again(trainer: PlannedTrainer, cache: Cache, **options: Any) -> Verdict:
        named = {"epochs": 2, "fresh_seeds": 3, "resamples": 40, **options}
        return confirm(RIVALS, trainer, Wishes(), cache=cache, **named)

    with Cache(tmp_path / "cache.sqlite") as cache:
        with pytest.raises(KeyboardInterrupt):
            again(broken, cache)
        first = PlannedTrainer(by_order, {text_of(BCE): 0.9})
        whole = again(first, cache)
        assert [len(fit) for fit in first.fits] == [3 * 4]  # the test models alone
        second = PlannedTrainer(by_order)
        assert figures(again(second, cache)) == figures(whole) and second.fits == []
        more = PlannedTrainer(by_order)
        again(more, cache, resamples=50)  # other resamples, or another metric, are something else
        again(more, cache, metric="nearness")
        assert [len(fit) for fit in more.fits] == [12, 12]


def test_a_slow_metric_is_said_once_and_a_fast_one_is_taken() -> None:
    lines: list[str] = []
    slow = run({BCE: 0.9}, say=lines.append)
    assert sum("distance does not say how it is resampled" in line for line in lines) == 1

    class Fast(Wishes):
        def resampler(self, part: Any, metric: str) -> Any:
            means = np.zeros((30, 240))
            means[self.rows(part).features["shop"], np.arange(240)] = 1 / 240

            def mean_distance(scores: torch.Tensor, counts: npt.NDArray[np.uint8]) -> Any:
                distance = np.abs(scores.numpy().astype(np.float64) - self.rows(part).inputs["wanted"])
                return (distance @ means.T) @ counts.astype(np.float64)

            return mean_distance

    lines.clear()
    trainer = PlannedTrainer(by_order, {text_of(BCE): 0.9})
    fast = confirm(RIVALS, trainer, Fast(), epochs=2, fresh_seeds=5, resamples=300, say=lines.append)
    assert not any("resampled" in line for line in lines)
    for one, other in zip(fast.comparisons, slow.comparisons, strict=True):
        assert dataclasses.astuple(one.gain) == pytest.approx(dataclasses.astuple(other.gain), abs=1e-12)


def test_a_model_that_diverges_from_fresh_seeds_counts_as_one_that_knows_nothing() -> None:
    class Diverging(PlannedTrainer):
        def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
            scores = super().predict(states, rows)
            scores[-1] = np.nan
            return scores

    rivals = [*hand_made(MSE), RIVALS[2]]
    verdict = confirm(rivals, Diverging(by_order), PROBLEM_OF_WISHES, epochs=2, fresh_seeds=2, resamples=50)
    mse, found = verdict.comparisons
    assert (mse.diverged, found.diverged) == (0, 1)
    nothing = PROBLEM_OF_WISHES.judge("test")(torch.zeros(1, 240))["distance"]
    assert found.test[-1] == float(nothing[0])
    assert all(math.isfinite(value) for value in (found.gain.low, found.gain.high))


PROBLEM_OF_WISHES = Wishes()


def test_few_users_still_give_an_interval() -> None:
    """With three users some draws hold one label only; they have no AUC and are left aside."""
    test = Interactions(np.array([0, 1, 2, 2]), np.arange(4), np.array([1.0, 0.0, 1.0, 0.0], np.float32), 40, 60)
    problem = PointwiseProblem(Split("tiny", SPLIT.train, SPLIT.validation, test))
    trainer = FusedTrainer(mf_for(STANDARD), STANDARD, device="cpu")
    for one in confirm(
        [*hand_made(MSE), RIVALS[2]], trainer, problem, epochs=1, tuning_seeds=1, resamples=200
    ).comparisons:
        assert all(math.isfinite(value) for value in (one.gain.mean, one.gain.low, one.gain.high))


def test_what_a_confirmation_needs() -> None:
    with pytest.raises(ValueError, match="no hand-made loss can be trained"):
        run({}, RIVALS[2:])
    with pytest.raises(ValueError, match=r"no hand-made .*\(bad: no dependence on label\): name one that can"):
        run({}, [Rival("bad", HAND_MADE, BLIND)])
    with pytest.raises(LookupError, match="wishes has no metric 'auc'; choose from: distance, nearness"):
        run({}, metric="auc")


def test_what_is_done_is_said() -> None:
    lines: list[str] = []
    run({}, epochs=8, say=lines.append)
    assert lines[0] == (
        "tuning 5 losses: 16 settings each with 3 trainings, half of them dropped after 2 and 4 of 8 epochs, then "
        "more around the best"
    )
    assert lines[-2] == "testing 4 losses with 5 fresh seeds each"


# The whole, with real training.


@pytest.mark.parametrize("metric", ["auc", "logloss", "ndcg@10"])
def test_a_real_confirmation(metric: str) -> None:
    protocol = dataclasses.replace(STANDARD, batch_size=256, patience=2)
    trainer = FusedTrainer(mf_for(protocol), protocol, device="cpu")
    rivals = [
        Rival("mse", HAND_MADE, MSE),
        Rival("the same", "genetic", Expression.parse("square(pred - label)")),
        Rival("bce", "genetic", BCE),
        Rival("wrong way", "rl", WRONG_WAY),
    ]
    problem = PointwiseProblem(SPLIT, ("auc", metric) if metric != "auc" else None)
    verdict = confirm(
        rivals, trainer, problem, epochs=4, metric=metric, tuning_seeds=2, fresh_seeds=4, resamples=200
    )
    by_name = {one.tuned.name: one for one in verdict.comparisons}
    assert next(iter(by_name)) == "mse = the same" and set(by_name) == {"mse = the same", "bce", "wrong way"}
    wrong, bce = by_name["wrong way"], by_name["bce"]
    assert wrong.gain.high < 0 and wrong.p_value < 0.05
    assert abs(bce.gain.mean) < abs(wrong.gain.mean)
    assert verdict.higher_is_better == METRICS[metric].higher_is_better
    assert verdict.n_units == len(np.unique(SPLIT.test.users)) and PROBLEM.metric == "auc"
