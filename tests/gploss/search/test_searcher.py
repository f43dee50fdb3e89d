"""What every searcher has to do: these tests run over the registry, so a new searcher is tested by being there."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar, GrammarError
from gploss.registry import discover
from gploss.search.checkpoint import Checkpoint
from gploss.search.evaluation import Evaluation, Status
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from tests.synthetic import SyntheticEvaluator

discover("gploss.searchers")
if importlib.util.find_spec("rl") is not None:
    importlib.import_module("rl.searcher")

SMALL = Grammar("small", ("add", "mul", "neg", "log"), ("pred", "label", "1"), True, "plain", 4, 3)
UNARY = Grammar("unary", ("neg", "log", "exp"), ("pred", "label"), False, "plain", 5, 3)
GRAMMARS = {"paper": Grammar.paper(), "standard": Grammar.standard(), "small": SMALL}

every_searcher = pytest.mark.parametrize("name", SEARCHERS.names())
every_grammar = pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)


def make(name: str, grammar: Grammar = GRAMMARS["standard"], seed: int = 0) -> AskTellSearcher:
    return SEARCHERS[name](grammar, SyntheticEvaluator(), seed=seed)


def learn(searcher: AskTellSearcher, rounds: int, n: int = 20) -> list[Expression]:
    """Ask and tell some rounds, and return what was proposed."""
    seen: dict[str, Evaluation] = {}
    asked: list[Expression] = []
    for _ in range(rounds):
        proposals = searcher.ask(n)
        evaluations = searcher.evaluator.evaluate(proposals, seen, n)
        for evaluation in evaluations:
            if evaluation.charged and evaluation.fingerprint is not None:
                seen[evaluation.fingerprint] = evaluation
        searcher.tell(evaluations)
        asked += proposals
    return asked


def known_losses(grammar: Grammar) -> list[Evaluation]:
    texts = ["mul(add(label, pred), neg(log(pred)))", "neg(mul(label, log(pred)))", "add(pred, neg(label))"]
    expressions = [grammar.leaf("pred")] + [
        Expression.parse(text).with_semantics(grammar.semantics) for text in texts
    ]
    evaluations = SyntheticEvaluator().evaluate(expressions, {}, len(expressions))
    rejected = Evaluation(grammar.leaf("label"), Status.REJECTED, "zero gradient")
    return [*evaluations, rejected]


@every_searcher
@every_grammar
def test_proposals_stay_within_the_grammar(name: str, grammar: Grammar) -> None:
    for proposal in learn(make(name, grammar), rounds=6):
        grammar.check(proposal)


@every_searcher
def test_a_grammar_whose_depth_rules_out_its_size_is_fine(name: str) -> None:
    for proposal in learn(make(name, UNARY), rounds=2, n=10):
        UNARY.check(proposal)


@every_searcher
@pytest.mark.parametrize("n", [1, 7])
def test_ask_gives_as_many_as_asked_for(name: str, n: int) -> None:
    assert len(make(name).ask(n)) == n


@every_searcher
@every_grammar
def test_the_seed_decides_everything(name: str, grammar: Grammar) -> None:
    first = learn(make(name, grammar, seed=5), rounds=5)
    assert first == learn(make(name, grammar, seed=5), rounds=5)
    assert first != learn(make(name, grammar, seed=6), rounds=5)


@every_searcher
def test_global_random_numbers_are_neither_used_nor_changed(name: str) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what is tested)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index] # noqa: NPY002
    proposals = learn(make(name), rounds=4)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index] # noqa: NPY002
    assert before == after
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    assert learn(make(name), rounds=4) == proposals


@every_searcher
def test_searches_in_threads_are_those_that_run_alone(name: str) -> None:
    seeds = range(4)
    alone = [learn(make(name, seed=seed), rounds=6) for seed in seeds]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: learn(make(name, seed=seed), rounds=6), seeds))
    assert together == alone


@every_searcher
@every_grammar
def test_a_restored_searcher_goes_on_as_if_nothing_had_happened(name: str, grammar: Grammar) -> None:
    original = make(name, grammar)
    learn(original, rounds=5)
    unanswered = original.ask(3)
    with Checkpoint(":memory:") as checkpoint:
        checkpoint.begin({})
        checkpoint.save([], [], original.state_dict())
        saved = checkpoint.load()
    assert saved is not None
    restored = make(name, grammar)
    learn(restored, rounds=1)
    restored.load_state_dict(saved.state)
    evaluations = original.evaluator.evaluate(unanswered, {}, len(unanswered))
    original.tell(evaluations)
    restored.tell(evaluations)
    assert learn(restored, rounds=4) == learn(original, rounds=4)


@every_searcher
def test_a_state_is_a_snapshot(name: str) -> None:
    searcher = make(name)
    learn(searcher, rounds=3)
    state = searcher.state_dict()
    expected = learn(searcher, rounds=3)
    searcher.load_state_dict(state)
    assert learn(searcher, rounds=3) == expected


@every_searcher
def test_a_state_of_another_searcher_or_grammar_is_refused(name: str) -> None:
    state = make(name, GRAMMARS["small"]).state_dict()
    with pytest.raises(ValueError, match="grammar"):
        make(name, GRAMMARS["paper"]).load_state_dict(state)
    with pytest.raises(ValueError, match="searcher"):
        make(name, GRAMMARS["small"]).load_state_dict({**state, "searcher": "another"})


@every_searcher
@every_grammar
def test_evaluations_that_were_never_asked_for_are_welcome(name: str, grammar: Grammar) -> None:
    searcher = make(name, grammar)
    searcher.tell(known_losses(grammar))
    learn(searcher, rounds=3)
    searcher.tell(known_losses(grammar))
    for proposal in learn(searcher, rounds=3):
        grammar.check(proposal)


@every_searcher
def test_telling_nothing_changes_nothing(name: str) -> None:
    told, untold = make(name), make(name)
    told.tell([])
    assert learn(told, rounds=2) == learn(untold, rounds=2)
    told.tell([])
    assert told.ask(10) == untold.ask(10)


@every_searcher
def test_a_reward_filter_is_part_of_the_state(name: str) -> None:
    def filtered() -> AskTellSearcher:
        return SEARCHERS[name](GRAMMARS["small"], SyntheticEvaluator(), reward_filter=BaselineFilter(0.5))

    original = filtered()
    learn(original, rounds=4)
    assert original.turned_down > 0
    restored = filtered()
    restored.load_state_dict(original.state_dict())
    assert restored.turned_down == original.turned_down
    assert learn(restored, rounds=3) == learn(original, rounds=3)
    with pytest.raises(ValueError, match="filter"):
        make(name, GRAMMARS["small"]).load_state_dict(original.state_dict())


@every_searcher
@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_ask_refuses_what_is_no_number_of_proposals(name: str, n: object) -> None:
    with pytest.raises((TypeError, ValueError), match="n must be"):
        make(name).ask(n)  # type: ignore[arg-type]


@every_searcher
@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_seed_is_a_whole_number(name: str, seed: object) -> None:
    with pytest.raises((TypeError, ValueError), match="seed must be"):
        SEARCHERS[name](SMALL, SyntheticEvaluator(), seed=seed)  # type: ignore[arg-type]


@every_searcher
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Grammar.standard, SyntheticEvaluator()), r"grammar must be a Grammar, .*got <bound method"),
        ((SyntheticEvaluator(), SMALL), r"grammar must be a Grammar, .*got <tests\.synthetic"),
        ((SMALL, SMALL), r"evaluator must be .*got Grammar\(.*which has no epochs, metric"),
        ((SMALL, SyntheticEvaluator), r"evaluator must be .*got <class .*which has no epochs"),
        ((SMALL, None), r"evaluator must be .*got None, which has no epochs"),
    ],
)
def test_slips_in_making_a_searcher_are_named(name: str, arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SEARCHERS[name](*arguments)


@every_searcher
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_filter": True}, "reward_filter must be a BaselineFilter or None, got True"),
        ({"reward_filter": BaselineFilter}, "reward_filter must be a BaselineFilter or None, got <class"),
        ({"proposals_at_once": 0}, "proposals_at_once must be at least 1, got 0"),
        ({"proposals_at_once": 8.0}, "proposals_at_once must be a whole number, got 8.0"),
    ],
)
def test_slips_in_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        SEARCHERS[name](SMALL, SyntheticEvaluator(), **options)


@every_searcher
def test_numbers_of_numpy_are_like_those_of_python(name: str) -> None:
    def searcher(whole: Any, real: Any) -> AskTellSearcher:
        reward_filter = BaselineFilter(real(0.5), real(0.75), turned_down_value=real(-2))
        options = {"seed": whole(3), "proposals_at_once": whole(8), "reward_filter": reward_filter}
        return SEARCHERS[name](SMALL, SyntheticEvaluator(), **options)

    of_numpy, plain = searcher(np.int64, np.float32), searcher(int, float)
    assert of_numpy.settings() == plain.settings()
    assert learn(of_numpy, 2) == learn(plain, 2)


@every_searcher
def test_tell_refuses_what_is_no_evaluation_of_the_grammar(name: str) -> None:
    searcher = make(name, SMALL)
    with pytest.raises(TypeError, match=r"each of the evaluations must be an Evaluation, got 0\.5"):
        searcher.tell([0.5])  # type: ignore[list-item]
    with pytest.raises(
        TypeError, match=r"tell takes a list of evaluations, such as result\.records, got Evaluation"
    ):
        searcher.tell(known_losses(SMALL)[0])  # type: ignore[arg-type]
    outside = Evaluation(Expression.parse("exp(pred)"), Status.TRAINED, reward=0.6)
    with pytest.raises(GrammarError, match="exp"):
        searcher.tell([outside])


@every_searcher
def test_settings_are_json_and_tell_runs_apart(name: str) -> None:
    settings = make(name).settings()
    assert settings == make(name).settings()
    assert settings != make(name, seed=1).settings()
    assert settings != make(name, SMALL).settings()


class Fixed(AskTellSearcher):
    """Proposes what it was given."""

    name = "fixed"
    proposals: Sequence[Expression] = ()

    def _ask(self, n: int) -> list[Expression]:
        return list(self.proposals)

    def _tell(self, evaluations: Sequence[Evaluation], values: Sequence[float]) -> None:
        self.values = list(values)

    def _state(self) -> dict[str, object]:
        return {}

    def _load_state(self, state: dict[str, object]) -> None:
        pass


def test_a_proposal_outside_of_the_grammar_is_an_error() -> None:
    searcher = Fixed(SMALL, SyntheticEvaluator())
    searcher.proposals = [Expression.parse("exp(pred)")]
    with pytest.raises(GrammarError, match="exp"):
        searcher.ask(1)


def test_too_few_proposals_are_an_error() -> None:
    searcher = Fixed(SMALL, SyntheticEvaluator())
    searcher.proposals = [Expression.parse("neg(pred)")]
    with pytest.raises(RuntimeError, match="asked for 2"):
        searcher.ask(2)


def evaluations_for_values() -> list[Evaluation]:
    pred = Expression.parse("pred")
    return [
        Evaluation(pred, Status.TRAINED, reward=0.7),
        Evaluation(pred, Status.REJECTED, "zero gradient"),
        Evaluation(pred, Status.DIVERGED, "non-finite"),
        Evaluation(pred, Status.DUPLICATE, reward=0.4, duplicate_of="pred"),
    ]


def test_the_same_evaluation_told_twice_counts_twice() -> None:
    reward_filter = BaselineFilter(0.5, decay=0.9)
    searcher = Fixed(SMALL, SyntheticEvaluator(), reward_filter=reward_filter)
    same = Evaluation(Expression.parse("pred"), Status.TRAINED, reward=0.6)
    searcher.tell([same, same])
    assert searcher.values == [0.6, 0.6]
    assert reward_filter.baseline == pytest.approx(0.5 + 0.01 + 0.009)


def test_failures_have_the_value_that_the_reward_policy_gives_them() -> None:
    searcher = Fixed(SMALL, SyntheticEvaluator())
    searcher.tell(evaluations_for_values())
    assert searcher.values == [0.7, 0.0, 0.0, 0.4]


def test_values_rise_with_quality_where_a_lower_metric_is_better() -> None:
    searcher = Fixed(SMALL, SyntheticEvaluator(higher_is_better=False))
    searcher.tell(evaluations_for_values())
    trained, rejected, diverged, duplicate = searcher.values
    assert duplicate == -0.4 > trained == -0.7 > rejected == diverged


def test_the_filter_is_applied_once_to_each_evaluation_with_a_reward() -> None:
    reward_filter = BaselineFilter(0.5, decay=0.9)
    searcher = Fixed(SMALL, SyntheticEvaluator(), reward_filter=reward_filter)
    searcher.tell(evaluations_for_values())
    # Nothing that failed is worth more than what was turned down: a search must not learn to fail.
    assert searcher.values == [0.7, -1.0, -1.0, -1.0]
    assert searcher.turned_down == 1
    assert reward_filter.baseline == pytest.approx(0.52)
