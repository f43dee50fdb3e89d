"""Searchers: what finds losses within a budget, and their registry.

`Searcher.run` is all that searchers share. `AskTellSearcher` gives a run to everything that can propose expressions
of a grammar and learn from `gploss.search.evaluation.Evaluation` records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike
from typing import ClassVar

from gploss.arguments import functions
from gploss.registry import Registry
from gploss.search.ask_tell import AskTell
from gploss.search.budget import Budget
from gploss.search.checkpoint import Checkpoint
from gploss.search.interruption import Interruption
from gploss.search.progress import open_display
from gploss.search.result import SearchResult
from gploss.search.run import Callback, SearchRun


class Searcher(ABC):
    """Something that finds good losses within a budget.

    Attributes:
        name: what the searcher is called in `SEARCHERS` and in results.
    """

    name: ClassVar[str]

    @abstractmethod
    def run(
        self,
        budget: int | Budget,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> SearchResult:
        """Search until the budget is spent.

        Args:
            budget: what the run may spend; a number means candidates.
            callbacks: called in order after each turn; one may raise `gploss.search.run.StopSearch` to end the run.
            checkpoint: a file that the run's state is saved to after each turn. If it exists, the run in it
                goes on from there, and ends as if it had never stopped (wall-clock times aside).
            progress: whether to show how the run goes, on the standard error stream.

        Returns:
            The result, also where the run was interrupted.
        """
        ...


class AskTellSearcher(AskTell, Searcher):
    """A searcher that proposes expressions when asked, and learns from evaluations when told.

    This is what to make a searcher of: `gploss.search.ask_tell.AskTell` says what a subclass fills.

    Example:
        >>> searcher = RandomSearcher(Grammar.standard(), evaluator, seed=0)  # doctest: +SKIP
        >>> searcher.tell(evaluator.evaluate(searcher.ask(8), seen={}, limit=8))  # doctest: +SKIP
    """

    def run(
        self,
        budget: int | Budget,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> SearchResult:
        """Ask, evaluate and tell, turn by turn, until the budget is spent or too few proposals are new.

        With a budget of N candidates exactly N are charged. Proposals that are duplicates or rejected are
        not; after 100 proposals for each candidate of the budget the run ends as "exhausted".

        Ctrl-C ends the run as "interrupted", with a complete result of all turns before; a second Ctrl-C
        raises KeyboardInterrupt at once. A later run of the same object has a record of its own, and goes on from
        what the searcher has learnt.

        Args:
            budget: what the run may spend; a number means candidates.
            callbacks: called in order after each turn with the searcher, the new evaluations and a
                `gploss.search.record.Progress`; one may raise StopSearch to end the run as "interrupted".
            checkpoint: a file that the run's state is saved to after each turn. If it exists, the run in it
                goes on from there, also where it had spent a smaller budget, and ends as if it had never stopped
                (wall-clock times, and what the cache served, aside). A finished one is returned at once.
            progress: whether to show how the run goes, on the standard error stream.

        Returns:
            The result.

        Raises:
            TypeError: if the budget is neither a number nor a Budget, or another argument of another kind.
            ValueError: if it is less than one candidate costs, or than the checkpoint's run has spent.
            CheckpointError: if the checkpoint is damaged or foreign, or of a run with other settings; the message
                lists the differences.
            RuntimeError: if the evaluator or the searcher breaks its contract.

        Whatever a callback, a model or the searcher raises during the run comes through as it is, and carries the
        result of all before it as its attribute `search_result`.
        """
        budget = Budget.of(budget)
        budget.most_proposals(self.evaluator.epochs)
        calls = functions("callbacks", callbacks)
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            file = None if checkpoint is None else stack.enter_context(Checkpoint(checkpoint))
            run = SearchRun(self, budget, file)
            title = f"{self.name} search, seed {self.seed}"
            display = stack.enter_context(open_display(title, self.evaluator.metric, enabled=progress))
            return run.go(calls, display, interruption)


SEARCHERS: Registry[type[AskTellSearcher]] = Registry("searcher", module=__name__)
"""The searchers by name; `gploss.registry.discover("gploss.searchers")` fills in this package's own."""
