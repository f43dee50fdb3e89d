"""What the figures share: places of labels, styles of lines, texts cut to measure."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gploss.report.plots.layout import line_styles, shorten, spread, wrap


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.floats(0.001, 0.05),
)
def test_spread_keeps_distance_order_and_bounds(positions: list[float], gap: float) -> None:
    placed = spread(positions, gap, 0.0, 1.0)
    order = np.argsort(positions, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-9).all()
    assert placed.min() >= -1e-9
    assert placed.max() <= 1 + 1e-9


def test_spread_moves_nothing_that_is_far_enough_apart() -> None:
    np.testing.assert_allclose(spread([0.9, 0.1, 0.5], 0.1, 0, 1), [0.9, 0.1, 0.5])
    np.testing.assert_allclose(spread([0.5, 0.5], 0.2, 0, 1), [0.4, 0.6])


@given(st.sets(st.text(max_size=4), max_size=8))
def test_styles_differ_and_depend_on_no_order(strangers: set[str]) -> None:
    names = ["rl", "genetic", "random", *sorted(strangers - {"rl", "genetic", "random"})]
    styles = line_styles(names)
    assert len({(style.colour, style.dashes) for style in styles.values()}) == len(names)
    assert line_styles(reversed(names)) == styles


def test_more_names_than_styles_still_get_one_each() -> None:
    assert len(line_styles(f"searcher {number}" for number in range(40))) == 40


@given(st.text(alphabet="ab(), ", max_size=200), st.integers(5, 40), st.integers(1, 3))
def test_cut_texts_keep_to_their_measure(text: str, width: int, lines: int) -> None:
    assert len(shorten(text, width)) <= width
    parts = wrap(text, width, lines)
    assert 1 <= len(parts) <= lines
    assert all(len(part) <= width for part in parts)
