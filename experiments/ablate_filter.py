"""What is each part of the reward filter worth? The same search with one part switched off at a time.

    gploss ablate --dataset ml-100k --protocol paper --searchers rl --out results/paper
    gploss ablate --dataset ml-100k --protocol standard --searchers genetic --out results/std

No cache helps any variant; what differs is how many losses are trained, how long that takes, and what comes out.
Protocol "paper" searches alternately, so many rounds (the result is the recommender's validation value after the
last one); "standard" from scratch, with the same number of proposals (the result is the best one of a loss).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from experiments.command import options
from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from experiments.paper.alternating_search import alternating, alternating_searcher
from experiments.paper.published import long_protocol
from experiments.parts.reading import load_problem
from experiments.parts.searching import grammar_of, is_standard, make_searcher, make_trainer
from gploss.files.whole import write_csv_atomic, write_text_atomic
from gploss.report import plots
from gploss.report.page import Figure, Note, Page, Section, Table
from gploss.screening.screening import Reason
from gploss.search.budget import Budget
from gploss.search.evaluation import Evaluation
from gploss.search.record import Progress
from gploss.search.reward import BaselineFilter
from gploss.search.run import Callback, StopSearch
from gploss.tasks.pointwise import LOSSES
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.training.protocol import PROTOCOLS


@dataclass(frozen=True)
class Variant:
    """A filter with some parts on.

    Attributes:
        duplicates: losses with a known gradient are not trained again.
        allow: reasons for which a loss is trained all the same.
        direction: losses that fail the validity check are turned down.
        baseline: rewards below the moving baseline count as -1.
    """

    duplicates: bool = True
    allow: Collection[Reason] = ()
    direction: bool = False
    baseline: bool = True


_ALL_REASONS: Final = (Reason.ZERO_GRADIENT, Reason.NO_DEPENDENCE)

WHOLE: Final = "the filter"

VARIANTS: Final = {
    WHOLE: Variant(),
    "without duplicates": Variant(duplicates=False),
    "without zero gradient": Variant(allow=(Reason.ZERO_GRADIENT,)),
    "without dependence on inputs": Variant(allow=(Reason.NO_DEPENDENCE,)),
    "with direction check": Variant(direction=True),
    "without baseline": Variant(baseline=False),
    "nothing filtered": Variant(duplicates=False, allow=_ALL_REASONS, baseline=False),
}


class Ablate(options.DataSettings):
    """What is done, and how."""

    protocol: options.Protocol = "paper"
    searchers: options.Searchers = ("rl",)
    rounds: options.Rounds = 20
    samples: options.Samples = 100
    epochs: options.Epochs = 3
    seeds: options.Seeds = 5
    out: options.Out = Path("results/ablation")

    @property
    def proposals(self) -> int:
        """How many proposals a search from scratch makes."""
        return self.rounds * self.samples


@command("ablate", Ablate)
def run(settings: Ablate, folder: RunFolder) -> Page:
    """Switch the parts of the reward filter off, one at a time."""
    problem = load_problem(settings.dataset, settings)
    with folder.open({settings.dataset: problem.split.describe()}):
        warm_up(settings, problem)
        rows = []
        # Seeds outermost: a machine that slows down slows all variants down.
        for replicate in range(settings.seeds):
            for searcher in settings.searchers:
                for name, variant in VARIANTS.items():
                    path = folder.file(f"runs/{searcher}-{name.replace(' ', '-')}-{replicate}.json")
                    if not path.is_file():
                        row = {"searcher": searcher, "variant": name, "seed": replicate}
                        row |= one_run(settings, problem, searcher, variant, replicate)
                        write_text_atomic(path, json.dumps(row) + "\n")
                        outcome = f"{row['trained']} trained, result {row['result']:.4f}"
                        say(f"{searcher}, {name}, seed {replicate}: {outcome}")
                    rows.append(json.loads(path.read_text(encoding="utf-8")))
        runs = pd.DataFrame(rows)
        write_csv_atomic(runs, folder.file("runs.csv"))
        write_csv_atomic(table_of(runs, problem.metric), folder.file("ablation.csv"))
        return folder.save(page_of(settings, problem, runs))


def warm_up(settings: Ablate, problem: PointwiseProblem) -> None:
    """Train one loss, so that no variant's clock pays for compiling."""
    own = PROTOCOLS[settings.protocol]
    for protocol in (own, long_protocol(own)):
        trainer = make_trainer(settings.model, protocol, settings.device)
        LossEvaluator(problem, trainer, epochs=1).evaluate([LOSSES["bce"].expression], {}, 1)


def one_run(
    settings: Ablate, problem: PointwiseProblem, name: str, variant: Variant, replicate: int
) -> dict[str, float]:
    """Search once; return what it cost and what came out."""
    protocol = PROTOCOLS[settings.protocol]
    scratch = is_standard(protocol)
    inner = LossEvaluator(
        problem,
        make_trainer(settings.model, protocol, settings.device),
        epochs=settings.epochs if scratch else 1,
        seed=training_seed(settings.seed, replicate),
        check_direction=variant.direction,
        allow=variant.allow,
        recognise_duplicates=variant.duplicates,
    )
    grammar = grammar_of(protocol)
    begun = time.perf_counter()
    if scratch:
        searcher = make_searcher(
            name,
            grammar,
            inner,
            replicate,
            reward_filter=BaselineFilter() if variant.baseline else None,
            proposals_at_once=min(50, settings.proposals),
        )
        result = searcher.run(Budget(candidates=settings.proposals), callbacks=[_stop_after(settings.proposals)])
        outcome = float("nan") if result.best is None else result.best.reward
    else:
        step_trainer = make_trainer(settings.model, long_protocol(protocol), settings.device)
        evaluator = alternating(inner, step_trainer, settings.rounds, settings.samples)
        searcher = alternating_searcher(name, grammar, evaluator, replicate, reward_filter=variant.baseline)
        most = 2 * (settings.samples + searcher.proposals_at_once) * settings.rounds
        result = searcher.run(Budget(candidates=most))
        outcome = evaluator.start_value
    counts = result.counts
    return {
        "proposals": counts["proposals"],
        "trained": counts["trained"] + counts["diverged"],
        "rejected": counts["rejected"],
        "duplicates": counts["duplicates"],
        "seconds": time.perf_counter() - begun,
        "training_seconds": sum(one.seconds for one in result.records if one.charged),
        "result": outcome,
    }


def _stop_after(proposals: int) -> Callback:
    """Return a callback that ends a run after so many proposals."""

    def stop(searcher: object, new: Sequence[Evaluation], progress: Progress) -> None:
        if progress.spending.proposals >= proposals:
            raise StopSearch

    return stop


def table_of(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row a searcher and variant: medians over seeds, and paired differences of results to the whole filter."""
    rows = []
    for searcher, own in runs.groupby("searcher", sort=False):
        whole = own[own["variant"] == WHOLE].set_index("seed")["result"]
        rows += [
            _row_of(str(searcher), name, own[own["variant"] == name].set_index("seed"), whole, metric)
            for name in VARIANTS
        ]
    return pd.DataFrame(rows)


def _row_of(searcher: str, variant: str, runs: pd.DataFrame, whole: pd.Series, metric: str) -> dict[str, str]:
    difference = (runs["result"] - whole).to_numpy(dtype=np.float64)
    is_whole = variant == WHOLE
    return {
        "searcher": searcher,
        "variant": variant,
        "proposals": f"{runs['proposals'].median():,.0f}",
        "trained": f"{runs['trained'].median():,.0f}",
        "rejected": f"{runs['rejected'].median():,.0f}",
        "duplicates": f"{runs['duplicates'].median():,.0f}",
        "seconds": f"{runs['seconds'].median():,.1f}",
        f"validation {metric}": f"{runs['result'].median():.4f}",
        "mean difference": "" if is_whole else f"{difference.mean():+.4f}",
        "from seed to seed": "" if is_whole else f"{difference.min():+.4f} to {difference.max():+.4f}",
    }


def page_of(settings: Ablate, problem: PointwiseProblem, runs: pd.DataFrame) -> Page:
    """What the run came to."""
    measures = {
        "trained": "trained candidates",
        "seconds": "seconds",
        "result": f"validation {problem.metric} at the end",
    }
    title = "What each part of the reward filter is worth"
    figures = []
    for searcher, own in runs.groupby("searcher", sort=False):
        subtitle = f"{searcher}, protocol {settings.protocol}; a dot a seed, a line at the median"
        drawing = plots.ablation(own, measures, title, subtitle)
        figures.append(Figure(f"ablation-{searcher}.png", drawing, f"{title}: {searcher}"))
    how = Note(
        f"Model {settings.model}, protocol {settings.protocol}; {settings.seeds} seeds. No cache helps any "
        "variant. Protocol paper searches alternately, so many rounds, and the result is the recommender's "
        "validation value after the last one; standard searches from scratch with the same number of proposals, "
        "and the result is the best validation value of a loss. Differences are to the whole filter, seed by seed."
    )
    sections = [Section(title, [how, Table(table_of(runs, problem.metric))]), Section("Figures", figures)]
    return Page(f"The reward filter, part by part, on {problem.name}", "", sections)


if __name__ == "__main__":
    sys.exit(main(["ablate", *sys.argv[1:]]))
