"""The bootstrap: intervals that cover, draws that are paired, directions, powers and corrections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.metrics.resampling import resampled_auc
from recmodels.verdict import bootstrap
from recmodels.verdict.bootstrap import Gain, draw_seeds, draw_units, gains, holm, parts

Floats = npt.NDArray[np.float64]


def test_as_many_units_are_drawn_as_there_are() -> None:
    counts = draw_units(50, range(400), seed=3)
    assert counts.shape == (50, 400) and counts.dtype == np.uint8
    assert (counts.sum(axis=0, dtype=int) == 50).all()
    # binomial: mean 1, variance 1 - 1/50, and no unit is favoured
    assert counts.var() == pytest.approx(0.98, rel=0.05)
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.25)


def test_a_resample_is_the_same_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_units(20, range(30), seed=1)
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_A_TIME", 20 * 8)
    pieces = list(parts(20, 30))
    assert [len(piece) for piece in pieces] == [8, 8, 8, 6]
    assert (np.concatenate([draw_units(20, piece, seed=1) for piece in pieces], axis=1) == whole).all()
    assert (draw_units(20, range(30), seed=2) != whole).any()


def test_equal_losses_differ_by_nothing() -> None:
    rng = np.random.default_rng(0)
    one, resampled = rng.random(4), rng.random((4, 50))
    found = gains(
        np.stack([one, one]), np.stack([resampled, resampled]), draw_seeds(4, 50, 0), higher_is_better=True
    )
    for gain in found:
        assert gain == Gain(0.0, 0.0, 0.0, 1.0, 0.0)
        assert gain.detectable(3) == 0


def shifted(shift: float) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    plain, resampled = rng.normal(size=(1, 6)), rng.normal(size=(1, 6, 300))
    noise = rng.normal(scale=0.05, size=(6, 300))
    return np.concatenate([plain, plain + shift]), np.concatenate([resampled, resampled + shift + noise])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_gain_is_positive_where_the_loss_is_better(higher_is_better: bool) -> None:
    better = 0.2 if higher_is_better else -0.2
    _, gain = gains(*shifted(better), draw_seeds(6, 300, 0), higher_is_better=higher_is_better)
    assert gain.mean == pytest.approx(0.2) and 0.1 < gain.low < 0.2 < gain.high < 0.3
    assert gain.p_value == pytest.approx(2 / 300)
    _, worse = gains(*shifted(-better), draw_seeds(6, 300, 0), higher_is_better=higher_is_better)
    assert worse.mean == pytest.approx(-0.2) and worse.low < worse.high < -0.1
    assert worse.p_value == pytest.approx(2 / 300)


def test_an_interval_leaves_out_a_fortieth_at_each_end() -> None:
    drawn = np.arange(401.0)  # one seed, so that a resample is what it is
    resampled = np.stack([np.zeros((1, 401)), drawn[None, :] - 5])
    _, gain = gains(np.zeros((2, 1)), resampled, draw_seeds(1, 401, 0), higher_is_better=True)
    assert (gain.low, gain.high) == (10 - 5, 390 - 5)
    assert gain.p_value == pytest.approx(2 * 6 / 401)  # six of them are not above 0


def test_seeds_are_drawn_too() -> None:
    """Where the units say nothing, the interval is that of the seeds alone: error of a mean of S differences."""
    differences = np.array([0.0, 1.0, 2.0, 3.0])
    plain = np.stack([np.zeros(4), differences])
    resampled = np.repeat(plain[:, :, None], 4000, axis=2)
    _, gain = gains(plain, resampled, draw_seeds(4, 4000, 0), higher_is_better=True)
    assert gain.error == pytest.approx(differences.std() / 2, rel=0.05)
    assert (gain.low, gain.high) == pytest.approx((0.5, 2.5), abs=0.25)


def test_a_resample_without_the_metric_is_left_out() -> None:
    plain, resampled = shifted(0.2)
    broken = resampled.copy()
    broken[:, :, ::3] = np.nan
    seeds = draw_seeds(6, 300, 0)
    kept = np.arange(300) % 3 > 0
    assert gains(plain, broken, seeds, higher_is_better=True) == gains(
        plain, resampled[:, :, kept], seeds[kept], higher_is_better=True
    )
    with pytest.raises(ValueError, match="not defined in any resample"):
        gains(plain, np.full_like(resampled, np.nan), seeds, higher_is_better=True)


def test_intervals_cover_the_truth_and_powers_are_kept() -> None:
    """150 test parts of 60 users, whose tastes differ, and 8 seeds: 95% intervals of a known difference in AUC."""
    rng = np.random.default_rng(7)
    n_users, rows, n_seeds, resamples = 60, 10, 8, 300
    owner = np.repeat(np.arange(n_users), rows)

    def test_part(n_models: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        positive = rng.random(len(owner)) < 0.5
        ease = rng.gamma(2.0, 0.5, size=n_users)[owner]  # the users are alike within, not among each other
        noise = rng.normal(size=len(owner)) + 0.3 * rng.normal(size=(2, n_models, len(owner)))
        signal = np.array([0.8, 1.1])[:, None, None] * ease * positive
        return positive, (signal + noise).astype(np.float32)

    def auc(
        scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], counts: npt.NDArray[np.uint8]
    ) -> Floats:
        return np.array([[resampled_auc(own, positive, owner, counts) for own in loss] for loss in scores])

    once = np.ones((n_users, 1), np.uint8)
    truth = np.mean(
        [np.diff(auc(scores, positive, once)[:, 0, 0]) for positive, scores in (test_part(1) for _ in range(2000))]
    )
    found = []
    for number in range(150):
        positive, scores = test_part(n_seeds)
        drawn = draw_units(n_users, range(resamples), number)
        plain = auc(scores, positive, once)[:, :, 0]
        seeds = draw_seeds(n_seeds, resamples, number)
        found.append(gains(plain, auc(scores, positive, drawn), seeds, higher_is_better=True)[1])
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.89 <= covered <= 0.99, covered
    # as often as its size says: power of the true difference, from the mean error
    error = float(np.mean([one.error for one in found]))
    assert error == pytest.approx(float(np.std([one.mean for one in found])), rel=0.25)
    power = np.mean([one.low > 0 for one in found])
    expected = 0.5 * math.erfc((1.96 - truth / error) / math.sqrt(2))
    assert power == pytest.approx(expected, abs=0.12)


def test_what_could_have_been_found() -> None:
    gain = Gain(0.0, -1.0, 1.0, 1.0, 0.01)
    assert gain.detectable(1) == pytest.approx(0.01 * (1.95996 + 0.84162), rel=1e-4)
    assert gain.detectable(0) == gain.detectable(1) < gain.detectable(2)


# Holm's correction.


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
    assert holm(values) == pytest.approx(plain_holm(values), nan_ok=True)


def test_holm_by_hand() -> None:
    assert holm([0.04, math.nan, 0.01, 0.03]) == pytest.approx([0.06, math.nan, 0.03, 0.06], nan_ok=True)
