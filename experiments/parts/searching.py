"""Trainers, searchers and runs of them, side by side."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from experiments.command.folder import FolderError, Interrupted, RunFolder
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.registry import discover
from gploss.search.budget import Budget
from gploss.search.evaluator import Evaluator
from gploss.search.result import SearchResult
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from recmodels.models.base import MODELS, initialised
from recmodels.training.choice import choose_trainer
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.trainer import Trainer

for _package in ("gploss.searchers", "rl", "recmodels.models"):
    discover(_package)

#: Seeds of searches, of rankings and of tests never meet.
RANKING_REPLICATE: Final = 2_000_000
TEST_REPLICATE: Final = 3_000_000

#: Seconds that a search waits for a worker of a killed run to be gone.
_PATIENCE: Final = 10.0


def make_trainer(model_name: str, protocol: Protocol, device: str) -> Trainer:
    """Return what trains a model under a protocol.

    Args:
        model_name: as registered in `MODELS`.
        protocol: how to train.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    return choose_trainer(initialised(MODELS[model_name], protocol.initialization), protocol, device=device)


def grammar_of(protocol: Protocol) -> Grammar:
    """Return the protocol's own grammar."""
    return Grammar.paper() if protocol.name == "paper" else Grammar.standard()


def is_standard(protocol: Protocol) -> bool:
    """Return whether a protocol is the default one, under which losses can be tuned and confirmed."""
    return protocol.name == STANDARD.name


def make_searcher(
    name: str,
    grammar: Grammar,
    evaluator: Evaluator,
    seed: int,
    *,
    begin_with: Sequence[Expression] = (),
    **options: Any,
) -> AskTellSearcher:
    """Return a searcher.

    Args:
        name: as registered in `SEARCHERS`.
        grammar: what may be proposed.
        evaluator: of the proposals.
        seed: of the searcher.
        begin_with: losses that it starts from: as its `initial` ones, if it takes such, else it is told them.
        options: what it is made with; those that this searcher does not take are left out.
    """
    kind = SEARCHERS[name]
    taken = inspect.signature(kind).parameters
    options = {option: value for option, value in options.items() if option in taken}
    if begin_with and "initial" in taken:
        options["initial"] = begin_with
    searcher = kind(grammar, evaluator, seed=seed, **options)
    if begin_with and "initial" not in taken:
        searcher.tell(evaluator.evaluate(begin_with, {}, len(begin_with)))
    return searcher


def search_file(folder: RunFolder, name: str) -> Path:
    """Return where a search keeps its state; its result and its lock go beside it."""
    folder.file(f"runs/{name}.json")
    folder.file(f"runs/{name}.lock")
    return folder.file(f"runs/{name}.sqlite")


def finish(searcher: AskTellSearcher, budget: int | Budget, checkpoint: Path) -> SearchResult:
    """Run a search to its end, or go on with the one in the file; save its result beside it.

    Raises:
        FolderError: another process writes to the file.
        Interrupted: Ctrl-C ended it.
    """
    try:
        with FileLock(checkpoint.with_suffix(".lock"), timeout=_PATIENCE):
            result = searcher.run(budget, checkpoint=checkpoint)
            result.save(checkpoint.with_suffix(".json"))
    except Timeout as error:
        raise FolderError(f"{checkpoint} is written by another process: wait for its end, or end it") from error
    if result.stopped == "interrupted":
        raise Interrupted(f"interrupted in {checkpoint.stem}")
    return result
