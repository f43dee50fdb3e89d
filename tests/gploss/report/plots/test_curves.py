"""Losses and their gradients, drawn."""

from __future__ import annotations

import numpy as np
import pytest

from gploss.report import plots
from gploss.report.plots.layout import line_styles
from tests.gploss.report.plots.figures import curve, draw, legend_texts, words, y_of


def test_loss_curves_draws_four_panels_with_bce_black_and_dashed() -> None:
    curves = {"BCE": curve(), "genetic: mul(pred, label)": curve(2.0), "rl: log(pred)": curve(0.5)}
    figure = plots.loss_curves(curves)
    draw(figure)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        assert lines["BCE"].get_color() == "#000000"
        assert lines["BCE"].is_dashed()
        assert lines["genetic: mul(pred, label)"].get_color() == line_styles(["genetic"])["genetic"].colour
        assert axes.get_xlim() == (-6, 6)
    assert legend_texts(figure) == ["BCE", "genetic: mul(pred, label)", "rl: log(pred)"]
    gradient = next(line for line in figure.axes[2].lines if line.get_label() == "BCE")
    np.testing.assert_allclose(y_of(gradient), np.asarray(curve()["the label is 1"][2], dtype=np.float64))


def moved(curves: plots.Curves, by: float) -> plots.Curves:
    return {kind: (scores, np.asarray(values) + by, slope) for kind, (scores, values, slope) in curves.items()}


def test_a_constant_added_to_a_loss_leaves_the_picture_as_it_is() -> None:
    plain, shifted = plots.loss_curves({"x": curve()}), plots.loss_curves({"x": moved(curve(), 500)})
    for before, after in zip(plain.axes, shifted.axes, strict=True):
        np.testing.assert_allclose(y_of(before.lines[-1]), y_of(after.lines[-1]), atol=1e-9)


def test_an_exploding_curve_does_not_squash_the_others() -> None:
    scores = np.asarray(curve()["the label is 1"][0])
    steep, nowhere = np.exp(-9 * scores), np.full_like(scores, np.nan)
    wild = {
        "the label is 1": (scores, steep, -9 * steep),
        "the label is 0": (scores, nowhere, np.full_like(scores, np.inf)),
    }
    figure = plots.loss_curves({"bce": curve(), "wild": wild})
    draw(figure)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert -15 < low < high < 15
    assert "wild" in legend_texts(figure)


def test_a_task_of_one_kind_of_example_has_one_column() -> None:
    kind, own = next(iter(curve().items()))
    figure = plots.loss_curves({"bce": {kind: own}})
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == [
        "Loss where the label is 1", "Gradient where the label is 1",
    ]  # fmt: skip


def test_no_curve_at_all_is_said() -> None:
    assert "there is nothing to draw" in words(plots.loss_curves({})).replace("\n", " ")


def test_curves_of_unequal_length_are_refused() -> None:
    scores, values, slopes = map(np.asarray, curve()["the label is 1"])
    with pytest.raises(ValueError, match=r"'odd, it' needs three arrays of one length.*\(61,\), \(60,\)"):
        plots.loss_curves({"odd": {"it": (scores, values[1:], slopes)}})
