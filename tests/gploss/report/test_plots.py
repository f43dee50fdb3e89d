from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from gploss.report import plots
from gploss.report.plots.layout import line_styles, shorten, spread, wrap
from gploss.report.trajectories import band, numbered, quantiles, trajectories

REASONS = ("not finite", "no gradient", "label unused", "wrong direction")
REFERENCE = {
    "bce": 0.803, "mse": 0.8031, "hinge": 0.8032, "focal": 0.8033, "maxr": 0.79, "logmin": 0.5, "lost": np.nan,
}  # fmt: skip
STATUSES = ("trained", "diverged", "rejected", "duplicate")


def made_up(
    searchers: tuple[str, ...] = ("random", "genetic", "rl"), seeds: int = 3, proposals: int = 80, seed: int = 0
) -> pd.DataFrame:
    """Evaluations of imaginary runs; runs of one searcher differ in length, indices repeat."""
    random = np.random.default_rng(seed)
    frames = []
    for name in searchers:
        for run in range(seeds):
            count = proposals - 10 * run
            status = random.choice(STATUSES, count, p=[0.5, 0.05, 0.35, 0.1])
            rejected = status == "rejected"
            trained = np.isin(status, ["trained", "duplicate"])
            depth = random.integers(1, 9, count)
            frame = pd.DataFrame(
                {
                    "searcher": name,
                    "seed": run,
                    "step": np.arange(1, count + 1),
                    "expression": ["mul(label, " + "log(" * int(k) + "pred" + ")" * int(k) + ")" for k in depth],
                    "status": status,
                    "reason": [str(random.choice(REASONS)) if bad else None for bad in rejected],
                    "reward": np.where(trained, 0.8 - random.exponential(0.03, count), np.nan),
                    "cached": (status == "trained") & (random.random(count) < 0.2),
                    "complexity": depth + 2,
                    "elapsed": np.cumsum(random.exponential(0.1, count)),
                }
            )
            frames.append(frame)
    return pd.concat(frames)


def nothing_trained(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~frame["status"].isin(["trained", "duplicate"])]


def curve(sharpness: float = 1.0) -> plots.Curves:
    scores = np.linspace(-6, 6, 61)
    pred = 1 / (1 + np.exp(-sharpness * scores))
    return (
        scores,
        -np.log(pred),
        -np.log(1 - pred),
        sharpness * (pred - 1),
        sharpness * pred,
    )


def draw(figure: Figure) -> None:
    figure.canvas.draw()


def boxes(figure: Figure, mark: str) -> list[matplotlib.transforms.Bbox]:
    draw(figure)
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_gid() == mark)
    return [text.get_window_extent() for text in texts]


def assert_apart(found: list[matplotlib.transforms.Bbox]) -> None:
    for one, other in combinations(found, 2):
        assert not one.overlaps(other), (one, other)


def x_of(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_xdata(), dtype=np.float64)


def y_of(line: Line2D) -> NDArray[np.float64]:
    return np.asarray(line.get_ydata(), dtype=np.float64)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def every_figure(frame: pd.DataFrame) -> list[Figure]:
    return [
        plots.efficiency(frame, REFERENCE, "validation AUC"),
        plots.filters(frame),
        plots.pareto(frame, "validation AUC"),
    ]


FRAMES: dict[str, pd.DataFrame] = {
    "usual": made_up(),
    "one seed": made_up(seeds=1),
    "one searcher": made_up(("genetic",)),
    "strangers": made_up(tuple(f"my searcher number {number}" for number in range(9)), seeds=1),
    "nothing trained": nothing_trained(made_up()),
    "one of them trained nothing": pd.concat([made_up(("genetic",)), nothing_trained(made_up(("rl",)))]),
    "one candidate": made_up(("genetic",), 1).query("status == 'trained'").head(1),
    "no proposal": made_up().iloc[:0],
}


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


# ---- efficiency


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


def test_missing_columns_are_named() -> None:
    frame = made_up().drop(columns=["reward", "status"])
    with pytest.raises(ValueError, match=r"efficiency needs the columns status, reward"):
        plots.efficiency(frame, {})
    with pytest.raises(ValueError, match=r"filters needs the columns status"):
        plots.filters(frame)
    with pytest.raises(ValueError, match=r"pareto needs the columns status, reward"):
        plots.pareto(frame)


# ---- filters


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


# ---- Pareto


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


# ---- loss curves


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
    np.testing.assert_allclose(y_of(gradient), np.asarray(curve()[3], dtype=np.float64))


def test_a_constant_added_to_a_loss_leaves_the_picture_as_it_is() -> None:
    scores, one, zero, one_slope, zero_slope = map(np.asarray, curve())
    plain = plots.loss_curves({"x": (scores, one, zero, one_slope, zero_slope)})
    moved = plots.loss_curves({"x": (scores, one + 500, zero - 500, one_slope, zero_slope)})
    for before, after in zip(plain.axes, moved.axes, strict=True):
        np.testing.assert_allclose(y_of(before.lines[-1]), y_of(after.lines[-1]), atol=1e-9)


def test_an_exploding_curve_does_not_squash_the_others() -> None:
    scores = np.asarray(curve()[0])
    steep, nowhere = np.exp(-9 * scores), np.full_like(scores, np.nan)
    wild = (scores, steep, nowhere, -9 * steep, np.full_like(scores, np.inf))
    figure = plots.loss_curves({"bce": curve(), "wild": wild})
    draw(figure)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert -15 < low < high < 15
    assert "wild" in legend_texts(figure)


def test_no_curve_at_all_is_said() -> None:
    assert "there is nothing to draw" in words(plots.loss_curves({})).replace("\n", " ")


def test_curves_of_unequal_length_are_refused() -> None:
    scores, one, zero, one_slope, zero_slope = map(np.asarray, curve())
    with pytest.raises(ValueError, match=r"'odd' needs five arrays of one length.*\(61,\), \(60,\)"):
        plots.loss_curves({"odd": (scores, one[1:], zero, one_slope, zero_slope)})


# ---- files


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


# ---- what the figures share


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


# ---- best so far


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_bands_equal_a_plain_loop(seed: int, runs: int) -> None:
    frame = numbered(made_up(("genetic",), runs, 60, seed=seed))
    found = band(trajectories(frame, "candidate"))
    for place, low, median, high in zip(found.positions, found.low, found.median, found.high, strict=True):
        best = []
        for _, run in frame.groupby("seed"):
            sofar = run[(run["candidate"] <= place) & (run["status"] == "trained")]["reward"]
            best.append(sofar.max() if len(sofar) else -np.inf)
        expected = quantiles(best, (0.25, 0.5, 0.75))
        np.testing.assert_allclose([low, median, high], expected)
    assert found.positions[-1] == frame["candidate"].max()


def test_a_run_that_found_nothing_counts_as_the_worst() -> None:
    np.testing.assert_allclose(quantiles([-np.inf, 0.5, 0.7], (0.0, 0.5, 1.0)), [np.nan, 0.5, 0.7])
    assert np.isnan(quantiles([-np.inf, -np.inf, 0.7], (0.5,))).all()


def test_candidates_are_numbered_by_run_in_order_of_steps() -> None:
    frame = pd.DataFrame(
        {
            "searcher": "a",
            "seed": [1, 1, 1, 2, 1],
            "step": [4, 1, 2, 1, 3],
            "status": ["trained", "diverged", "rejected", "trained", "trained"],
        }
    )
    assert numbered(frame)["candidate"].tolist() == [3, 1, 1, 1, 2]
    kept = frame.assign(candidate=7)
    assert numbered(kept) is kept


def test_a_band_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        band([])
