"""Searchers: what proposes losses, is told how they did, and runs until a budget is spent.

`Searcher.run` is all that searchers share. `AskTellSearcher` gives a run to everything that can propose
expressions of a grammar and learn from `gploss.search.evaluation.Evaluation` records; its subclasses fill `_ask`,
`_tell`, `_state` and `_load_state`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gploss.files.plain import JSON, canonical_json
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.registry import Registry
from gploss.search.budget import Budget
from gploss.search.checkpoint import Checkpoint
from gploss.search.evaluation import Evaluation
from gploss.search.evaluator import Evaluator
from gploss.search.interruption import Interruption
from gploss.search.progress import open_display
from gploss.search.record import Progress
from gploss.search.result import SearchResult
from gploss.search.reward import BaselineFilter, Reward
from gploss.search.run import Callback, SearchRun, StopSearch

__all__ = [
    "SEARCHERS",
    "AskTellSearcher",
    "Budget",
    "Callback",
    "Progress",
    "SearchResult",
    "Searcher",
    "StopSearch",
]


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
            callbacks: called in order after each round; one may raise StopSearch to end the run.
            checkpoint: a file that the run's state is saved to after each round. If it exists, the run in it
                goes on from there, and ends as if it had never stopped (wall-clock times aside).
            progress: whether to show how the run goes, on the standard error stream.

        Returns:
            The result, also where the run was interrupted.
        """
        ...


class AskTellSearcher(Searcher):
    """A searcher that proposes expressions when asked, and learns from evaluations when told.

    A subclass sets `name`, fills `_ask`, `_tell`, `_state`, `_load_state` (and `_settings` where its
    constructor takes more), draws all random numbers from `self.rng`, or from generators seeded from it, and
    registers itself in `SEARCHERS`. `ask`, `tell`, `state_dict` and `load_state_dict` check what goes in and out.

    Args:
        grammar: what may be proposed.
        evaluator: screens, looks up and trains the proposals.
        seed: of all random choices of the search; training has a seed of its own, in the evaluator.
        reward_filter: the paper's baseline filter, or None. It changes what the searcher learns from, and
            nothing else: not the rewards in the result, and nothing in the cache.

    Attributes:
        grammar: as given.
        evaluator: as given.
        seed: as given, an int.
        reward: what failures are worth, and which way is up.
        reward_filter: as given.
        rng: the searcher's random numbers; its state is saved and restored by this class.
        proposals_per_round: how many proposals `run` asks for at once.

    Raises:
        TypeError: if the seed is not a whole number.
        ValueError: if it is negative.

    Example:
        >>> searcher = RandomSearcher(Grammar.standard(), evaluator, seed=0)  # doctest: +SKIP
        >>> searcher.tell(evaluator.evaluate(searcher.ask(8), seen={}, limit=8))  # doctest: +SKIP
    """

    proposals_per_round: int = 32

    def __init__(
        self,
        grammar: Grammar,
        evaluator: Evaluator,
        *,
        seed: int = 0,
        reward_filter: BaselineFilter | None = None,
    ) -> None:
        self.grammar = grammar
        self.evaluator = evaluator
        self.seed = whole_number("seed", seed, least=0)
        self.reward_filter = reward_filter
        self.reward = Reward(evaluator.metric, evaluator.higher_is_better)
        self.rng = np.random.default_rng(self.seed)
        self._values: dict[int, float] = {}

    # What subclasses fill.

    @abstractmethod
    def _ask(self, n: int) -> list[Expression]:
        """Return n expressions of the grammar, n >= 1."""
        ...

    @abstractmethod
    def _tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from at least one evaluation; what each is worth is `self.value(evaluation)`."""
        ...

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return everything that later proposals depend on but `self.rng`, as JSON or numpy arrays."""
        ...

    @abstractmethod
    def _load_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `_state` returned."""
        ...

    def _new_round(self, start: float) -> None:
        """Forget what no longer holds where candidates start from a model of this value (higher is better)."""

    def _settings(self) -> dict[str, JSON]:
        """Return the constructor's further arguments, for results, and to tell checkpoints apart."""
        return {}

    def value(self, evaluation: Evaluation) -> float:
        """Return what an evaluation is worth to the search: higher is better.

        Failures have the value that `reward` gives them, but never more than a loss that the reward filter turns
        down: otherwise a search would learn to fail. Within `_tell` the reward filter has been applied, once to
        each evaluation that has a reward.
        """
        filtered = self._values.get(id(evaluation))
        if filtered is not None:
            return filtered
        value = self.reward.value(evaluation)
        if evaluation.reward is None and self.reward_filter is not None:
            return min(value, self.reward_filter.turned_down_value)
        return value

    # What everybody may call.

    def ask(self, n: int) -> list[Expression]:
        """Propose expressions.

        Args:
            n: how many.

        Returns:
            n expressions, every one inside of the grammar.

        Raises:
            TypeError: if n is not a whole number.
            ValueError: if n is less than 1.
            GrammarError: if the searcher proposed something outside of its grammar.
            RuntimeError: if it did not return n expressions.
        """
        n = whole_number("n", n, least=1)
        proposals = self._ask(n)
        if len(proposals) != n or not all(isinstance(proposal, Expression) for proposal in proposals):
            raise RuntimeError(f"the {self.name} searcher was asked for {n} expressions and gave {proposals!r}")
        for proposal in proposals:
            self.grammar.check(proposal)
        return proposals

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn from evaluations, asked for or not (known losses, another run's records).

        Args:
            evaluations: in the order in which they were proposed; none is fine.

        Raises:
            TypeError: if one is not an Evaluation.
            GrammarError: if one's expression is outside of the grammar.
        """
        for evaluation in evaluations:
            if not isinstance(evaluation, Evaluation):
                raise TypeError(f"tell takes evaluations, got {evaluation!r}")
            self.grammar.check(evaluation.expression)
        if not evaluations:
            return
        self._values = self._filtered(evaluations)
        try:
            self._tell(evaluations)
        finally:
            self._values = {}

    def new_round(self, start: float) -> None:
        """Take note that candidates start from somewhere else now, so that earlier rewards no longer compare.

        The reward filter's baseline starts anew. A run calls this where its evaluator works in rounds.

        Args:
            start: the metric of what candidates start from.
        """
        value = start if self.evaluator.higher_is_better else -start
        if self.reward_filter is not None:
            self.reward_filter.restart(value)
        self._new_round(value)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later proposals depend on, random numbers included.

        Returns:
            JSON values and numpy arrays, for `load_state_dict` of a searcher made with the same arguments.
        """
        return {
            "searcher": self.name,
            "grammar": self.grammar.content_hash,
            "rng": self.rng.bit_generator.state,
            "reward_filter": None if self.reward_filter is None else self.reward_filter.state_dict(),
            "state": self._state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` returned: later proposals are the same as then.

        Raises:
            ValueError: if the state belongs to another searcher or grammar.
        """
        for name, own in (("searcher", self.name), ("grammar", self.grammar.content_hash)):
            if state.get(name) != own:
                raise ValueError(f"this state has {name} {state.get(name)!r}, the searcher has {own!r}")
        if (state["reward_filter"] is None) != (self.reward_filter is None):
            raise ValueError("this state is of a searcher with a reward filter, or the searcher has one: not both")
        if self.reward_filter is not None:
            self.reward_filter.load_state_dict(state["reward_filter"])
        self.rng.bit_generator.state = state["rng"]
        self._load_state(state["state"])

    def settings(self) -> dict[str, JSON]:
        """Return what decides the course of a run but the budget; checkpoints with other settings are refused."""
        settings: dict[str, JSON] = {
            "searcher": self.name,
            "seed": self.seed,
            "proposals_per_round": self.proposals_per_round,
            "reward_filter": None if self.reward_filter is None else self.reward_filter.describe(),
            "arguments": self._settings(),
            "grammar": {**asdict(self.grammar), "content_hash": self.grammar.content_hash},
            "evaluator": self.evaluator.describe(),
        }
        plain: dict[str, JSON] = json.loads(canonical_json(settings))
        return plain

    @property
    def turned_down(self) -> int:
        """How many rewards the reward filter has turned down so far."""
        return 0 if self.reward_filter is None else self.reward_filter.turned_down

    def run(
        self,
        budget: int | Budget,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> SearchResult:
        """Ask, evaluate and tell until the budget is spent, or too few proposals are new.

        With a budget of N candidates exactly N are charged. Proposals that are duplicates or rejected are
        not; after 100 proposals for each candidate of the budget the run ends as "exhausted".

        Ctrl-C ends the run as "interrupted", with a complete result of all rounds before; a second Ctrl-C
        raises KeyboardInterrupt at once. A later run of the same object has a record of its own, and goes on from
        what the searcher has learnt.

        Args:
            budget: what the run may spend; a number means candidates.
            callbacks: called in order after each round with the searcher, the new evaluations and a `Progress`;
                one may raise StopSearch to end the run as "interrupted".
            checkpoint: a file that the run's state is saved to after each round. If it exists, the run in it
                goes on from there, also where it had spent a smaller budget, and ends as if it had never stopped
                (wall-clock times, and what the cache served, aside). A finished one is returned at once.
            progress: whether to show how the run goes, on the standard error stream.

        Returns:
            The result.

        Raises:
            TypeError: if the budget is neither a number nor a Budget.
            ValueError: if it is less than one candidate costs, or than the checkpoint's run has spent.
            CheckpointError: if the checkpoint is damaged or foreign, or of a run with other settings; the message
                lists the differences.
            RuntimeError: if the evaluator or the searcher breaks its contract.
        """
        budget = Budget.of(budget)
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            file = None if checkpoint is None else stack.enter_context(Checkpoint(Path(checkpoint)))
            run = SearchRun(self, budget, file)
            title = f"{self.name} search, seed {self.seed}"
            display = stack.enter_context(open_display(title, self.evaluator.metric, enabled=progress))
            return run.go(callbacks, display, interruption)

    def _filtered(self, evaluations: Sequence[Evaluation]) -> dict[int, float]:
        """Pass rewards through the filter, in their order: values by the evaluations' identity."""
        if self.reward_filter is None:
            return {}
        return {
            id(evaluation): self.reward_filter(self.reward.value(evaluation))
            for evaluation in evaluations
            if evaluation.reward is not None
        }


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return an argument as an int; numpy's integers are fine.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is less than the least.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


SEARCHERS: Registry[type[AskTellSearcher]] = Registry("searcher")
"""The searchers by name; `gploss.registry.discover("gploss.searchers")` fills in this package's own."""
