"""Noise: rates that hold, parts that stay as they were, negatives that are new, validation parts drawn anew."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.noise import Flips, Noise, NoisySplit, with_unobserved_negatives
from recmodels.data.splits import leave_one_out, repeated_splits, rolling_splits


def small_split() -> Split:
    """40 users, who met 70 of 200 items each."""
    rng = np.random.Generator(np.random.PCG64(0))
    items = np.concatenate([rng.choice(200, 70, replace=False) for _ in range(40)])
    labels = rng.random(len(items)) < 0.55
    return leave_one_out(Interactions(np.repeat(np.arange(40), 70), items, labels, 40, 200, np.arange(len(items))))


SPLIT = small_split()
FLIP, POSITIVE, NEGATIVE = (Flips.parse(text) for text in ("flip=0.2", "positive=0.3", "negative=0.3"))
UNOBSERVED = Noise(negatives="unobserved")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def turned(rows: Interactions, clean: Interactions, label: int) -> npt.NDArray[np.bool_]:
    """Which of the rows that had a label have it no longer."""
    own = clean.labels == label
    result: npt.NDArray[np.bool_] = rows.labels[own] != clean.labels[own]
    return result


# Rates.


@pytest.mark.parametrize(
    ("flips", "positive", "negative"), [(FLIP, 0.2, 0.2), (POSITIVE, 0.3, 0.0), (NEGATIVE, 0.0, 0.3)], ids=str
)
def test_rates_hold_for_each_label_and_nothing_else_changes(flips: Flips, positive: float, negative: float) -> None:
    noisy = Noise(flips, seed=1).applied_to(SPLIT)
    for label, share in ((1, positive), (0, negative)):
        own = turned(noisy.train, SPLIT.train, label)
        assert own.sum() == round(share * len(own))
    assert replace(noisy.train, labels=SPLIT.train.labels) == SPLIT.train
    assert noisy.validation is SPLIT.validation and noisy.test is SPLIT.test


def test_every_row_is_as_likely_as_the_other() -> None:
    data = Interactions(np.zeros(10, np.int64), np.arange(10), np.arange(10) % 2, 1, 10)
    times = sum((Flips(0.4, 0.2).applied_to(data, generator(seed)).labels != data.labels) for seed in range(2000))
    np.testing.assert_allclose(times[1::2], 800, atol=100)  # five standard deviations
    np.testing.assert_allclose(times[0::2], 400, atol=100)


def test_validation_is_touched_where_it_is_asked_for_and_test_never() -> None:
    noisy = Noise(validation=FLIP).applied_to(SPLIT)
    assert noisy.train is SPLIT.train and noisy.test is SPLIT.test
    for label in (1, 0):
        own = turned(noisy.validation, SPLIT.validation, label)
        assert own.sum() == round(0.2 * len(own))
    both = Noise(POSITIVE, validation=FLIP).applied_to(SPLIT)
    assert both.validation == noisy.validation, "noise of train must not move that of validation"
    assert both.train == Noise(POSITIVE).applied_to(SPLIT).train


def test_a_seed_fixes_the_noise_and_another_changes_it() -> None:
    noise = Noise(FLIP, "unobserved", FLIP, seed=3)
    one, same, other = (each.applied_to(SPLIT) for each in (noise, noise, replace(noise, seed=4)))
    assert one.train == same.train and one.validation == same.validation
    assert not np.array_equal(one.train.labels, other.train.labels)
    assert not np.array_equal(one.train.items, other.train.items)
    assert not np.array_equal(one.validation.labels, other.validation.labels)


def test_noise_stays_as_it_is_since_caches_hold_what_was_trained_on_it() -> None:
    noisy = Noise(FLIP, "unobserved", NEGATIVE, seed=3).applied_to(SPLIT)
    assert noisy.content_hash == "fd8f5de5e206f6af35e928630c11c8db"


def test_noise_is_part_of_the_name_the_hash_and_the_figures() -> None:
    noisy = Noise(FLIP, "unobserved", NEGATIVE, seed=3).applied_to(SPLIT)
    said = "negatives unobserved, train noise flip=0.2, validation noise negative=0.3 (seed 3)"
    assert noisy.name == f"{SPLIT.name}, {said}"
    assert noisy.content_hash != SPLIT.content_hash
    figures = noisy.describe()
    assert (figures["noise"], figures["clean"]) == (said, SPLIT.content_hash)
    assert figures["content_hash"] == noisy.content_hash


def test_no_noise_is_the_split_itself() -> None:
    assert Noise(seed=5).applied_to(SPLIT) is SPLIT
    assert str(Noise()) == "no noise"


# Negatives that nobody rejected.


def test_unobserved_negatives_are_new_to_their_users_and_as_many() -> None:
    rows = UNOBSERVED.applied_to(SPLIT).train
    negative = SPLIT.train.labels == 0
    np.testing.assert_array_equal(rows.users, SPLIT.train.users)
    np.testing.assert_array_equal(rows.labels, SPLIT.train.labels)
    np.testing.assert_array_equal(rows.items[~negative], SPLIT.train.items[~negative])
    met = set(zip(SPLIT.train.users.tolist(), SPLIT.train.items.tolist(), strict=True))
    new = list(zip(rows.users[negative].tolist(), rows.items[negative].tolist(), strict=True))
    assert not met & set(new)
    assert len(set(new)) == len(new) == negative.sum()


def test_every_item_that_was_not_met_is_drawn_as_often() -> None:
    data = Interactions(np.array([0, 0, 0, 1]), np.array([0, 3, 0, 4]), np.array([1, 0, 0, 0]), 2, 6)
    drawn: Counter[int] = Counter()
    for seed in range(1200):
        drawn.update(with_unobserved_negatives(data, generator(seed)).items[[1, 2]].tolist())
    assert drawn.keys() == {1, 2, 4, 5}
    assert all(abs(count - 600) < 90 for count in drawn.values())  # five standard deviations


def test_unobserved_negatives_look_at_train_alone() -> None:
    other = Split("other", SPLIT.train, SPLIT.test, SPLIT.validation)
    assert UNOBSERVED.applied_to(other).train == UNOBSERVED.applied_to(SPLIT).train


def test_labels_are_turned_over_after_negatives_were_replaced() -> None:
    noise = Noise(NEGATIVE, "unobserved", seed=2)
    rows = noise.applied_to(SPLIT).train
    np.testing.assert_array_equal(rows.items, replace(UNOBSERVED, seed=2).applied_to(SPLIT).train.items)
    np.testing.assert_array_equal(rows.labels, Noise(NEGATIVE, seed=2).applied_to(SPLIT).train.labels)


def test_a_user_with_just_enough_items_left_gets_all_of_them() -> None:
    data = Interactions(np.zeros(4, np.int64), np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1]), 1, 6)
    assert sorted(with_unobserved_negatives(data, generator()).items[[0, 2]]) == [4, 5]


def test_a_user_who_has_met_too_much_is_named() -> None:
    data = Interactions(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]), 2, 4)
    with pytest.raises(DataError, match="user 1 has 2 negatives and 1 of 4 items left"):
        with_unobserved_negatives(data, generator())


# Parts that are drawn anew.


@pytest.mark.parametrize("noise", [Noise(FLIP, seed=1), replace(UNOBSERVED, seed=1)], ids=str)
@pytest.mark.parametrize(
    "draw",
    [functools.partial(repeated_splits, count=3, share=0.2, seed=7), functools.partial(rolling_splits, count=3)],
    ids=["repeated", "rolling"],
)
def test_parts_drawn_anew_are_validated_on_clean_rows_and_trained_on_noisy_ones(
    draw: Callable[[Split], list[Split]], noise: Noise
) -> None:
    splits, clean = draw(noise.applied_to(SPLIT)), draw(SPLIT)
    assert splits[0].content_hash == noise.applied_to(SPLIT).content_hash
    assert len(splits) == len(clean) == 3
    for own, expected in zip(splits, clean, strict=True):
        assert own.validation.content_hash == expected.validation.content_hash
        assert own.test.content_hash == expected.test.content_hash
        assert own.train.content_hash == noise.applied_to(expected).train.content_hash
        assert own.train.content_hash != expected.train.content_hash
        assert own.name == f"{expected.name}, {noise}"


# Faults.


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("name", ["positive", "negative"])
def test_rates_outside_of_0_and_1_are_refused(name: str, share: float) -> None:
    with pytest.raises(DataError, match=rf"noise rate {name}={share:g} is outside of \[0, 1\)") as caught:
        Flips(**{name: share})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flip=1", "outside of"),
        ("flip=-0.2", "outside of"),
        ("flip", "not understood at 'flip'; write flip=0.2"),
        ("flop=0.2", "not understood at 'flop=0.2'"),
        ("flip=much", "not understood"),
        ("flip=nan", "not understood"),
        ("", "not understood at ''"),
        ("positive=0.1,", "not understood at ''"),
        ("positive=0.1,positive=0.2", "not understood at 'positive=0.2'"),
        ("flip=0.1,negative=0.2", "names some labels twice"),
    ],
)
def test_texts_that_are_no_noise_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Flips.parse(text)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 99), st.integers(0, 99))
def test_what_is_written_is_read_again(positive: int, negative: int) -> None:
    flips = Flips(positive / 100, negative / 100)
    assert Flips.parse(str(flips)) == flips
    assert bool(flips) == (positive + negative > 0)


def test_unknown_negatives_and_noise_upon_noise_are_refused() -> None:
    with pytest.raises(DataError, match="not 'seen'"):
        Noise(negatives="seen")  # type: ignore[arg-type]
    noisy = Noise(FLIP).applied_to(SPLIT)
    assert isinstance(noisy, NoisySplit) and noisy.clean is SPLIT
    with pytest.raises(DataError, match="noise already"):
        Noise(POSITIVE).applied_to(noisy)
