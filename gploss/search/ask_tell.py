"""What asks and tells: the part of a searcher that proposes losses, and is told how they did."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from gploss.arguments import instance, shown, whole_number
from gploss.files.plain import JSON, canonical_json
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation
from gploss.search.evaluator import Evaluator, check_evaluator
from gploss.search.reward import BaselineFilter, Reward


class AskTell(ABC):
    """Proposes expressions of a grammar when asked, and learns from evaluations when told.

    A subclass (of `gploss.search.searcher.AskTellSearcher`, which adds the run) sets `name`, fills `_ask`, `_tell`,
    `_state`, `_load_state` (and `_settings` where its constructor takes more), draws all random numbers from
    `self.rng`, or from generators seeded from it, and registers itself in `gploss.search.searcher.SEARCHERS`.
    `ask`, `tell`, `state_dict` and `load_state_dict` check what goes in and out.

    Args:
        grammar: what may be proposed.
        evaluator: screens, looks up and trains the proposals.
        seed: of all random choices of the search; training has a seed of its own, in the evaluator.
        reward_filter: the paper's baseline filter, or None. It changes what the searcher learns from, and
            nothing else: not the rewards in the result, and nothing in the cache.
        proposals_at_once: how many proposals a run asks for at once, and tells the evaluations of together.

    Attributes:
        name: what the searcher is called in results and in the registry.
        grammar: as given.
        evaluator: as given.
        seed: as given, an int.
        reward: what failures are worth, and which way is up.
        reward_filter: as given.
        proposals_at_once: as given, an int.
        rng: the searcher's random numbers; its state is saved and restored by this class.

    Raises:
        TypeError: if an argument is of another kind; the message names it.
        ValueError: if the seed is negative, or there are no proposals.
    """

    name: ClassVar[str]

    def __init__(
        self,
        grammar: Grammar,
        evaluator: Evaluator,
        *,
        seed: int = 0,
        reward_filter: BaselineFilter | None = None,
        proposals_at_once: int = 32,
    ) -> None:
        self.grammar = instance("grammar", grammar, Grammar, "a Grammar, such as Grammar.standard()")
        check_evaluator(evaluator)
        self.evaluator = evaluator
        self.seed = whole_number("seed", seed, least=0)
        if reward_filter is not None:
            instance("reward_filter", reward_filter, BaselineFilter, "a BaselineFilter or None")
        self.reward_filter = reward_filter
        self.proposals_at_once = whole_number("proposals_at_once", proposals_at_once, least=1)
        self.reward = Reward(evaluator.metric, evaluator.higher_is_better)
        self.rng = np.random.default_rng(self.seed)

    # What subclasses fill.

    @abstractmethod
    def _ask(self, n: int) -> list[Expression]:
        """Return n expressions of the grammar, n >= 1."""
        ...

    @abstractmethod
    def _tell(self, evaluations: Sequence[Evaluation], values: Sequence[float]) -> None:
        """Learn from at least one evaluation.

        Args:
            evaluations: in the order of their proposal.
            values: what each of them is worth, higher is better; see `gploss.search.reward.Reward.values`.
        """
        ...

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return everything that later proposals depend on but `self.rng`, as JSON or numpy arrays.

        What becomes longer and longer is a `gploss.files.packed.Grown` array: a checkpoint then writes what is new.
        """
        ...

    @abstractmethod
    def _load_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `_state` returned."""
        ...

    def _new_round(self, start: float) -> None:  # noqa: B027 (most searchers have nothing to forget)
        """Forget what no longer holds where candidates start from a model of this value (higher is better)."""

    def _settings(self) -> dict[str, JSON]:
        """Return the constructor's further arguments, for results, and to tell checkpoints apart."""
        return {}

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
            TypeError: if they are no list of evaluations.
            GrammarError: if one's expression is outside of the grammar.
        """
        if not isinstance(evaluations, list | tuple):
            raise TypeError(f"tell takes a list of evaluations, such as result.records, got {shown(evaluations)}")
        for evaluation in evaluations:
            self.grammar.check(
                instance("each of the evaluations", evaluation, Evaluation, "an Evaluation").expression
            )
        if evaluations:
            self._tell(evaluations, self.reward.values(evaluations, self.reward_filter))

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
            JSON values and arrays, for `load_state_dict` of a searcher made with the same arguments.
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
            "proposals_at_once": self.proposals_at_once,
            "reward_filter": None if self.reward_filter is None else self.reward_filter.describe(),
            "arguments": self._settings(),
            "grammar": {**self.grammar.describe(), "content_hash": self.grammar.content_hash},
            "evaluator": self.evaluator.describe(),
        }
        plain: dict[str, JSON] = json.loads(canonical_json(settings))
        return plain

    @property
    def turned_down(self) -> int:
        """How many rewards the reward filter has turned down so far."""
        return 0 if self.reward_filter is None else self.reward_filter.turned_down
