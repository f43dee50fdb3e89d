"""What became of the proposals."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from gploss.report import plots
from tests.gploss.report.plots.figures import assert_apart, boxes, legend_texts, made_up, words


def test_outcomes_sum_to_the_proposals() -> None:
    frame = made_up()
    counts = plots.outcome_counts(frame)
    assert counts.sum(axis=1).to_dict() == frame["searcher"].value_counts().to_dict()
    assert list(counts.index) == ["random", "genetic", "rl"]
    assert list(counts.columns[:4]) == ["trained", "from the cache", "duplicate", "diverged"]
    own = frame[(frame["searcher"] == "rl") & (frame["status"] == "trained")]
    assert counts.loc["rl", "from the cache"] == own["cached"].sum()
    assert counts.loc["rl", "trained"] == (~own["cached"]).sum()


def test_bars_are_full_and_every_count_is_written() -> None:
    frame = made_up()
    figure = plots.filters(frame)
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    ends = {bar.get_y(): bar.get_x() + bar.get_width() for bar in bars}
    np.testing.assert_allclose(list(ends.values()), 1.0)
    counts, text = plots.outcome_counts(frame), words(figure)
    for name in counts.index:
        assert f"{name}\n{int(counts.loc[name].sum()):,} proposals" in text
    for count in counts.to_numpy().ravel():
        assert not count or f"{count:,}" in text
    assert_apart(boxes(figure, "segment"))


def test_rare_reasons_are_added_up_where_colours_end() -> None:
    frame = made_up()
    rejected = frame["status"] == "rejected"
    frame.loc[rejected, "reason"] = [f"reason {number % 12}" for number in range(rejected.sum())]
    texts = legend_texts(plots.filters(frame))
    assert texts[-1] == "rejected: 5 further reasons"
    assert len(texts) == 12


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown status exploded"):
        plots.filters(made_up().replace({"status": {"trained": "exploded"}}))
