"""Does a search slow down as it goes on? Genetic search of many candidates, with an evaluator that trains nothing.

    python -m experiments.bench.long_search --candidates 100000 --out results/long-search.md

What is measured is all that a search does besides training: proposals, screening, fingerprints, duplicates, and
the checkpoint after each turn. The reward says how near a loss's gradient is to that of a hidden loss, the focal
one, so that the population converges as in a true search.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from experiments.bench.benchmark import resident_megabytes
from gploss.environment import environment
from gploss.files.plain import JSON
from gploss.files.whole import write_text_atomic
from gploss.language.grammar import Grammar
from gploss.report.page import Page, Section, Table
from gploss.search.ask_tell import AskTell
from gploss.search.evaluation import Evaluation, Status
from gploss.search.record import Progress
from gploss.searchers.genetic import GeneticSearcher
from gploss.tasks.pointwise import LOSSES, POINTWISE
from recmodels.evaluators.sifting import Sieve

#: Between these numbers of candidates the speeds are compared.
EARLY: Final = (1_000, 5_000)
LATE: Final = (50_000, 100_000)

#: Candidates between two readings.
STEP: Final = 1_000


class LikenessEvaluator:
    """Sifts losses as `recmodels.LossEvaluator` does; in place of training it compares gradients."""

    epochs: Final = 1
    metric: Final = "likeness"
    higher_is_better: Final = True

    def __init__(self) -> None:
        self._sieve = Sieve(POINTWISE, scale_free=True)
        self._points = POINTWISE.probes()
        hidden = self._sieve.sift([LOSSES["focal"].expression], {}, 1)
        self._hidden = hidden.screening.losses.losses(self._points)[1]["score"][0]

    def describe(self) -> dict[str, JSON]:
        """Return the settings."""
        return {"kind": "likeness", "hidden": str(LOSSES["focal"].expression)}

    def evaluate(self, losses: Sequence[object], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluate a prefix; see `gploss.search.evaluator.Evaluator`."""
        sifted = self._sieve.sift(losses, seen, limit)  # type: ignore[arg-type]
        rows = np.array(sifted.new, np.int64)
        gradients = sifted.screening.losses.losses(self._points, rows)[1]["score"]
        lengths = np.linalg.norm(gradients, axis=1) * np.linalg.norm(self._hidden)
        rewards = 0.5 + 0.5 * (gradients @ self._hidden) / lengths
        new = {
            k: Evaluation(
                sifted.losses[k],
                Status.TRAINED,
                reward=float(reward),
                metrics={self.metric: [float(reward)]},
                fingerprint=sifted.screening.fingerprints[k],
                scale=float(sifted.screening.scales[k]),
                candidate_epochs=1,
            )
            for k, reward in zip(sifted.new, rewards, strict=True)
        }
        return sifted.evaluations(new)


def written() -> int:
    """Return the bytes that this process has written to files; 0 where the system does not tell."""
    path = Path("/proc/self/io")
    if not path.is_file():
        return 0
    return int(dict(line.split(": ") for line in path.read_text().splitlines())["wchar"])


def measured(candidates: int, seed: int) -> pd.DataFrame:
    """Search, and return a row for each thousand candidates: all values since the run's beginning."""
    rows: list[dict[str, float]] = []

    def read(searcher: AskTell, new: Sequence[Evaluation], progress: Progress) -> None:
        spending = progress.spending
        if rows and spending.candidates < rows[-1]["candidates"] + STEP:
            return
        rows.append(
            {
                "candidates": spending.candidates,
                "proposals": spending.proposals,
                "seconds": time.process_time(),
                "written": written(),
                "memory": resident_megabytes(),
            }
        )
        if len(rows) % 10 == 1:
            print(f"{spending.candidates:,} candidates", file=sys.stderr, flush=True)

    searcher = GeneticSearcher(Grammar.standard(), LikenessEvaluator(), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        searcher.run(candidates, callbacks=[read], checkpoint=Path(folder) / "run.sqlite", progress=False)
    return pd.DataFrame(rows)


def summary(readings: pd.DataFrame) -> pd.DataFrame:
    """Between pairs of readings: speeds, bytes written, and memory for each candidate."""
    most = int(readings["candidates"].iloc[-1])
    bounds = [EARLY, (5_000, 20_000), (20_000, 50_000), LATE]
    rows = []
    for begin, end in [(begin, min(end, most)) for begin, end in bounds if begin + 2 * STEP < most]:
        first, last = (readings.iloc[(readings["candidates"] - at).abs().argmin()] for at in (begin, end))
        change = last - first
        rows.append(
            {
                "candidates": f"{begin:,} to {end:,}",
                "candidates a second": change["candidates"] / change["seconds"],
                "proposals a second": change["proposals"] / change["seconds"],
                "proposals a candidate": change["proposals"] / change["candidates"],
                "KB written a candidate": change["written"] / change["candidates"] / 1000,
                "KB of memory a candidate": change["memory"] / change["candidates"] * 1000,
            }
        )
    return pd.DataFrame(rows).round(2)


def main() -> int:
    """Measure, print, and write a page where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.long_search", description=__doc__)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file for the page")
    given = parser.parse_args()
    table = summary(measured(given.candidates, given.seed))
    early, late = (table["proposals a second"].iloc[at] for at in (0, -1))
    text = (
        f"Proposals a second in the last row are {late / early:.2f} of those in the first. In processor seconds; "
        f"seed {given.seed}; {', '.join(f'{name}: {value}' for name, value in environment('cpu').items())}."
    )
    page = Page("Genetic search, however long", text, [Section("Between candidates", [Table(table)])])
    if given.out is not None:
        write_text_atomic(given.out, page.markdown())
    print(table.to_string(index=False))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
