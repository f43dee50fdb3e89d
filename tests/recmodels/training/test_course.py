"""One member over its epochs, against a few lines that look at all values at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recmodels.training.course import Course, Rules, report_on
from recmodels.training.trainer import Keep, Outcome, State

VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan, math.inf]), min_size=1, max_size=8)


def state(epoch: int) -> State:
    return State({"weight": torch.tensor([float(epoch)])}, {}, np.array([epoch + 1], np.int64))


def go(rules: Rules, values: list[float], breaks_in: int | None = None) -> Course:
    """Take a member through its epochs; its only weight is the number of the epoch."""
    course = Course(rules)
    for epoch, value in enumerate(values):
        keeps = course.broke(epoch) if epoch == breaks_in else course.measured(epoch, {"m": value, "other": 1.0})
        if keeps:
            course.state = state(epoch)
        if course.ended:
            break
    return course


@given(VALUES, st.booleans(), st.sampled_from([None, 1, 2]), st.sampled_from(["none", "last", "best"]))
def test_values_end_and_what_is_kept(values: list[float], more: bool, patience: int | None, keep: Keep) -> None:
    course = go(Rules({"m": more, "other": True}, len(values), patience, keep), values)
    first_bad = next((k for k, value in enumerate(values) if not math.isfinite(value)), len(values))
    good = np.array(values[:first_bad]) * (1 if more else -1)
    waited = [k for k in range(first_bad) if patience is not None and k - int(np.argmax(good[: k + 1])) >= patience]
    last = min([*waited, first_bad, len(values) - 1])
    assert course.ended and course.epochs == last + 1
    assert (course.outcome is Outcome.DIVERGED) == (last == first_bad)
    assert course.reason == (f"non-finite validation score in epoch {last + 1}" if last == first_bad else None)
    measured = min(last + 1, first_bad)
    np.testing.assert_array_equal(course.values["m"][:measured], values[:measured])
    assert np.isnan(course.values["m"][measured:]).all() and np.isnan(course.values["other"][measured:]).all()
    best = int(np.argmax(good[:measured])) if measured else last
    kept = None if course.state is None else int(course.state.weights["weight"][0])
    assert kept == {"none": None, "last": last, "best": best}[keep]


@pytest.mark.parametrize(("keep", "kept"), [("none", None), ("last", 2), ("best", 1)])
def test_a_broken_gradient_ends_it(keep: Keep, kept: int | None) -> None:
    course = go(Rules({"m": True, "other": True}, 5, None, keep), [0.1, 0.3, 0.9, 0.9], breaks_in=2)
    assert course.outcome is Outcome.DIVERGED and course.reason == "non-finite gradient in epoch 3"
    np.testing.assert_array_equal(course.values["m"], [0.1, 0.3, np.nan, np.nan, np.nan])
    assert (None if course.state is None else int(course.state.weights["weight"][0])) == kept


def test_an_epoch_may_be_the_last_before_it_is_measured() -> None:
    course = Course(Rules({"m": True}, 6, 2, "none"))
    assert [course.can_end(epoch) for epoch in range(6)] == [False, False, True, True, True, True]
    course.measured(0, {"m": 0.1})
    course.measured(1, {"m": 0.2})
    assert [course.can_end(epoch) for epoch in range(2, 6)] == [False, True, True, True]


def test_a_report_holds_members_in_order() -> None:
    rules = Rules({"m": False, "other": True}, 3, None, "best")
    courses = [go(rules, [3.0, 1.0, 2.0]), go(rules, [math.nan]), go(rules, [1.0, 2.0, 3.0])]
    report = report_on(courses, [0.5, 0.25, 1.0], rules)
    np.testing.assert_array_equal(report.metrics["m"], [[3, 1, 2], [np.nan] * 3, [1, 2, 3]])
    assert report.outcomes == [Outcome.TRAINED, Outcome.DIVERGED, Outcome.TRAINED]
    assert report.stopped_at.tolist() == [3, 1, 3] and report.seconds.tolist() == [0.5, 0.25, 1.0]
    assert report.states is not None and report.states.epochs.tolist() == [2, 1, 1]
    nobody = report_on([], [], rules)
    assert nobody.metrics["m"].shape == (0, 3) and nobody.states is None
