"""The best so far over candidates and seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.report import plots
from tests.gploss.report.plots.figures import (
    FRAMES,
    REFERENCE,
    assert_apart,
    boxes,
    legend_texts,
    made_up,
    words,
    x_of,
    y_of,
)


def test_efficiency_draws_the_median_of_the_best_so_far() -> None:
    rows = [("a", 0, 0.5), ("a", 0, 0.9), ("a", 1, 0.7), ("a", 1, 0.6), ("a", 2, 0.1), ("a", 2, 0.8)]
    frame = pd.DataFrame(rows, columns=["searcher", "seed", "reward"])
    frame = frame.assign(step=[1, 2] * 3, status="trained", elapsed=[1.0, 2.0] * 3)
    figure = plots.efficiency(frame, {}, "AUC")
    left, right = figure.axes
    for axes in (left, right):
        line = next(line for line in axes.lines if line.get_label() == "a")
        np.testing.assert_allclose(x_of(line), [1.0, 2.0])
        np.testing.assert_allclose(y_of(line), [0.5, 0.8])
        assert line.get_drawstyle() == "steps-post"
        assert len(axes.collections) == 1, "one band"
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlabel() == "trained candidates"
    assert "seconds" in right.get_xlabel()


def test_efficiency_where_lower_is_better_mirrors_the_picture() -> None:
    frame = made_up()
    worse = frame.assign(reward=-frame["reward"])
    up = plots.efficiency(frame, {"bce": 0.8}).axes[0]
    down = plots.efficiency(worse, {"bce": -0.8}, higher_is_better=False).axes[0]
    for one, other in zip(up.lines, down.lines, strict=True):
        np.testing.assert_allclose(y_of(one), -y_of(other))
    np.testing.assert_allclose(up.get_ylim(), [-limit for limit in reversed(down.get_ylim())])


def test_reference_lines_are_drawn_and_named_without_overlap() -> None:
    figure = plots.efficiency(made_up(), REFERENCE, "AUC")
    found = boxes(figure, "reference")
    assert len(found) == len(REFERENCE)
    assert_apart(found)
    text = words(figure)
    assert "bce  0.8030" in text
    assert "lost  no value" in text
    assert "↓ logmin  0.5000" in text, "a line below the picture is named at its edge"
    base = [line for line in figure.axes[0].lines if line.get_color() == "#000000"]
    assert [line.get_linestyle() for line in base] == ["--"]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.5, 1.0), min_size=1, max_size=25))
def test_reference_labels_never_overlap(values: list[float]) -> None:
    reference = {f"loss {number}": value for number, value in enumerate(values)}
    assert_apart(boxes(plots.efficiency(made_up(seeds=1, proposals=30), reference), "reference"))


def test_bad_first_candidates_do_not_squash_the_picture() -> None:
    frame = made_up(seeds=3)
    frame.loc[frame["step"] <= 3, "status"] = "trained"
    frame.loc[frame["step"] <= 3, "reward"] = -40.0
    low, high = plots.efficiency(frame, {"bce": 0.8}).axes[0].get_ylim()
    assert 0.5 < low < high < 1.0


def test_a_searcher_that_trained_nothing_is_named_as_such() -> None:
    figure = plots.efficiency(FRAMES["one of them trained nothing"], {})
    assert legend_texts(figure) == ["genetic (3 seeds)", "rl (3 seeds, nothing trained)"]


def test_empty_panels_say_why() -> None:
    for figure in (
        plots.efficiency(FRAMES["nothing trained"], REFERENCE),
        plots.pareto(FRAMES["nothing trained"]),
    ):
        assert "No candidate was trained" in words(figure).replace("\n", " ")
    assert "Nothing was proposed" in words(plots.filters(FRAMES["no proposal"])).replace("\n", " ")


def test_use_of_the_cache_is_told_beside_the_seconds() -> None:
    frame = made_up()
    assert "from the cache" in plots.efficiency(frame, {}).axes[1].get_xlabel()
    assert "cache" not in plots.efficiency(frame.assign(cached=False), {}).axes[1].get_xlabel()
