"""What holds for every figure: nothing overlaps, nothing global is touched, files are whole, gaps are named."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from gploss.report import plots
from tests.gploss.report.plots.figures import FRAMES, draw, every_figure, made_up, words


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", FRAMES)
def test_figures_stay_inside_their_borders_and_legends_off_the_panels(case: str) -> None:
    for figure in every_figure(FRAMES[case]):
        draw(figure)
        assert "nan" not in words(figure).lower()
        drawn = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert drawn.x0 >= 0
        assert drawn.y0 >= 0
        assert drawn.x1 <= width
        assert drawn.y1 <= height
        for legend in figure.legends:
            for axes in figure.axes:
                assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_nothing_touches_pyplot_or_the_settings_of_matplotlib() -> None:
    before = dict(matplotlib.rcParams)
    for figure in every_figure(FRAMES["usual"]):
        draw(figure)
        assert isinstance(figure.canvas, FigureCanvasAgg)
        assert figure.canvas.manager is None
    assert dict(matplotlib.rcParams) == before


def test_missing_columns_are_named() -> None:
    frame = made_up().drop(columns=["reward", "status"])
    with pytest.raises(ValueError, match=r"efficiency needs the columns status, reward"):
        plots.efficiency(frame, {})
    with pytest.raises(ValueError, match=r"filters needs the columns status"):
        plots.filters(frame)
    with pytest.raises(ValueError, match=r"pareto needs the columns status, reward"):
        plots.pareto(frame)


def test_save_writes_a_png_at_150_dots_per_inch(tmp_path: Path) -> None:
    figure = plots.filters(made_up(seeds=1))
    plots.save(figure, tmp_path / "filters.png")
    width, height = figure.get_size_inches()
    assert imread(tmp_path / "filters.png").shape[:2] == (int(height * 150), int(width * 150))
    assert [path.name for path in tmp_path.iterdir()] == ["filters.png"]


def test_a_full_disk_leaves_the_old_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"figure\.png: No space left on device; .*unchanged"):
        plots.save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["figure.png"]
