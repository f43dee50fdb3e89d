"""What people read of a verdict: who won, by how much, what could have been seen, and how it came about."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from recmodels.verdict.bootstrap import Gain
from recmodels.verdict.confirmation import Comparison, Verdict
from recmodels.verdict.rivals import HAND_MADE, Rival
from recmodels.verdict.tables import verdict_notes, verdict_sentence, verdict_table
from recmodels.verdict.tuning import Tuned
from tests.recmodels.verdict.planned import BCE, CUBE, MSE


def tuned(name: str, group: str, expression: Any = MSE, **options: Any) -> Tuned:
    settings = {"learning_rate": 0.05, "weight_decay": 2e-4}
    return Tuned(
        Rival(name, group, expression),
        expression,
        settings,
        **{"validation": 0.41, "tried": 24, "on_edge": ()} | options,
    )


def compared(
    one: Tuned, mean: float, low: float, high: float, p_value: float = math.nan, lost: int = 0
) -> Comparison:
    gain = Gain(mean, low, high, p_value, 0.001)
    return Comparison(one, np.array([0.5, 0.4]) - mean, lost, gain, p_value, gain.detectable(1))


BASELINE = compared(tuned("mse", HAND_MADE), 0, 0, 0)
WORSE = compared(tuned("cube", HAND_MADE, CUBE, tried=32, on_edge=("weight_decay",)), -0.02, -0.03, -0.01)
CLOSE = compared(tuned("rl 1", "rl", BCE), 0.001, -0.001, 0.003, 0.4, lost=1)
BETTER = compared(tuned("genetic 1", "genetic", BCE), 0.02, 0.01, 0.03, 0.004)


def verdict(*comparisons: Comparison, **options: Any) -> Verdict:
    return Verdict(
        **{
            "comparisons": [BASELINE, *comparisons],
            "left_out": {},
            "metric": "regret",
            "higher_is_better": False,
            "chosen_by": "distance",
            "by_row": False,
            "n_units": 1234,
            "resamples": 1000,
        }
        | options
    )


def test_a_better_loss_is_named_with_its_interval() -> None:
    assert verdict_sentence(verdict(BETTER, CLOSE, WORSE)) == (
        "A found loss beats the best tuned hand-made loss (mse) on test (regret): genetic 1 by 0.0200 (+0.0100 to "
        "+0.0300)."
    )


def test_without_one_the_sentence_says_what_could_have_been_seen() -> None:
    assert verdict_sentence(verdict(CLOSE, WORSE)) == (
        "No found loss beats the best tuned hand-made loss (mse) on test (regret); the closest is rl 1, +0.0010 "
        "(-0.0010 to +0.0030). A true gain of 0.0028 would have been found here four times out of five."
    )


@pytest.mark.parametrize("one", [
    dataclasses.replace(BETTER, p_value=0.06),  # corrected for others
    dataclasses.replace(BETTER, gain=dataclasses.replace(BETTER.gain, low=-0.001)),
    dataclasses.replace(BETTER, gain=dataclasses.replace(BETTER.gain, low=0.0)),
    dataclasses.replace(BETTER, tuned=tuned("hinge", HAND_MADE), p_value=math.nan),
])  # fmt: skip
def test_what_does_not_count_as_better(one: Comparison) -> None:
    assert "No found loss" in verdict_sentence(verdict(one))


def test_the_table_has_a_row_a_loss() -> None:
    table = verdict_table(verdict(BETTER, CLOSE, WORSE))
    assert table["loss"].tolist() == ["mse", "genetic 1", "rl 1", "cube"]
    assert table["gain"].tolist() == ["baseline", "+0.0200", "+0.0010", "-0.0200"]
    assert table["test regret"].tolist() == ["0.4500", "0.4300", "0.4490", "0.4700"]
    assert table["validation distance"].tolist() == ["0.4100"] * 4
    assert table["p (Holm)"].tolist() == ["", "0.004", "0.400", ""]
    assert table["could show"].tolist() == ["", "0.0028", "0.0028", "0.0028"]
    assert table["remarks"].tolist() == [
        "",
        "",
        "1 of 2 seeds diverged",
        "best weight decay at the end of its range",
    ]
    assert table["settings"][0] == "learning rate 0.05, weight decay 0.0002"
    assert table["formula"][0] == MSE.readable() and table["expression"][0] == str(MSE)


def test_the_notes_say_how_it_came_about() -> None:
    text = " ".join(verdict_notes(verdict(BETTER, WORSE, left_out={"bad": "zero gradient"})))
    for part in (
        "chosen by distance on validation", "24 to 32 settings of learning rate, weight decay", "2 fresh seeds",
        "less regret is better", "1,000 paired resamples of seeds and of 1,234 users",
        "Left out: bad (zero gradient).",
    ):  # fmt: skip
        assert part in text
    assert "1,234 rows, for want of users" in " ".join(verdict_notes(verdict(by_row=True, higher_is_better=True)))
    assert "more regret is better" in " ".join(verdict_notes(verdict(higher_is_better=True)))
