"""Random search: the baseline that every other searcher has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation
from gploss.search.evaluator import Evaluator
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from gploss.searchers.genetic_trees import possible_sizes


class RandomSearcher(AskTellSearcher):
    """Draws a size uniformly from 1 to the grammar's limit, then a tree uniformly among those of that size.

    It learns nothing from what it is told.

    Args:
        grammar: what may be proposed.
        evaluator: screens, looks up and trains the proposals.
        seed: of the draws.
        reward_filter: without effect here but on the counts; taken so that all searchers are made alike.
        proposals_at_once: how many proposals a run asks for at once.

    Raises:
        GrammarError: if the grammar has no tree of any size.

    Example:
        >>> result = RandomSearcher(Grammar.standard(), evaluator).run(budget=500)  # doctest: +SKIP
    """

    name = "random"

    def __init__(
        self,
        grammar: Grammar,
        evaluator: Evaluator,
        *,
        seed: int = 0,
        reward_filter: BaselineFilter | None = None,
        proposals_at_once: int = 32,
    ) -> None:
        super().__init__(
            grammar, evaluator, seed=seed, reward_filter=reward_filter, proposals_at_once=proposals_at_once
        )
        self._sizes = possible_sizes(grammar)

    def _ask(self, n: int) -> list[Expression]:
        sizes = self.rng.choice(self._sizes, n)
        return [self.grammar.sample(self.rng, int(size)) for size in sizes]

    def _tell(self, evaluations: Sequence[Evaluation], values: Sequence[float]) -> None:
        pass

    def _state(self) -> dict[str, Any]:
        return {}

    def _load_state(self, state: dict[str, Any]) -> None:
        pass


SEARCHERS.register(RandomSearcher.name, RandomSearcher)
