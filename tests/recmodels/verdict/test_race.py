"""Tuning against planted optima: found wherever they lie, with few epochs spent on settings that lead nowhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import qmc

from gploss.setting import Setting
from recmodels.verdict.race import FIRST, MORE, Best, Trial, race, rungs
from recmodels.verdict.ranges import GROWTHS, Ranges, even_points, place_of, value_at

RATE = Setting("rate", 0.1, 0.1 / 8, 0.1 * 8)
DECAY = Setting("decay", 1e-4, 1e-4 / 16, 1e-4 * 16)
BOTH = {"rate": RATE, "decay": DECAY}
EPOCHS = 12

Value = Callable[[int, float, float, int], float]


class Planned:
    """Measures by a formula of (loss, doublings of rate, doublings of decay, epochs)."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.calls: list[tuple[list[Trial], int]] = []

    def __call__(self, trials: Sequence[Trial], epochs: int) -> list[float]:
        self.calls.append((list(trials), epochs))
        return [
            self.value(
                trial.loss, place_of(RATE, trial.settings["rate"]), place_of(DECAY, trial.settings["decay"]), epochs
            )
            for trial in trials
        ]

    def run(self, n_losses: int = 1) -> list[Best]:
        return race([BOTH] * n_losses, self, EPOCHS)


def peak_at(rate: float, decay: float) -> Value:
    """Settings far away learn slowly as well."""

    def value(loss: int, own_rate: float, own_decay: float, epochs: int) -> float:
        away = math.hypot(own_rate - rate, own_decay - decay)
        return 0.9 - 0.01 * away - 0.05 * (1 + away) / epochs

    return value


@pytest.mark.parametrize("peak", [(0, 0), (1.5, -2.5), (-2.9, 3.9), (3, 4), (4.5, 0), (-6, -9), (0.3, 9)])
def test_the_planted_best_is_found_inside_and_outside_of_the_first_ranges(peak: tuple[float, float]) -> None:
    planned = Planned(peak_at(*peak))
    (best,) = planned.run()
    away = math.hypot(
        place_of(RATE, best.settings["rate"]) - peak[0], place_of(DECAY, best.settings["decay"]) - peak[1]
    )
    assert away < 0.8 and best.on_edge == ()
    begun = {tuple(trial.settings.values()) for trials, epochs in planned.calls if epochs == 3 for trial in trials}
    assert best.tried == len(begun)


def test_a_best_inside_costs_one_round_around_it() -> None:
    planned = Planned(peak_at(0.4, -0.3))
    (best,) = planned.run()
    assert best.tried == FIRST + MORE
    assert [(len(trials), epochs) for trials, epochs in planned.calls] == [
        (16, 3), (8, 6), (4, 12),
        (8, 3), (4, 6), (2, 12),
    ]  # fmt: skip
    assert rungs(EPOCHS) == [3, 6, 12]


def test_survivors_are_the_better_half_and_the_default_begins() -> None:
    planned = Planned(peak_at(0.4, -0.3))
    planned.run()
    (first, _), (second, _), (third, _) = planned.calls[:3]
    assert first[0].settings == {"rate": RATE.default, "decay": DECAY.default}

    def worth(trials: Sequence[Trial], epochs: int) -> list[float]:
        return sorted(Planned(planned.value)(trials, epochs), reverse=True)

    assert worth(second, 3) == worth(first, 3)[:8]
    assert worth(third, 6) == worth(second, 6)[:4]


def test_the_range_grows_by_eight_doublings_and_no_more() -> None:
    def uphill(loss: int, rate: float, decay: float, epochs: int) -> float:
        return rate - abs(decay) / 100

    planned = Planned(uphill)
    (best,) = planned.run()
    assert best.on_edge == ("rate",)
    assert 3 + GROWTHS - 1 < place_of(RATE, best.settings["rate"]) <= 3 + GROWTHS
    highest = max(place_of(RATE, trial.settings["rate"]) for trials, _ in planned.calls for trial in trials)
    assert highest <= 3 + GROWTHS + 1e-9


def test_every_loss_begins_with_the_same_settings_and_ends_by_itself() -> None:
    def value(loss: int, rate: float, decay: float, epochs: int) -> float:
        return peak_at(*((0, 0), (6, 0), (0, 0))[loss])(loss, rate, decay, epochs)

    planned = Planned(value)
    first, far, third = planned.run(3)
    trials = planned.calls[0][0]
    own = [[trial.settings for trial in trials if trial.loss == loss] for loss in range(3)]
    assert own[0] == own[1] == own[2]
    assert first == third and far.tried > first.tried
    assert Planned(lambda loss, *rest: value(1, *rest)).run() == [far]  # what others do changes nothing


def test_settings_that_diverge_never_win() -> None:
    """The best value is on the far side of a cliff, and a part of the settings falls down it late."""

    def cliff(loss: int, rate: float, decay: float, epochs: int) -> float:
        return -math.inf if rate > 0.5 or (decay > 1 and epochs > 3) else rate

    (best,) = Planned(cliff).run()
    assert best.value > -math.inf
    assert place_of(RATE, best.settings["rate"]) <= 0.5 and place_of(DECAY, best.settings["decay"]) <= 1


def test_where_all_that_are_left_diverge_those_that_were_dropped_come_back() -> None:
    def late(loss: int, rate: float, decay: float, epochs: int) -> float:
        lost = loss == 1 and rate > -1 and epochs > 6
        return -math.inf if lost else rate - abs(decay) / 100

    fine, late_one = Planned(late).run(2)
    assert late_one.value > -math.inf and place_of(RATE, late_one.settings["rate"]) <= -1
    assert fine == Planned(late).run()[0]


def test_a_loss_that_always_diverges_is_given_up_at_once() -> None:
    def value(loss: int, rate: float, decay: float, epochs: int) -> float:
        return -math.inf if loss == 0 else peak_at(0, 0)(loss, rate, decay, epochs)

    planned = Planned(value)
    lost, fine = planned.run(2)
    assert lost.value == -math.inf and lost.tried == FIRST
    assert fine == Planned(peak_at(0, 0)).run()[0]
    assert all(trial.loss == 1 for trials, _ in planned.calls[1:] for trial in trials)


def test_equal_values_keep_the_defaults() -> None:
    (best,) = Planned(lambda *_: 0.5).run()
    assert best.settings == {"rate": RATE.default, "decay": DECAY.default}


@pytest.mark.parametrize("dimensions", [1, 2, 5, 8])
def test_points_are_those_of_scipy(dimensions: int) -> None:
    expected = qmc.Halton(dimensions, scramble=False).random(101)[1:]
    assert even_points(0, 100, dimensions) == pytest.approx(expected)
    assert (even_points(40, 7, dimensions) == even_points(0, 100, dimensions)[40:47]).all()


def test_places_and_ranges() -> None:
    assert value_at(RATE, place_of(RATE, 0.37)) == pytest.approx(0.37)
    ranges = Ranges(BOTH)
    best = np.array([2.5, 0.0])
    assert ranges.on_edge(best) == ("rate",)
    low, high = (getattr(ranges.around(best, 16, 200), end)(axis=0) for end in ("min", "max"))
    assert low == pytest.approx([1.5, -1], abs=0.05) and high == pytest.approx([3, 1], abs=0.05)
    assert ranges.widen(best) and not ranges.widen(best)
    assert ranges.on_edge(best) == ()
    assert ranges.around(best, 16, 200).max(axis=0) == pytest.approx([4, 1], abs=0.05)


def test_whole_numbers_differences_and_a_default_of_zero() -> None:
    batch = Setting("batch", 512, 128, 2048, "whole", least=1)
    margin = Setting("margin", 0.5, 0.0, 4.0, "linear")
    none = Setting("decay", 0.0, 1e-5, 1e-3)
    ranges = Ranges({"batch": batch, "margin": margin, "decay": none})
    values = [ranges.values(place) for place in ranges.spread(40)]
    assert values[0] == {"batch": 512, "margin": 0.5, "decay": pytest.approx(1e-4)}
    assert all(own["batch"] == int(own["batch"]) and 128 <= own["batch"] <= 2048 for own in values)
    assert min(own["margin"] for own in values) < 0.2 and max(own["margin"] for own in values) > 3.8
    assert sum(own["margin"] < 2 for own in values) == pytest.approx(20, abs=3)
    steep = Setting("steep", 2.0, 1.0, 5.0, "linear")
    assert [place_of(steep, value) for value in (1, 2, 5)] == [-2, 0, 6]  # eighths of the range
    assert value_at(steep, 3) == 3.5
    lowest = np.array([0.0, place_of(margin, 0.0), 0.0])
    assert not ranges.widen(lowest)  # a margin below 0 makes no sense, so there is nothing to widen
    assert ranges.on_edge(lowest) == ("margin",)


def test_a_range_does_not_grow_beyond_what_makes_sense() -> None:
    share = Setting("share", 0.1, 0.01, 0.4, most=0.5)
    ranges = Ranges({"share": share})
    highest = np.array([place_of(share, 0.4)])
    assert ranges.widen(highest)
    assert ranges.values(np.array([place_of(share, 0.8)])) == {"share": 0.5}
    assert not ranges.widen(np.array([place_of(share, 0.8)]))
