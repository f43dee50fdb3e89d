"""Made-up searches, and what the tests of figures look for in a picture."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from gploss.report import plots

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
    return {
        "the label is 1": (scores, -np.log(pred), sharpness * (pred - 1)),
        "the label is 0": (scores, -np.log(1 - pred), sharpness * pred),
    }


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
