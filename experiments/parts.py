"""What the experiments share: which trainer trains a model, the protocols' grammars and long runs, known losses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from joblib import Parallel, cpu_count, delayed

from experiments.command import options
from experiments.command.folder import Interrupted, RunFolder
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.parsing import ExpressionError
from gploss.registry import discover
from gploss.report import plots
from gploss.screening.screening import screen
from gploss.search.budget import Budget
from gploss.search.evaluator import Evaluator
from gploss.search.result import SearchResult
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from gploss.searchers.genetic import GeneticSearcher
from gploss.searchers.random_search import RandomSearcher
from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Split
from recmodels.datasets import load_dataset
from recmodels.evaluators.alternating import AlternatingEvaluator
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.base import MODELS, initialised
from recmodels.training.choice import choose_trainer
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.trainer import Trainer
from rl.searcher import RLSearcher

for _package in ("gploss.searchers", "rl", "recmodels.models"):
    discover(_package)

T = TypeVar("T")

#: Test AUC that AutoLossGen's authors' code gives on MovieLens 100K (their own split, MF, one seed): at the epoch
#: with the best validation AUC, after at most 300 epochs, stopping after 100 without a better one. Their hinge is
#: torch's HingeEmbeddingLoss on the score.
AUTHORS: Final = {
    "maxr": 0.677,
    "sumr": 0.652,
    "hinge_embedding": 0.626,
    "logmin": 0.593,
    "bce": 0.565,
    "focal": 0.553,
    "mse": 0.507,
}

#: Seeds of searches, of rankings and of tests never meet.
RANKING_REPLICATE: Final = 2_000_000
TEST_REPLICATE: Final = 3_000_000

_STANDARD_EPOCHS, _PAPER_EPOCHS = 30, 300


def make_trainer(model_name: str, protocol: Protocol, device: str) -> Trainer:
    """Return what trains a model under a protocol.

    Args:
        model_name: as registered in `MODELS`.
        protocol: how to train.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    return choose_trainer(initialised(MODELS[model_name], protocol.initialization), protocol, device=device)


def load_data(settings: options.DataSettings) -> Split:
    """Return the data that are asked for, in three parts.

    Raises:
        ValueError: an option is not for this dataset, or the data cannot be used.
    """
    return load_one(settings.dataset, settings)


def load_one(dataset: str, table: options.TableSettings) -> Split:
    """Return a dataset as options about tables say.

    Raises:
        ValueError: an option is not for this dataset, or the data cannot be used.
    """
    given = {
        "user": table.user,
        "item": table.item,
        "rating": table.rating,
        "label": table.label,
        "timestamp": table.time,
        "positive_from": table.positive_from,
        "separator": "\t" if table.separator == "tab" else table.separator,
        "header": False if table.no_header else None,
        "on_duplicates": "last" if table.on_duplicates == "last" else None,
        "split": table.split,
    }
    try:
        return load_dataset(dataset, **{name: value for name, value in given.items() if value is not None})
    except TypeError as error:
        raise ValueError(str(error)) from error


def search_file(folder: RunFolder, name: str) -> Path:
    """Return where a search keeps its state; its result goes beside it."""
    folder.file(f"runs/{name}.json")
    return folder.file(f"runs/{name}.sqlite")


def finish(searcher: AskTellSearcher, budget: int | Budget, checkpoint: Path) -> SearchResult:
    """Run a search to its end, or go on with the one in the file; save its result beside it.

    Raises:
        Interrupted: Ctrl-C ended it.
    """
    result = searcher.run(budget, checkpoint=checkpoint)
    result.save(checkpoint.with_suffix(".json"))
    if result.stopped == "interrupted":
        raise Interrupted(f"interrupted in {checkpoint.stem}")
    return result


def default_jobs(device: str, seeds: int) -> int:
    """Return how many seeds run at the same time: as many as cores, but on a GPU one after the other."""
    return 1 if device.startswith("cuda") else min(seeds, cpu_count())


def side_by_side(run: Callable[..., T], arguments: Iterable[tuple[Any, ...]], jobs: int) -> list[T]:
    """Return what a function returns for each tuple of arguments, in their order; `jobs` of them run at a time."""
    calls = (delayed(_plainly if jobs > 1 else _as_it_is)(run, *own) for own in arguments)
    return list(Parallel(n_jobs=jobs)(calls))


def _plainly(run: Callable[..., T], *arguments: Any) -> T:
    os.environ["TTY_COMPATIBLE"] = "0"  # several live displays cannot share a terminal: plain lines
    return run(*arguments)


def _as_it_is(run: Callable[..., T], *arguments: Any) -> T:
    return run(*arguments)


def grammar_of(protocol: Protocol) -> Grammar:
    """Return the protocol's own grammar."""
    return Grammar.paper() if protocol.name == "paper" else Grammar.standard()


def long_protocol(protocol: Protocol) -> Protocol:
    """Return the protocol of training from scratch to the end: "paper" has its regulariser in the loss as well."""
    return replace(protocol, loss_decay=1e-4) if protocol.name == "paper" else protocol


def long_epochs(protocol: Protocol) -> int:
    """Return how long training from scratch may last; the protocol's patience ends it earlier."""
    return _PAPER_EPOCHS if protocol.name == "paper" else _STANDARD_EPOCHS


def read_losses(path: Path) -> list[NamedLoss]:
    """Read losses from a text file: a line a formula or known name, which may begin with ``name:``.

    Empty lines and what follows a ``#`` do not count.

    Raises:
        ValueError: a line cannot be read; the message names it.
    """
    losses = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, colon, formula = text.partition(":")
        formula = formula.strip() if colon else text
        try:
            expression = LOSSES[formula].expression if formula in LOSSES else Expression.parse(formula)
        except ExpressionError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        losses.append(NamedLoss(name.strip() if colon or formula in LOSSES else f"loss {number}", expression))
    if not losses:
        raise ValueError(f"{path} holds no loss: write one formula a line")
    return losses


def published() -> list[NamedLoss]:
    """Return the seven losses that AutoLossGen's authors compare."""
    return [LOSSES[name] for name in AUTHORS]


def alternating(
    inner: LossEvaluator, step_trainer: Trainer, rounds: int | None = None, samples: int = 100
) -> AlternatingEvaluator:
    """Return phase 1's evaluator: as many fresh samples as a round has are tried where none of these will do."""
    return AlternatingEvaluator(
        inner, step_trainer=step_trainer, samples_per_round=samples, fresh_samples=samples, rounds=rounds
    )


def alternating_searcher(
    name: str, grammar: Grammar, evaluator: AlternatingEvaluator, seed: int, *, reward_filter: bool | None = None
) -> AskTellSearcher:
    """Return a searcher whose batches fit into rounds.

    Args:
        name: "rl" (10 proposals at a time, one update), "genetic" (30 survivors) or "random".
        grammar: what may be proposed.
        evaluator: alternating.
        seed: of the searcher.
        reward_filter: whether rewards below the baseline count as -1; by default for "rl" only, since a population
            ranks its members, and needs no baseline.
    """
    use_filter = name == "rl" if reward_filter is None else reward_filter
    baseline = BaselineFilter(start=evaluator.start_value) if use_filter else None
    at_once = 10 if name == "rl" else min(50, evaluator.samples_per_round)
    options: dict[str, Any] = {"seed": seed, "reward_filter": baseline, "proposals_at_once": at_once}
    if name == "genetic":
        return GeneticSearcher(grammar, evaluator, population_size=30, **options)
    return SEARCHERS[name](grammar, evaluator, **options)


def plain_searcher(name: str, grammar: Grammar, evaluator: Evaluator, seed: int, **options: Any) -> AskTellSearcher:
    """Return a searcher with its defaults, but for the options that all searchers share."""
    return SEARCHERS[name](grammar, evaluator, seed=seed, **options)


def searcher_names() -> list[str]:
    """Return the searchers that there are."""
    return [RLSearcher.name, GeneticSearcher.name, RandomSearcher.name]


def loss_curves(losses: Sequence[NamedLoss], scale_free: bool) -> dict[str, plots.Curves]:
    """Value and gradient of losses, as trained, against the score, for `gploss.report.plots.loss_curves`."""
    scores = np.linspace(-6, 6, 241)
    curves: dict[str, plots.Curves] = {}
    for loss in losses:
        program = screen([loss.expression], scale_free=scale_free).program
        (ones, ones_gradients), (zeros, zeros_gradients) = (
            program.losses({"score": scores, "label": np.full_like(scores, label)}) for label in (1.0, 0.0)
        )
        name = loss.name if loss.name in LOSSES else f"{loss.name}: {loss.expression}"
        curves[name] = (scores, ones[0], zeros[0], ones_gradients["score"][0], zeros_gradients["score"][0])
    return curves


def is_standard(protocol: Protocol) -> bool:
    """Return whether a protocol is the default one, under which losses can be tuned and confirmed."""
    return protocol.name == STANDARD.name
