"""The controller must learn: on a reward that random search cannot reach, it does so within 20,000 proposals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.search.evaluation import Evaluation, Status
from gploss.search.searcher import AskTellSearcher
from gploss.searchers.random_search import RandomSearcher
from rl.searcher import RLSearcher
from tests.synthetic import SyntheticEvaluator

PROPOSALS = 20_000
GRAMMAR = Grammar.paper()


def reward(expression: Expression) -> float:
    """How much of the largest formula allowed is made of products: a needle for chance, a slope for a learner."""
    return sum(node.head == "mul" for node in expression.nodes()) / GRAMMAR.max_size


def told(proposals: Sequence[Expression]) -> list[Evaluation]:
    return [Evaluation(proposal, Status.TRAINED, reward=reward(proposal)) for proposal in proposals]


def best_of(searcher: AskTellSearcher, proposals: int, enough: float = 1.0) -> float:
    """Best reward within some proposals; ends early once it is more than enough."""
    best = 0.0
    for _ in range(proposals // 100):
        evaluations = told(searcher.ask(100))
        best = max(best, *(evaluation.reward or 0.0 for evaluation in evaluations))
        if best > enough:
            break
        searcher.tell(evaluations)
    return best


def test_beats_random_search_within_20_000_proposals() -> None:
    evaluator = SyntheticEvaluator()
    gains = []
    for seed in range(3):
        random = best_of(RandomSearcher(GRAMMAR, evaluator, seed=seed), PROPOSALS)
        learnt = best_of(RLSearcher(GRAMMAR, evaluator, seed=seed), PROPOSALS, enough=random)
        gains.append(learnt - random)
    assert median(gains) > 0
