"""Reward against complexity."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.report import plots
from tests.gploss.report.plots.figures import assert_apart, boxes, draw, made_up, words, x_of, y_of


def brute_force_front(frame: pd.DataFrame) -> set[tuple[float, float]]:
    points = list(zip(frame["complexity"], frame["reward"], strict=True))
    return {
        (cost, gain)
        for cost, gain in points
        if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
    }


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), min_size=1, max_size=30),
)
def test_the_step_line_is_the_pareto_front(points: list[tuple[int, int]]) -> None:
    frame = pd.DataFrame(points, columns=["complexity", "reward"]).assign(
        searcher="genetic", status="trained", expression="pred"
    )
    (axes,) = plots.pareto(frame).axes
    line = next(line for line in axes.lines if line.get_label() == "_front")
    drawn = set(zip(x_of(line).tolist(), y_of(line).tolist(), strict=True))
    assert drawn == brute_force_front(frame)


def test_pareto_shows_every_trained_candidate_and_no_duplicate() -> None:
    frame = made_up()
    (axes,) = plots.pareto(frame).axes
    dots = sum(len(x_of(line)) for line in axes.lines if line.get_label() == "_dots")
    assert dots == (frame["status"] == "trained").sum()


@pytest.mark.parametrize("seed", range(3))
def test_badges_and_formulas_overlap_nothing_of_their_kind(seed: int) -> None:
    frame = made_up(seed=seed)
    frame["expression"] = "max(min(pred, label), " + frame["expression"] + ", " + frame["expression"] + ")"
    figure = plots.pareto(frame, "AUC")
    draw(figure)
    (axes,) = figure.axes
    badges = [text for text in axes.texts if text.get_gid() == "badge"]
    discs = [patch.get_window_extent() for text in badges if (patch := text.get_bbox_patch()) is not None]
    assert len(discs) == len(badges) > 0
    assert_apart(discs)
    formulas = boxes(figure, "formula")
    assert len(formulas) == len(badges)
    assert_apart(formulas)
    panel = axes.get_window_extent()
    assert all(not panel.overlaps(box) for box in formulas)
    assert all(panel.contains(disc.x0, disc.y0) and panel.contains(disc.x1, disc.y1) for disc in discs)


def test_the_best_formula_of_each_searcher_is_written_out() -> None:
    frame = made_up()
    text = words(plots.pareto(frame))
    trained = frame[frame["status"] == "trained"]
    for name, rows in trained.groupby("searcher"):
        assert f"{name}: {rows['reward'].max():.4f} with" in text
