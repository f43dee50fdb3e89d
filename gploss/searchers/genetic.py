"""Genetic programming over a grammar's trees, on DEAP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from deap import base, tools

from gploss.arguments import instance, real_number, shown, whole_number
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar, GrammarError
from gploss.search.evaluation import Evaluation, Status
from gploss.search.evaluator import Evaluator
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from gploss.searchers.genetic_trees import Tree, TreeVariation, possible_sizes
from gploss.searchers.known_keys import KnownKeys

_TRIES = 20
"""How often an offspring that is not new is mutated on, and then how often a random tree is drawn."""

_HALL_OF_FAME = 10

_FIRST_PARENTS = 0.6
"""Breeding starts when the population has reached this share of its full size: a small budget should not
be spent on random trees."""

_MUTATION_AFTER_CROSSOVER = 0.3
"""Share of the offspring of two parents that are mutated, too."""

_MUTATIONS = {
    "replace_subtree": 3.0,
    "replace_node": 3.0,
    "perturb_constant": 3.0,
    "insert_operator": 2.0,
    "hoist": 1.0,
}
"""Methods of TreeVariation, and how often each is chosen in proportion."""


class Fitness(base.Fitness):  # type: ignore[misc]
    """(value, complexity): more of the first is better; of equals, less of the second."""

    weights = (1.0, -1.0)


class Individual(Tree):
    """A tree with its fitness, never changed after it is made.

    Attributes:
        expression: the same as an expression.
        fitness: DEAP's record of value and complexity.
        key: identifies the canonical expression.
        text: the expression's, as states hold it.
    """

    def __init__(self, nodes: Iterable[Any], expression: Expression, value: float) -> None:
        super().__init__(nodes)
        self.expression = expression
        self.fitness = Fitness((value, float(expression.complexity)))
        self.key = _key(expression)
        self.text = str(expression)

    def __deepcopy__(self, memo: object) -> Individual:
        return self


class GeneticSearcher(AskTellSearcher):
    """A population of trees, varied by crossover and mutation; the best stay.

    The first proposals are the `initial` expressions, then random trees. As soon as the population has 60% of
    its full size, offspring are bred from parents that win tournaments: half of them by crossover of subtrees,
    half by a mutation (another subtree, another node, a changed constant, an operator put in, a part hoisted
    up). Trained offspring join the population, of which the best remain, so that the elite is never lost.

    No formula is proposed twice: an offspring whose canonical expression was proposed or told before is mutated
    until it is new, and after some tries replaced by a random tree. (To breed another one instead would take longer
    and longer, as ever more of what the population can reach in one step is known.) What turns out to be a
    duplicate, rejected or diverged does not join the population.

    Parsimony: a tournament goes to the least complex of those whose value lies within `parsimony` of its best;
    among the survivors, of equal values the less complex one comes first.

    Where the evaluator works in rounds, fitness is the reward less the round's start. A round's survivors are
    proposed again at the beginning of the next one, and live on with the fitness that they get then.

    Args:
        grammar: what may be proposed. Its limits hold for unfolded trees.
        evaluator: screens, looks up and trains the proposals.
        seed: of all random choices.
        reward_filter: the paper's baseline filter, or None.
        proposals_at_once: how many proposals a run asks for at once: those of a generation.
        population_size: the most individuals that survive a generation.
        tournament_size: how many individuals compete to become a parent.
        crossover_rate: share of offspring with two parents.
        parsimony: values this near to each other count as equal in a tournament, in units of the reward.
        initial: expressions to propose first, in their order.

    Attributes:
        population: the living, the best first.
        hall_of_fame: DEAP's record of the ten best.
        pareto_front: DEAP's record of those that none beats in both value and complexity.

    Raises:
        TypeError: if a size is not a whole number.
        ValueError: if a size, rate or tolerance is out of range.
        GrammarError: if an initial expression lies outside of the grammar, or its tree exceeds the limit.

    Example:
        >>> start = [Grammar.standard().parse("square(label - pred)")]
        >>> GeneticSearcher(Grammar.standard(), evaluator, initial=start).run(budget=500)  # doctest: +SKIP
    """

    name: ClassVar[str] = "genetic"

    def __init__(
        self,
        grammar: Grammar,
        evaluator: Evaluator,
        *,
        seed: int = 0,
        reward_filter: BaselineFilter | None = None,
        proposals_at_once: int = 32,
        population_size: int = 50,
        tournament_size: int = 5,
        crossover_rate: float = 0.5,
        parsimony: float = 1e-3,
        initial: Sequence[Expression] = (),
    ) -> None:
        super().__init__(
            grammar, evaluator, seed=seed, reward_filter=reward_filter, proposals_at_once=proposals_at_once
        )
        self.population_size = whole_number("population_size", population_size, least=2)
        self.tournament_size = whole_number("tournament_size", tournament_size, least=1)
        self.crossover_rate = real_number("crossover_rate", crossover_rate, least=0.0, most=1.0)
        self.parsimony = real_number("parsimony", parsimony, least=0.0)
        self.initial = _expressions("initial", initial)
        for expression in self.initial:
            grammar.check(expression)
            if not self._is_tree_of_limited_size(expression):
                raise GrammarError(
                    f"the initial expression {expression} has {expression.tree_size} operators as a tree; "
                    f"genetic programming over the {grammar.name} grammar allows {grammar.max_size}"
                )
        self.population: list[Individual] = []
        self.hall_of_fame = tools.HallOfFame(_HALL_OF_FAME, similar=_same)
        self.pareto_front = tools.ParetoFront(similar=_same)
        self._next_initial = 0
        self._known = KnownKeys()
        self._round_start = 0.0
        self._survivors: list[Expression] = []  # of the last round, to be proposed again
        self._outdated: set[int] = set()  # keys of the living whose fitness is of an earlier round
        self._sizes = possible_sizes(grammar)
        self._variation = TreeVariation(grammar, self.rng, self._sizes)
        self._toolbox = self._make_toolbox()

    def _make_toolbox(self) -> base.Toolbox:
        toolbox = base.Toolbox()
        toolbox.register("select", select_parsimonious, parsimony=self.parsimony)
        toolbox.register("mate", self._variation.crossover)
        toolbox.register("mutate", partial(_mutate, self._variation))
        toolbox.register("survive", tools.selBest, k=self.population_size)
        return toolbox

    def _settings(self) -> dict[str, JSON]:
        return {
            "population_size": self.population_size,
            "tournament_size": self.tournament_size,
            "crossover_rate": self.crossover_rate,
            "parsimony": self.parsimony,
            "initial": [str(expression) for expression in self.initial],
        }

    def _ask(self, n: int) -> list[Expression]:
        self._variation.reseed()
        proposals: list[Expression] = []
        for _ in range(n):
            proposal = self._propose()
            self._known.add(_key(proposal))
            proposals.append(proposal)
        return proposals

    def _new_round(self, start: float) -> None:
        self._round_start = start
        self._survivors = [individual.expression for individual in self.population]
        self._outdated = {individual.key for individual in self.population}

    def _propose(self) -> Expression:
        if self._survivors:
            return self._survivors.pop(0)
        while self._next_initial < len(self.initial):
            expression = self.initial[self._next_initial]
            self._next_initial += 1
            if _key(expression) not in self._known:
                return expression
        if len(self.population) >= max(2, round(_FIRST_PARENTS * self.population_size)):
            offspring = self._new_offspring()
            if offspring is not None:
                return offspring
        return self._random_expression()

    def _new_offspring(self) -> Expression | None:
        """Return an offspring that is new; one that is not is varied on, a step a time. None after some tries."""
        tree = self._breed()
        for _ in range(_TRIES):
            if not self._variation.within_limits(tree):
                tree = self._breed()
                continue
            expression = self._variation.expression(tree)
            if _key(expression) not in self._known:
                return expression
            tree = self._toolbox.mutate(tree)
        return None

    def _breed(self) -> Tree:
        """Return one offspring, which may break the grammar's limits."""
        tree: Tree = self._parent()
        chance = self._variation.chance
        if chance.random() >= self.crossover_rate:
            tree = self._toolbox.mutate(tree)
            return tree
        tree = self._toolbox.mate(tree, self._parent())
        if chance.random() < _MUTATION_AFTER_CROSSOVER and self._variation.within_limits(tree):
            tree = self._toolbox.mutate(tree)
        return tree

    def _parent(self) -> Tree:
        """Return a copy of the winner of a tournament."""
        competitors = self._variation.chance.choices(self.population, k=self.tournament_size)
        return Tree(self._toolbox.select(competitors))

    def _random_expression(self) -> Expression:
        """Draw a random tree, a new one if there seem to be any left."""
        for _ in range(_TRIES):
            expression = self.grammar.sample(self.rng, self._variation.chance.choice(self._sizes))
            if _key(expression) not in self._known:
                break
        return expression

    def _tell(self, evaluations: Sequence[Evaluation], values: Sequence[float]) -> None:
        again = {_key(evaluation.expression) for evaluation in evaluations} & self._outdated
        self._outdated -= again
        self.population = [individual for individual in self.population if individual.key not in again]
        living = {individual.key for individual in self.population}
        born: list[Individual] = []
        for evaluation, value in zip(evaluations, values, strict=True):
            key = _key(evaluation.expression)
            self._known.add(key)
            fit = evaluation.status is Status.TRAINED and self._is_tree_of_limited_size(evaluation.expression)
            if fit and key not in living:
                born.append(self._individual(evaluation.expression, value - self._round_start))
                living.add(key)
        if born:
            self.hall_of_fame.update(born)
            self.pareto_front.update(born)
            self.population = self._toolbox.survive(self.population + born)

    def _is_tree_of_limited_size(self, expression: Expression) -> bool:
        """Whether its unfolded tree is small enough; a graph of few nodes may unfold to thousands."""
        return expression.tree_size <= self.grammar.max_size

    def _individual(self, expression: Expression, value: float) -> Individual:
        return Individual(self._variation.tree(expression), expression, value)

    def _state(self) -> dict[str, Any]:
        return {
            "population": self._described(self.population),
            "hall_of_fame": self._described(self.hall_of_fame),
            "pareto_front": self._described(self.pareto_front),
            "known": self._known.grown(),
            "next_initial": self._next_initial,
            "round_start": self._round_start,
            "survivors": [str(expression) for expression in self._survivors],
            "outdated": np.array(sorted(self._outdated), dtype=np.uint64),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.population = self._restored(state["population"])
        for record, individuals in (
            (self.hall_of_fame, self._restored(state["hall_of_fame"])),
            (self.pareto_front, self._restored(state["pareto_front"])),
        ):
            record.clear()
            # Of equals DEAP puts the later one first: the last one first gives the order of before.
            for individual in reversed(individuals):
                record.insert(individual)
        self._known = KnownKeys(state["known"].array)
        self._next_initial = int(state["next_initial"])
        self._round_start = float(state["round_start"])
        self._survivors = [Expression.parse(text) for text in state["survivors"]]
        self._outdated = {int(key) for key in state["outdated"]}

    def _described(self, individuals: Iterable[Individual]) -> list[list[str | float]]:
        return [[individual.text, individual.fitness.values[0]] for individual in individuals]

    def _restored(self, described: Iterable[tuple[str, float]]) -> list[Individual]:
        return [self._individual(Expression.parse(text), value) for text, value in described]


def select_parsimonious(competitors: Sequence[Individual], parsimony: float) -> Individual:
    """Hold a tournament: the least complex of those whose value is near the best one's wins.

    Args:
        competitors: at least one.
        parsimony: what counts as near, in units of the value.
    """
    enough = max(competitor.fitness.values[0] for competitor in competitors) - parsimony
    near = [competitor for competitor in competitors if competitor.fitness.values[0] >= enough]
    return min(near, key=lambda competitor: (competitor.fitness.values[1], -competitor.fitness.values[0]))


def _mutate(variation: TreeVariation, tree: Tree) -> Tree:
    (name,) = variation.chance.choices(list(_MUTATIONS), list(_MUTATIONS.values()))
    mutated: Tree = getattr(variation, name)(tree)
    return mutated


def _same(first: Individual, second: Individual) -> bool:
    return first.key == second.key


def _expressions(name: str, value: object) -> tuple[Expression, ...]:
    """Return an argument that is a list of expressions as a tuple.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, Expression):
        raise TypeError(f"{name} must be a list of expressions, got a single one: write {name}=[{shown(value)}]")
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of expressions, got {shown(value)}")
    expected = "an Expression, such as grammar.parse(text) returns"
    return tuple(instance(f"each of {name}", expression, Expression, expected) for expression in value)


def _key(expression: Expression) -> int:
    """64 bits that stand for the canonical expression."""
    return int.from_bytes(expression.canonical().digest[:8], "big")


SEARCHERS.register(GeneticSearcher.name, GeneticSearcher)
