"""From expressions to evaluations: every status, prefixes, the cache and its key, and a search end to end."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.screening import screen
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import Evaluation, Status
from gploss.searchers.random_search import RandomSearcher
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Rows, Schema
from recmodels.evaluators import evaluator as module
from recmodels.evaluators.evaluator import LossEvaluator, training_seed
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.problem import Problem
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import EpochsDone, Keep, Member, Outcome, State, Trainer, TrainReport
from tests.recmodels.training.trainer_contract import PROBLEM, SPLIT, small_split

MSE = Expression.parse("square(label - pred)")
MSE_TWICE = Expression.parse("add(square(label - pred), square(label - pred))")  # the same, scale-free
MSE_OTHERWISE = Expression.parse("square(pred - label)")
BCE = Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))")
HINGE = Expression.parse("relu(1 - (2 * label - 1) * logit)")
NO_LABEL = Expression.parse("square(pred)")
NO_GRADIENT = Expression.parse("square(label)")
NOT_FINITE = Expression.parse("exp(exp(exp(exp(square(logit + 3)))))")
WRONG_WAY = Expression.parse("neg(square(label - pred))")


class FormulaTrainer(Trainer):
    """Trains nothing: values follow from the text of a loss, and some diverge."""

    name: ClassVar[str] = "formula"

    def __init__(self, protocol: Protocol = STANDARD) -> None:
        self.protocol = protocol
        self.calls: list[list[str]] = []

    def fit(
        self,
        losses: Program,
        members: Sequence[Member],
        problem: Problem,
        epochs: int,
        *,
        start: State | None = None,
        keep: Keep = "none",
        progress: EpochsDone | None = None,
    ) -> TrainReport:
        texts = [str(losses.expressions[member.loss]) for member in members]
        self.calls.append(texts)
        numbers = [int(blake2b(text.encode(), digest_size=4).hexdigest(), 16) for text in texts]
        values = np.array([[(number % 1000 + e) / 2000 for e in range(epochs)] for number in numbers])
        stopped = np.full(len(members), epochs)
        outcomes = [Outcome.TRAINED] * len(members)
        for k, number in enumerate(numbers):
            if number % 4 == 0 and number % 7 < epochs:  # diverges in epoch 1 to 7
                outcomes[k] = Outcome.DIVERGED
                stopped[k] = number % 7 + 1
                values[k, number % 7 :] = np.nan
            elif number % 4 == 1 and number % 5 < epochs:  # stops early
                stopped[k] = number % 5 + 1
                values[k, number % 5 + 1 :] = np.nan
        reasons = [
            f"non-finite in epoch {s}" if o is Outcome.DIVERGED else None
            for o, s in zip(outcomes, stopped, strict=True)
        ]
        return TrainReport(
            dict.fromkeys(problem.metrics, values), outcomes, reasons, stopped, np.ones(len(members))
        )

    def predict(self, states: State, rows: Rows) -> npt.NDArray[np.float32]:
        raise AssertionError("a search predicts nothing")

    def describe(self, schema: Schema) -> dict[str, JSON]:
        return {"trainer": self.name, "protocol": self.protocol.describe()}


def fake(**options: Any) -> LossEvaluator:
    return LossEvaluator(PROBLEM, FormulaTrainer(options.pop("protocol", STANDARD)), **options)


def real(split: Split = SPLIT, protocol: Protocol = STANDARD, **options: Any) -> LossEvaluator:
    model = functools.partial(MF, embedding_size=8, initialization=protocol.initialization)
    return LossEvaluator(PointwiseProblem(split), StackedTrainer(model, protocol, device="cpu"), **options)


def plain(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Evaluations without what a cache or a clock may change."""
    return [evaluation.to_json() | {"cached": None, "seconds": None} for evaluation in evaluations]


# Statuses.


def test_each_status() -> None:
    expressions = [MSE, NO_LABEL, NO_GRADIENT, NOT_FINITE, MSE_TWICE, BCE, MSE]
    found = real(epochs=2).evaluate(expressions, {}, 10)
    statuses = [evaluation.status for evaluation in found]
    assert statuses == [
        Status.TRAINED,
        Status.REJECTED,
        Status.REJECTED,
        Status.REJECTED,
        Status.DUPLICATE,
        Status.TRAINED,
        Status.DUPLICATE,
    ]
    assert [evaluation.expression for evaluation in found] == expressions
    assert [found[k].reason for k in (1, 2, 3)] == ["no dependence on label", "zero gradient", "non-finite"]
    first = found[0]
    assert first.reward == max(first.metrics["auc"]) and len(first.metrics["auc"]) == 2
    assert first.candidate_epochs == 2 and first.seconds > 0 and not first.cached
    assert first.scale == pytest.approx(float(screen([MSE]).scales[0]))
    for k in (4, 6):
        assert found[k].duplicate_of == str(MSE)
        assert (found[k].reward, found[k].metrics) == (first.reward, first.metrics)
        assert found[k].fingerprint == first.fingerprint
        assert found[k].candidate_epochs == 0 and not found[k].charged
    assert found[4].scale == pytest.approx(2 * float(first.scale or 0))


def test_a_loss_that_diverges() -> None:
    evaluator = real(epochs=2, settings={"learning_rate": 1e38})
    (found,) = evaluator.evaluate([HINGE], {}, 1)
    assert found.status is Status.DIVERGED and found.charged
    assert found.reward is None and "epoch 1" in str(found.reason)
    (duplicate,) = evaluator.evaluate([HINGE], {str(found.fingerprint): found}, 1)
    assert duplicate.status is Status.DUPLICATE and duplicate.reward is None


def test_the_direction_is_checked_where_asked_for() -> None:
    assert real(epochs=1).evaluate([WRONG_WAY], {}, 1)[0].status is Status.TRAINED
    (found,) = real(epochs=1, check_direction=True).evaluate([WRONG_WAY], {}, 1)
    assert (found.status, found.reason) == (Status.REJECTED, "wrong direction")


def test_multiples_are_duplicates_only_where_losses_are_scale_free() -> None:
    statuses = [evaluation.status for evaluation in fake(protocol=PAPER).evaluate([MSE, MSE_TWICE], {}, 5)]
    assert Status.DUPLICATE not in statuses
    assert all(evaluation.scale is None for evaluation in fake(protocol=PAPER).evaluate([MSE], {}, 5))


def test_seen_before_is_a_duplicate_of_what_was_seen() -> None:
    evaluator = fake()
    (first,) = evaluator.evaluate([MSE_OTHERWISE], {}, 1)
    seen = {str(first.fingerprint): first}
    found = evaluator.evaluate([MSE, BCE, MSE_TWICE], seen, 1)
    assert [evaluation.status for evaluation in found][::2] == [Status.DUPLICATE] * 2
    assert found[0].duplicate_of == found[2].duplicate_of == str(MSE_OTHERWISE)
    assert seen == {str(first.fingerprint): first}, "seen is not changed"


def test_the_reward_is_the_best_value_in_the_metrics_direction() -> None:
    model = functools.partial(MF, embedding_size=8)
    trainer = StackedTrainer(model, STANDARD, device="cpu")
    evaluator = LossEvaluator(PointwiseProblem(SPLIT, ("logloss", "auc")), trainer, epochs=3)
    (found,) = evaluator.evaluate([BCE], {}, 1)
    assert evaluator.metric == "logloss" and not evaluator.higher_is_better
    assert found.reward == min(found.metrics["logloss"])
    assert found.metrics.keys() == {"logloss", "auc"}


def test_a_split_is_no_problem() -> None:
    with pytest.raises(TypeError, match=r"give a problem, such as PointwiseProblem\(split\), not a Split"):
        LossEvaluator(SPLIT, FormulaTrainer())  # type: ignore[arg-type]


def test_epochs_are_checked() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, not 0"):
        fake(epochs=0)


# Prefixes, against a plain loop.


def one_by_one(
    evaluator: LossEvaluator, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
) -> list[Evaluation]:
    """What the contract says, candidate by candidate."""
    known, found, charged = dict(seen), [], 0
    scale_free = evaluator.trainer.protocol.scale_free
    for expression in expressions:
        screening = screen([expression], scale_free=scale_free, check_direction=evaluator.sieve.check_direction)
        reason, fingerprint = screening.texts[0], screening.fingerprints[0]
        if reason is not None:
            found.append(Evaluation(expression, Status.REJECTED, reason=reason))
            continue
        if fingerprint in known:
            first = known[fingerprint]
            found.append(
                Evaluation(
                    expression,
                    Status.DUPLICATE,
                    reward=first.reward,
                    metrics=first.metrics,
                    fingerprint=fingerprint,
                    scale=float(screening.scales[0]) if scale_free else None,
                    duplicate_of=str(first.expression),
                )
            )
            continue
        if charged == limit:
            break
        (new,) = evaluator.evaluate([expression], {}, 1)
        charged += 1
        known[fingerprint] = new
        found.append(new)
    return found


POOL = [
    *(Grammar.standard().sample(np.random.default_rng(k), 1 + k % 4) for k in range(60)),
    *(MSE, MSE_TWICE, MSE_OTHERWISE, BCE, HINGE, NO_LABEL, NOT_FINITE, WRONG_WAY),
]


@given(
    chosen=st.lists(st.sampled_from(POOL), max_size=25),
    earlier=st.lists(st.sampled_from(POOL), max_size=6),
    limit=st.integers(0, 12),
    check_direction=st.booleans(),
    protocol=st.sampled_from([STANDARD, PAPER]),
)
@settings(max_examples=60, deadline=None)
def test_a_prefix_is_what_a_plain_loop_gives(
    chosen: list[Expression], earlier: list[Expression], limit: int, check_direction: bool, protocol: Protocol
) -> None:
    evaluator = fake(protocol=protocol, epochs=4, check_direction=check_direction)
    past = one_by_one(evaluator, earlier, {}, 99)
    seen = {str(evaluation.fingerprint): evaluation for evaluation in past if evaluation.charged}
    expected = one_by_one(evaluator, chosen, seen, limit)
    found = evaluator.evaluate(chosen, seen, limit)
    assert plain(found) == plain(expected)
    assert sum(evaluation.charged for evaluation in found) <= limit


def test_nothing_is_trained_beyond_the_limit_or_twice() -> None:
    trainer = FormulaTrainer()
    evaluator = LossEvaluator(PROBLEM, trainer)
    found = evaluator.evaluate([MSE, NO_LABEL, MSE_TWICE, BCE, MSE, HINGE, MSE], {}, 2)
    assert len(found) == 5
    assert trainer.calls == [[str(MSE.canonical()), str(BCE.canonical())]]
    assert evaluator.evaluate([MSE], {}, 0) == []
    assert evaluator.evaluate([], {}, 3) == []
    assert len(trainer.calls) == 1


# The cache.


@pytest.fixture(scope="module")
def proposals() -> list[Expression]:
    rng = np.random.default_rng(7)
    return [Grammar.standard().sample(rng, int(size)) for size in rng.integers(1, 6, 40)]


def run_in_rounds(evaluator: LossEvaluator, proposals: Sequence[Expression]) -> list[Evaluation]:
    """Evaluate like a search: in rounds, telling what was seen."""
    seen: dict[str, Evaluation] = {}
    found: list[Evaluation] = []
    for first in range(0, len(proposals), 10):
        new = evaluator.evaluate(proposals[first : first + 10], seen, 100)
        seen |= {str(evaluation.fingerprint): evaluation for evaluation in new if evaluation.charged}
        found += new
    return found


def test_a_run_with_a_cache_equals_one_without(proposals: list[Expression], tmp_path: Path) -> None:
    without = run_in_rounds(real(epochs=2), proposals)
    with Cache(tmp_path / "cache") as cache:
        # Other programs of the same functions come first, in another order: an exact cache must not serve those.
        run_in_rounds(real(epochs=2, cache=cache), list(reversed(proposals))[:20])
        first = run_in_rounds(real(epochs=2, cache=cache), proposals)
        second = run_in_rounds(real(epochs=2, cache=cache), proposals)
    assert plain(first) == plain(without)
    assert plain(second) == plain(without)
    assert all(evaluation.cached for evaluation in second if evaluation.charged)
    charged = [evaluation for evaluation in without if evaluation.charged]
    assert len(charged) > 5 and not any(evaluation.cached for evaluation in without)
    stored = [evaluation.seconds for evaluation in second if evaluation.charged]
    assert all(seconds > 0 for seconds in stored), "a hit is charged at its stored seconds"


def test_fingerprint_reuse_serves_the_representative() -> None:
    with Cache(":memory:") as cache:
        (representative,) = real(epochs=2, cache=cache).evaluate([MSE], {}, 1)
        (exact,) = real(epochs=2, cache=cache).evaluate([MSE_TWICE], {}, 1)
        assert not exact.cached
    with Cache(":memory:") as cache:
        real(epochs=2, cache=cache).evaluate([MSE], {}, 1)
        evaluator = real(epochs=2, cache=cache, reuse="fingerprint")
        (served,) = evaluator.evaluate([MSE_TWICE], {}, 1)
    assert served.cached and served.expression is MSE_TWICE
    assert served.metrics == representative.metrics and served.reward == representative.reward


@pytest.mark.parametrize("reuse", ["exact", "fingerprint"])
def test_entries_of_more_epochs_serve_fewer(reuse: Any) -> None:
    trainer = FormulaTrainer()
    expressions = [expression for expression in POOL if screen([expression]).reasons[0] is None]
    with Cache(":memory:") as cache:
        LossEvaluator(PROBLEM, trainer, epochs=6, cache=cache).evaluate(expressions, {}, 99)
        trainer.calls.clear()
        for epochs in range(1, 7):
            served = LossEvaluator(PROBLEM, trainer, epochs=epochs, cache=cache, reuse=reuse).evaluate(
                expressions, {}, 99
            )
            assert trainer.calls == []
            fresh = fake(epochs=epochs).evaluate(expressions, {}, 99)
            assert plain(served) == plain(fresh)
        statuses = [[e.status for e in fake(epochs=epochs).evaluate(expressions, {}, 99)] for epochs in (1, 6)]
        assert statuses[0].count(Status.DIVERGED) < statuses[1].count(Status.DIVERGED), "some diverge late"


def test_more_epochs_are_trained_anew_unless_the_run_ended_by_itself() -> None:
    trainer = FormulaTrainer()
    expressions = [expression for expression in POOL if screen([expression]).reasons[0] is None]
    with Cache(":memory:") as cache:
        first = LossEvaluator(PROBLEM, trainer, epochs=2, cache=cache).evaluate(expressions, {}, 99)
        ended = {
            str(e.expression.canonical())
            for e in first
            if e.charged and (e.status is Status.DIVERGED or len(e.metrics["auc"]) < 2)
        }
        charged = {str(e.expression.canonical()) for e in first if e.charged}
        trainer.calls.clear()
        longer = LossEvaluator(PROBLEM, trainer, epochs=5, cache=cache).evaluate(expressions, {}, 99)
    assert ended and set(trainer.calls[0]) == charged - ended
    assert plain(longer) == plain(fake(epochs=5).evaluate(expressions, {}, 99))


def test_the_real_trainers_entries_serve_fewer_epochs() -> None:
    expressions = [MSE, BCE, HINGE]
    with Cache(":memory:") as cache:
        real(epochs=4, cache=cache).evaluate(expressions, {}, 9)
        served = real(epochs=2, cache=cache).evaluate(expressions, {}, 9)
    assert all(evaluation.cached for evaluation in served)
    assert plain(served) == plain(real(epochs=2).evaluate(expressions, {}, 9))


# The key.


def _other_train() -> Split:
    return Split(SPLIT.name, SPLIT.train.take(np.arange(len(SPLIT.train))[::-1]), SPLIT.validation, SPLIT.test)


def _other_validation() -> Split:
    return Split(SPLIT.name, SPLIT.train, SPLIT.test, SPLIT.test)


def _with_model(model: Any, problem: Problem = PROBLEM) -> LossEvaluator:
    return LossEvaluator(problem, StackedTrainer(model, STANDARD, device="cpu"))


def _with_more_ids() -> Split:
    def more(part: Interactions) -> Interactions:
        return Interactions(part.users, part.items, part.labels, part.n_users + 1, part.n_items + 1)

    return Split(SPLIT.name, *(more(part) for part in SPLIT.parts().values()))


class RenamedProblem(PointwiseProblem):
    """The same, in a user's own file."""


def _with_protocol(**change: Any) -> LossEvaluator:
    # the candidates' settings are given, so that the protocol's own are the only difference
    own = {"learning_rate": 0.1, "weight_decay": 2e-4, "batch_size": 512}
    return real(protocol=dataclasses.replace(STANDARD, **change), settings=own)


class RenamedTrainer(StackedTrainer):
    name: ClassVar[str] = "renamed"


class OtherMF(MF):
    pass


small = functools.partial(MF, embedding_size=8, initialization="standard")


def _scaled(n_users: int, n_items: int) -> torch.nn.Module:
    model = MF(n_users, n_items, 8)
    model.temperature = 2.0  # type: ignore[assignment]
    return model


@functools.cache
def _start(epochs: int) -> State:
    trainer = StackedTrainer(small, STANDARD, device="cpu")
    program = screen([MSE]).program
    report = trainer.fit(program, [Member(0, 0)], PROBLEM, epochs, keep="last")
    assert report.states is not None
    return report.states


KEYS: dict[str, Callable[[], LossEvaluator]] = {
    "start": lambda: real(start=_start(1)),
    "another start": lambda: real(start=_start(2)),
    "train": lambda: real(_other_train()),
    "validation": lambda: real(_other_validation()),
    "seed": lambda: real(seed=1),
    "learning rate": lambda: real(settings={"learning_rate": 0.2}),
    "weight decay": lambda: real(settings={"weight_decay": 1e-3}),
    "members' batch size": lambda: real(settings={"batch_size": 256}),
    "metrics": lambda: _with_model(small, PointwiseProblem(SPLIT, ("auc", "rmse"))),
    "first metric": lambda: _with_model(small, PointwiseProblem(SPLIT, ("rmse", "auc"))),
    "columns": lambda: real(_with_more_ids()),
    "task": lambda: _with_model(small, PointwiseProblem(SPLIT, task=dataclasses.replace(POINTWISE, name="mine"))),
    "source": lambda: _with_model(small, RenamedProblem(SPLIT)),
    "trainer": lambda: LossEvaluator(PROBLEM, RenamedTrainer(small, STANDARD, device="cpu")),
    "model class": lambda: _with_model(functools.partial(OtherMF, embedding_size=8, initialization="standard")),
    "model arguments": lambda: _with_model(functools.partial(MF, embedding_size=9, initialization="standard")),
    "model without arguments": lambda: _with_model(lambda *sizes: MF(sizes[0], sizes[1], 8)),
    "model attribute": lambda: _with_model(_scaled),
    "model initialization": lambda: _with_model(functools.partial(MF, embedding_size=8, initialization="paper")),
    "deep model": lambda: _with_model(DeepModel),
    "dropout": lambda: _with_model(functools.partial(DeepModel, dropout=0.3)),
    "protocol name": lambda: _with_protocol(name="mine"),
    "optimizer": lambda: _with_protocol(optimizer="sgd"),
    "protocol rate": lambda: _with_protocol(learning_rate=0.3),
    "protocol decay": lambda: _with_protocol(weight_decay=0.3),
    "batch size": lambda: _with_protocol(batch_size=256),
    "clipping": lambda: _with_protocol(gradient_clip=1.0),
    "loss decay": lambda: _with_protocol(optimizer="sgd", loss_decay=1e-4),
    "accumulators": lambda: _with_protocol(initial_accumulator=1e-5),
    "initialization": lambda: _with_protocol(initialization="paper"),
    "scale": lambda: _with_protocol(scale_free=False),
    "patience": lambda: _with_protocol(patience=4),
}


def test_everything_that_training_sees_changes_the_key() -> None:
    keys = {name: make().key for name, make in KEYS.items()} | {"base": real().key}
    assert len({key.hash for key in keys.values()}) == len(keys)
    assert len({key.canonical_json for key in keys.values()}) == len(keys)
    assert real().key == real().key


@pytest.mark.parametrize("name", KEYS)
def test_nothing_is_served_under_another_key(name: str) -> None:
    with Cache(":memory:") as cache:
        base = real(epochs=1, cache=cache, reuse="fingerprint")
        (first,) = base.evaluate([MSE], {}, 1)
        other = KEYS[name]()
        other.cache, other.reuse, other.epochs = cache, "fingerprint", 1
        (found,) = other.evaluate([MSE], {}, 1)
        assert not found.cached
        assert base.evaluate([MSE], {}, 1)[0].cached
        assert base.evaluate([MSE], {}, 1)[0].metrics == first.metrics


def test_no_field_of_the_key_is_left_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    base = _leaves(real().key.fields)
    changed: set[str] = set()
    for make in KEYS.values():
        own = _leaves(make().key.fields)
        changed |= {name for name in base.keys() | own.keys() if base.get(name) != own.get(name)}
    with monkeypatch.context() as patch:
        patch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
        patch.setattr(torch, "__version__", "0")
        evaluator = real()
        evaluator.trainer.device = torch.device("cuda")  # type: ignore[attr-defined]
        own = _leaves(evaluator._key_fields())
        changed |= {name for name in base if base[name] != own.get(name)}
    assert base.keys() == changed & base.keys()


def _leaves(fields: Any, path: str = "") -> dict[str, str]:
    if not isinstance(fields, Mapping):
        return {path: json.dumps(fields)}
    found: dict[str, str] = {}
    for name, value in fields.items():
        found |= _leaves(value, f"{path}.{name}" if path else str(name))
    return found


def test_what_training_does_not_see_leaves_the_key_alone() -> None:
    renamed = Split("another name", SPLIT.train, SPLIT.validation, SPLIT.test)
    base = real().key
    assert real(renamed).key == base
    assert real(epochs=9).key == base
    assert real(check_direction=True).key == base
    assert real(reuse="fingerprint").key == base
    chunked = StackedTrainer(small, STANDARD, device="cpu", stack_size=3)
    assert LossEvaluator(PROBLEM, chunked).key == base


def test_settings_that_do_not_change_the_key_are_recorded_nevertheless() -> None:
    texts = {
        json.dumps(evaluator.describe(), sort_keys=True)
        for evaluator in (real(), real(epochs=9), real(check_direction=True), real(reuse="fingerprint"))
    }
    assert len(texts) == 4


# The test part.


class Untouchable:
    """Fails at whatever is done to it."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the search asked for {name} of the test part")

    def __len__(self) -> int:
        raise AssertionError("the search asked for the length of the test part")


def test_the_test_part_is_never_touched(tmp_path: Path) -> None:
    split = Split(SPLIT.name, SPLIT.train, SPLIT.validation, SPLIT.test)
    object.__setattr__(split, "test", Untouchable())
    with pytest.raises(AssertionError, match="test part"):
        _ = split.test.labels
    with Cache(tmp_path / "cache") as cache:
        evaluator = real(split, epochs=1, cache=cache)
        found = evaluator.evaluate([MSE, BCE, NO_LABEL], {}, 9)
        result = RandomSearcher(Grammar.standard(), evaluator, seed=0).run(3, progress=False)
    assert plain(found) == plain(real(epochs=1).evaluate([MSE, BCE, NO_LABEL], {}, 9))
    assert len(result.records) >= 3


# End to end.


class FailingTrainer(StackedTrainer):
    """Breaks off in one of its calls."""

    fits_left: int | None = None

    def fit(self, *arguments: Any, **options: Any) -> TrainReport:
        if self.fits_left is not None:
            self.fits_left -= 1
            if self.fits_left < 0:
                raise OSError("the machine went away")
        return super().fit(*arguments, **options)


def searcher(fits_left: int | None = None, cache: Cache | None = None) -> RandomSearcher:
    trainer = FailingTrainer(small, STANDARD, device="cpu")
    trainer.fits_left = fits_left
    evaluator = LossEvaluator(PROBLEM, trainer, epochs=1, cache=cache)
    return RandomSearcher(Grammar.standard(), evaluator, seed=3, proposals_at_once=8)


@pytest.mark.parametrize("fits", [0, 1, 2])
@pytest.mark.parametrize("with_cache", [False, True])
def test_a_search_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, fits: int, with_cache: bool) -> None:
    whole = searcher().run(14, progress=False)
    checkpoint = tmp_path / "run"
    cache = Cache(tmp_path / "cache") if with_cache else None
    with pytest.raises(OSError, match="went away"):
        searcher(fits, cache).run(14, checkpoint=checkpoint, progress=False)
    resumed = searcher(None, cache).run(14, checkpoint=checkpoint, progress=False)
    clock = ["seconds", "elapsed", "cached"]
    assert resumed.evaluations.drop(columns=clock).equals(whole.evaluations.drop(columns=clock))
    assert resumed.counts == whole.counts or with_cache
    assert resumed.best is not None and whole.best is not None
    assert str(resumed.best.expression) == str(whole.best.expression)
    assert (whole.evaluations["status"].isin(["trained", "diverged"])).sum() == 14


def test_training_seeds() -> None:
    seeds = {training_seed(experiment, replicate) for experiment in range(20) for replicate in range(20)}
    assert len(seeds) == 400
    assert training_seed(3, 4) == training_seed(3, 4)


def test_entries_keep_what_a_diverged_run_had() -> None:
    with Cache(":memory:") as cache:
        evaluator = fake(epochs=7, cache=cache)
        evaluator.evaluate(POOL, {}, 99)
        entries = list(cache.entries(evaluator.key))
    assert {entry.status for entry in entries} == {"trained", "diverged"}
    for entry in entries:
        assert isinstance(entry, CacheEntry)
        length = len(entry.metrics["auc"])
        assert np.isfinite(entry.metrics["auc"]).all()
        assert entry.complete == (length < 7) or entry.status == "diverged"
        if entry.status == "diverged":
            assert entry.reason == f"non-finite in epoch {length + 1}"


def test_another_dataset_gives_other_values() -> None:
    other = real(small_split(seed=9), epochs=1).evaluate([MSE], {}, 1)[0]
    assert other.metrics != real(epochs=1).evaluate([MSE], {}, 1)[0].metrics
