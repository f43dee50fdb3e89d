"""What every trainer promises, as tests that any trainer of matrix factorisation can be run through.

Subclass `TrainerContract` in a test file, fill `trainer`, and pytest finds the tests there. The oracle is a plain
float64 training loop on dense tensors, with losses written out by hand.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.tasks.pointwise import max_ratio
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Schema
from recmodels.models.base import ModelFactory, build_model
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.trainer import Member, Outcome, State, Trainer, TrainReport
from tests.pointwise import compiled

N_USERS: Final = 40
N_ITEMS: Final = 60


def small_split(seed: int = 0, sizes: tuple[int, int, int] = (2001, 301, 301)) -> Split:
    """A split with taste in it: labels follow a low-rank score with noise."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(N_USERS, 2)), rng.normal(size=(N_ITEMS, 2))

    def part(rows: int) -> Interactions:
        user, item = rng.integers(0, N_USERS, rows), rng.integers(0, N_ITEMS, rows)
        score = (users[user] * items[item]).sum(1) + rng.normal(size=rows)
        return Interactions(user, item, (score > 0).astype(np.float32), N_USERS, N_ITEMS)

    return Split("small", *(part(rows) for rows in sizes))


SPLIT: Final = small_split()
PROBLEM: Final = PointwiseProblem(SPLIT)
SCHEMA: Final = Schema({"user": N_USERS, "item": N_ITEMS})

#: Without early stopping, which would end a member before its weights can be compared.
STANDARD_LONG: Final = dataclasses.replace(STANDARD, patience=None)
PAPER_LONG: Final = dataclasses.replace(PAPER, patience=None)

PROTOCOLS: Final = {
    "standard": STANDARD_LONG,
    "paper": PAPER_LONG,
    "paper with loss decay": dataclasses.replace(PAPER_LONG, loss_decay=1e-3),
    "tightly clipped": dataclasses.replace(PAPER_LONG, gradient_clip=0.002, weight_decay=0.1),
    "adagrad, clipped": dataclasses.replace(STANDARD_LONG, gradient_clip=0.002, weight_decay=0.05),
    "odd batches": dataclasses.replace(PAPER_LONG, batch_size=100),  # 2001 rows: the last batch has 101
}


def mf_for(protocol: Protocol) -> functools.partial[MF]:
    return functools.partial(MF, embedding_size=8, initialization=protocol.initialization)


# Losses, each written twice.


def _cross_entropy(score: Tensor, label: Tensor) -> Tensor:
    return score.relu() + (1 + (-score.abs()).exp() + 1e-6).log() - label * score  # 1e-6: the operator's guard


def _log_loss(score: Tensor, label: Tensor) -> Tensor:
    pred = torch.sigmoid(score)
    return -(label * (pred + 1e-6).log() + (1 - label) * (1 - pred + 1e-6).log())


def _max_ratio(score: Tensor, label: Tensor) -> Tensor:
    pred, smoothing = torch.sigmoid(score), 1e-3
    return torch.maximum((label + smoothing) / (pred + smoothing), (pred + smoothing) / (label + smoothing))


def _clamped(score: Tensor, label: Tensor) -> Tensor:
    def clamp(value: Tensor) -> Tensor:
        return value.clamp(1e-5, 1e5)

    pred = torch.sigmoid(score)
    return clamp(clamp(label * clamp(1 / (pred + 1e-6))) + clamp(pred * pred))


LOSSES: Final[dict[str, tuple[Expression, Callable[[Tensor, Tensor], Tensor]]]] = {
    "bce": (
        Expression.parse("relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit"),
        _cross_entropy,
    ),
    "mse": (
        Expression.parse("square(label - pred)"),
        lambda score, label: (label - torch.sigmoid(score)) ** 2,
    ),
    "maxr": (max_ratio(1e-3), _max_ratio),
    "log": (Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))"), _log_loss),
    "clamped": (Expression.parse("clamped(add(mul(label, inv(pred)), square(pred)))"), _clamped),
}


def program_of(names: Sequence[str], protocol: Protocol) -> Program:
    return screen([LOSSES[name][0] for name in names], scale_free=protocol.scale_free).program


ALL: Final = tuple(LOSSES)


# The oracle.


def batches_of(seed: int, epoch: int, count: int, size: int) -> list[npt.NDArray[np.int64]]:
    """The order of the data; a last batch of one row belongs to the one before."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    cut = [order[first : first + size] for first in range(0, count, size)]
    if len(cut) > 1 and len(cut[-1]) == 1:
        last = cut.pop()
        cut[-1] = np.concatenate([cut[-1], last])
    return cut


def reference_scores(weights: Mapping[str, Tensor], users: Tensor, items: Tensor) -> Tensor:
    vectors = (weights["user_embedding.weight"][users] * weights["item_embedding.weight"][items]).sum(1)
    biases = weights["user_bias.weight"][users, 0] + weights["item_bias.weight"][items, 0]
    return vectors + biases + weights["global_bias"]


def reference_training(
    loss: str, multiplier: float, member: Member, protocol: Protocol, train: Interactions, epochs: int = 1
) -> dict[str, Tensor]:
    """Train one MF plainly in float64; return its weights."""
    module = build_model(mf_for(protocol), SCHEMA, member.seed)
    weights = {name: weight.detach().double() for name, weight in module.named_parameters()}
    sums = {name: torch.full_like(weight, protocol.initial_accumulator) for name, weight in weights.items()}
    values = LOSSES[loss][1]
    rate, decay = member.settings["learning_rate"], member.settings["weight_decay"]
    batch_size = int(member.settings.get("batch_size", protocol.batch_size))
    for epoch in range(epochs):
        for rows in batches_of(member.seed, epoch, len(train), batch_size):
            users, items = torch.tensor(train.users[rows]), torch.tensor(train.items[rows])
            label = torch.tensor(train.labels[rows]).double()
            leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
            batch_loss = multiplier * values(reference_scores(leaves, users, items), label).mean()
            gradients = dict(zip(leaves, torch.autograd.grad(batch_loss, list(leaves.values())), strict=True))
            for name, weight in weights.items():
                gradient = gradients[name] + 2 * protocol.loss_decay * weight
                if protocol.gradient_clip is not None:
                    gradient = gradient.clamp(-protocol.gradient_clip, protocol.gradient_clip)
                gradient = gradient + decay * weight
                if protocol.optimizer == "sgd":
                    weights[name] = weight - rate * gradient
                    continue
                touched = torch.zeros(len(weight) if weight.ndim else 1, dtype=torch.bool)
                touched[{"user": users, "item": items}.get(name[:4], torch.tensor(0))] = True
                touched = touched.view(-1, 1) if weight.ndim else touched[0]
                gradient = torch.where(touched, gradient, torch.zeros(()).double())
                sums[name] = sums[name] + gradient**2
                weights[name] = weight - rate * gradient / sums[name].sqrt()
    return weights


# Comparisons.


def assert_same(first: TrainReport, second: TrainReport, rows: Sequence[int] | None = None) -> None:
    """The same bits, seconds aside; `rows` are the places in `second` of the members of `first`."""
    places = range(len(first.outcomes)) if rows is None else rows
    index = np.array(places, np.int64)
    for name, column in first.metrics.items():
        np.testing.assert_array_equal(column, second.metrics[name][index])
    assert first.outcomes == [second.outcomes[row] for row in places]
    assert first.reasons == [second.reasons[row] for row in places]
    np.testing.assert_array_equal(first.stopped_at, second.stopped_at[index])
    assert (first.states is None) == (second.states is None)
    if first.states is not None and second.states is not None:
        assert_same_states(first.states, second.states.take(list(places)))


def assert_same_states(first: State, second: State) -> None:
    np.testing.assert_array_equal(first.epochs, second.epochs)
    for mine, other in ((first.weights, second.weights), (first.optimizer, second.optimizer)):
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, equal_nan=True)


def member(loss: int, seed: int, learning_rate: float, weight_decay: float, **settings: float) -> Member:
    return Member(loss, seed, {"learning_rate": learning_rate, "weight_decay": weight_decay, **settings})


def members_of(count: int, protocol: Protocol, *, losses: int = 5, seeds: int = 1) -> list[Member]:
    """Members that all differ: losses, seeds, rates and decays in turn."""
    return [
        member(
            k % losses,
            k % seeds,
            protocol.learning_rate * (1 + 0.05 * k),
            protocol.weight_decay * (1 + k % 3),
        )
        for k in range(count)
    ]


class TrainerContract(ABC):
    """Tests for a trainer of `MF`; the trainer's own tests come on top."""

    @abstractmethod
    def trainer(
        self,
        protocol: Protocol,
        *,
        model: ModelFactory | None = None,
        group: int | None = None,
    ) -> Trainer:
        """Make a trainer; `group` says how many members it takes at a time, in whatever sense it has."""

    def fit(
        self,
        protocol: Protocol,
        members: Sequence[Member],
        *,
        epochs: int = 2,
        group: int | None = None,
        metrics: Sequence[str] = ("auc",),
        split: Split = SPLIT,
        **options: Any,
    ) -> TrainReport:
        trainer = self.trainer(protocol, model=mf_for(protocol), group=group)
        program = program_of(ALL, protocol)
        return trainer.fit(program, members, PointwiseProblem(split, metrics), epochs, **options)

    # What is computed.

    @pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
    @pytest.mark.parametrize("loss", LOSSES)
    def test_weights_equal_a_plain_float64_loop(self, loss: str, protocol: Protocol) -> None:
        one = member(ALL.index(loss), 3, protocol.learning_rate, protocol.weight_decay)
        report = self.fit(protocol, [one], epochs=1, keep="last")
        multiplier = float(program_of(ALL, protocol).multipliers[one.loss])
        expected = reference_training(loss, multiplier, one, protocol, SPLIT.train)
        assert report.states is not None
        for name, weight in expected.items():
            found = report.states.weights[name][0].double()
            assert float((found - weight).norm() / weight.norm()) < 1e-5, name
        validation = SPLIT.validation
        scores = reference_scores(expected, torch.tensor(validation.users), torch.tensor(validation.items))
        assert report.metrics["auc"][0, 0] == pytest.approx(roc_auc_score(validation.labels, scores), abs=5e-5)

    def test_each_member_has_its_own_rate_decay_seed_and_loss(self) -> None:
        members = [
            member(0, 0, 0.05, 0.0),
            member(1, 0, 0.1, 0.01),
            member(0, 5, 0.2, 0.02),
            member(2, 5, 0.05, 0.1),
        ]
        report = self.fit(STANDARD_LONG, members, epochs=2, keep="last")
        multipliers = program_of(ALL, STANDARD_LONG).multipliers
        assert report.states is not None
        for k, one in enumerate(members):
            expected = reference_training(
                ALL[one.loss], float(multipliers[one.loss]), one, STANDARD_LONG, SPLIT.train, epochs=2
            )
            for name, weight in expected.items():
                found = report.states.weights[name][k].double()
                assert float((found - weight).norm() / weight.norm()) < 1e-4, (k, name)

    def test_losses_with_one_seed_start_from_the_same_weights_and_other_seeds_from_others(self) -> None:
        still = [member(0, 0, 1e-30, 0.0), member(1, 0, 1e-30, 0.0), member(0, 1, 1e-30, 0.0)]
        states = self.fit(STANDARD_LONG, still, epochs=1, keep="last").states
        assert states is not None
        vectors = states.weights["user_embedding.weight"]
        assert torch.equal(vectors[0], vectors[1])
        assert not torch.equal(vectors[0], vectors[2])

    def test_it_learns(self) -> None:
        report = self.fit(STANDARD_LONG, members_of(5, STANDARD), epochs=8)
        assert (np.nanmax(report.metrics["auc"], axis=1) > 0.6).all()

    # Batching is invisible.

    @given(order=st.permutations(range(9)), cut=st.integers(0, 9), group=st.sampled_from([1, 2, 3, 32]))
    # Each trainer's test class runs it.
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_grouping_and_order_cannot_be_seen(self, order: list[int], cut: int, group: int) -> None:
        members = members_of(9, STANDARD, seeds=2)
        whole = self._whole_population()
        for rows in (order[:cut], order[cut:]):
            part = self.fit(STANDARD, [members[row] for row in rows], group=group, keep="last")
            if rows:
                assert_same(part, whole, rows)

    def _whole_population(self) -> TrainReport:
        if not hasattr(type(self), "_whole"):
            found = self.fit(STANDARD, members_of(9, STANDARD, seeds=2), keep="last")
            type(self)._whole = found  # type: ignore[attr-defined]
        whole: TrainReport = type(self)._whole  # type: ignore[attr-defined]
        return whole

    @pytest.mark.parametrize("protocol", [STANDARD_LONG, PAPER_LONG], ids=lambda protocol: protocol.name)
    @pytest.mark.parametrize("batch_size", [128, 333, 2000])
    def test_group_sizes_cannot_be_seen(self, protocol: Protocol, batch_size: int) -> None:
        protocol = dataclasses.replace(protocol, batch_size=batch_size)
        members = members_of(35, protocol)
        reports = [
            self.fit(protocol, members, epochs=1, group=group, keep="last", metrics=("auc", "logloss"))
            for group in (1, 3, 32)
        ]
        assert_same(reports[0], reports[1])
        assert_same(reports[0], reports[2])

    def test_the_number_of_threads_cannot_be_seen(self) -> None:
        before = torch.get_num_threads()
        reports = []
        try:
            for threads in (1, 4):
                torch.set_num_threads(threads)
                reports.append(self.fit(STANDARD_LONG, members_of(5, STANDARD), keep="last"))
        finally:
            torch.set_num_threads(before)
        assert_same(reports[0], reports[1])

    def test_a_run_repeats_itself(self) -> None:
        assert_same(
            self.fit(PAPER, members_of(3, PAPER), keep="best"), self.fit(PAPER, members_of(3, PAPER), keep="best")
        )

    # Divergence.

    BAD: Final = (
        "exp(exp(exp(logit * 10 + 5))) + label",  # overflows at once
        "inv(label - label) * logit + exp(square(square(logit * 1000)) * label)",  # overflows where it moved
        "label * logit",  # unbounded: run off by a huge rate
    )

    @pytest.mark.parametrize("protocol", [STANDARD_LONG, PAPER_LONG], ids=lambda protocol: protocol.name)
    @pytest.mark.parametrize("bad", BAD)
    @pytest.mark.parametrize("group", [1, 8])
    def test_a_diverged_member_leaves_its_neighbours_as_they_were(
        self, bad: str, protocol: Protocol, group: int
    ) -> None:
        good = [LOSSES[name][0] for name in ("bce", "mse")]
        program = compiled([*good, Expression.parse(bad)])
        rate, decay = protocol.learning_rate, protocol.weight_decay
        neighbours = [member(0, 0, rate, decay), member(1, 0, rate, decay), member(0, 0, rate / 2, decay)]
        poison = member(2, 0, 1e38, 0.0)
        trainer = self.trainer(protocol, model=mf_for(protocol), group=group)
        alone = trainer.fit(program, neighbours, PROBLEM, 3, keep="last")
        mixed = [neighbours[0], poison, neighbours[1], poison, neighbours[2]]
        together = trainer.fit(program, mixed, PROBLEM, 3, keep="last")
        assert_same(alone, together, [0, 2, 4])
        for row in (1, 3):
            assert together.outcomes[row] is Outcome.DIVERGED
            stopped = int(together.stopped_at[row])
            assert re.search(rf"non-finite .* epoch {stopped}$", together.reasons[row] or "")
            assert np.isnan(together.metrics["auc"][row, stopped - 1 :]).all()
            assert np.isfinite(together.metrics["auc"][row, : stopped - 1]).all()
        assert alone.outcomes == [Outcome.TRAINED] * 3
        assert alone.reasons == [None] * 3

    def test_a_late_divergence_keeps_the_epochs_before_it(self) -> None:
        program = compiled([Expression.parse("neg(square(logit)) + label * logit")])
        protocol = dataclasses.replace(PAPER_LONG, gradient_clip=None)
        rates = [0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0]
        report = self.trainer(protocol, model=mf_for(protocol)).fit(
            program, [member(0, 0, rate, 0.0) for rate in rates], PROBLEM, 6, keep="best"
        )
        late = [k for k in range(len(rates)) if report.outcomes[k] is Outcome.DIVERGED and report.stopped_at[k] > 1]
        assert late, report.stopped_at
        assert report.states is not None
        for k in late:
            stopped = int(report.stopped_at[k])
            values = report.metrics["auc"][k]
            assert np.isfinite(values[: stopped - 1]).all()
            assert np.isnan(values[stopped - 1 :]).all()
            assert report.reasons[k] is not None
            assert str(report.reasons[k]).endswith(f"epoch {stopped}")
            assert report.states.epochs[k] == np.nanargmax(values) + 1
            assert all(torch.isfinite(weight[k]).all() for weight in report.states.weights.values())

    # Early stopping, and which weights are kept.

    @pytest.mark.parametrize("patience", [1, 2, 3])
    @pytest.mark.parametrize("metric", ["auc", "logloss"])
    def test_a_member_stops_when_its_patience_ends(self, patience: int, metric: str) -> None:
        fast = dataclasses.replace(STANDARD_LONG, learning_rate=0.5)
        members = members_of(6, fast)
        epochs = 8
        metrics = (metric, "rmse")
        full = self.fit(fast, members, epochs=epochs, metrics=metrics)
        impatient = dataclasses.replace(fast, patience=patience)
        report = self.fit(impatient, members, epochs=epochs, metrics=metrics, group=4)
        sign = 1 if metric == "auc" else -1
        for k in range(len(members)):
            values = sign * full.metrics[metric][k]
            expected = next(
                (e + 1 for e in range(epochs) if e - int(np.argmax(values[: e + 1])) >= patience), epochs
            )
            assert report.stopped_at[k] == expected
            assert report.outcomes[k] is Outcome.TRAINED
            for name in metrics:
                np.testing.assert_array_equal(report.metrics[name][k, :expected], full.metrics[name][k, :expected])
                assert np.isnan(report.metrics[name][k, expected:]).all()
        assert (full.stopped_at == epochs).all()
        assert len(set(report.stopped_at.tolist())) > 1, "the example is too tame to show anything"

    def test_the_best_weights_are_those_of_the_best_epoch(self) -> None:
        fast = dataclasses.replace(STANDARD, learning_rate=0.5)
        members = members_of(4, fast)
        report = self.fit(fast, members, epochs=8, keep="best")
        assert report.states is not None
        best = np.nanargmax(report.metrics["auc"], axis=1) + 1
        np.testing.assert_array_equal(report.states.epochs, best)
        for k, one in enumerate(members):
            short = self.fit(dataclasses.replace(fast, patience=None), [one], epochs=int(best[k]), keep="last")
            assert short.states is not None
            assert_same_states(short.states, report.states.take([k]))

    def test_nothing_is_kept_unless_asked_for(self) -> None:
        assert self.fit(STANDARD, members_of(2, STANDARD)).states is None

    def test_the_last_weights_are_those_where_a_member_stopped(self) -> None:
        fast = dataclasses.replace(STANDARD, learning_rate=0.5, patience=1)
        report = self.fit(fast, members_of(4, fast), epochs=6, keep="last")
        assert report.states is not None
        np.testing.assert_array_equal(report.states.epochs, report.stopped_at)

    # Going on, and predicting.

    @pytest.mark.parametrize("protocol", [STANDARD_LONG, PAPER_LONG], ids=lambda protocol: protocol.name)
    def test_going_on_equals_never_having_stopped(self, protocol: Protocol) -> None:
        members = members_of(4, protocol, seeds=2)
        at_once = self.fit(protocol, members, epochs=5, keep="last")
        first = self.fit(protocol, members, epochs=2, keep="last")
        second = self.fit(protocol, members, epochs=3, start=first.states, keep="last")
        assert at_once.states is not None and second.states is not None
        assert_same_states(at_once.states, second.states)
        for name, column in at_once.metrics.items():
            np.testing.assert_array_equal(column, np.hstack([first.metrics[name], second.metrics[name]]))

    def test_starts_with_different_pasts_do_not_meet(self) -> None:
        members = members_of(2, STANDARD)
        short = self.fit(STANDARD_LONG, members[:1], epochs=1, keep="last").states
        long = self.fit(STANDARD_LONG, members[1:], epochs=3, keep="last").states
        assert short is not None and long is not None
        both = self.fit(STANDARD_LONG, members, start=State.join([short, long]), keep="last")
        assert_same(self.fit(STANDARD_LONG, members[:1], start=short, keep="last"), both, [0])
        assert_same(self.fit(STANDARD_LONG, members[1:], start=long, keep="last"), both, [1])

    def test_one_start_serves_all_members(self) -> None:
        start = self.fit(STANDARD_LONG, members_of(1, STANDARD), epochs=1, keep="last").states
        assert start is not None
        members = members_of(3, STANDARD)
        for_all = self.fit(STANDARD_LONG, members, start=start, keep="last")
        for_each = self.fit(STANDARD_LONG, members, start=State.join([start] * 3), keep="last")
        assert_same(for_all, for_each)
        assert for_all.states is not None
        np.testing.assert_array_equal(for_all.states.epochs, [3, 3, 3])

    def test_a_start_is_left_as_it_was(self) -> None:
        start = self.fit(STANDARD_LONG, members_of(2, STANDARD), epochs=1, keep="last").states
        assert start is not None
        copy = start.take([0, 1])
        self.fit(STANDARD_LONG, members_of(2, STANDARD), start=start)
        assert_same_states(start, copy)

    def test_predictions_are_the_scores_that_were_measured(self) -> None:
        members = members_of(5, STANDARD, seeds=2)
        report = self.fit(STANDARD_LONG, members, keep="last")
        assert report.states is not None
        for group in (1, 2, None):
            trainer = self.trainer(STANDARD_LONG, model=mf_for(STANDARD), group=group)
            scores = trainer.predict(report.states, PROBLEM.rows("validation"))
            assert scores.shape == (5, len(SPLIT.validation)) and scores.dtype == np.float32
            for k in range(5):
                auc = roc_auc_score(SPLIT.validation.labels, scores[k])
                assert report.metrics["auc"][k, -1] == pytest.approx(auc, abs=1e-12)
            one = PROBLEM.rows("validation").take(np.array([7]))
            np.testing.assert_allclose(trainer.predict(report.states, one)[:, 0], scores[:, 7], rtol=1e-6)

    @pytest.mark.parametrize("what", ["count", "optimizer", "size", "items", "name"])
    def test_states_of_something_else_are_refused(self, what: str) -> None:
        members = members_of(2, STANDARD)
        trainer = self.trainer(STANDARD, model=mf_for(STANDARD))
        start = self.fit(STANDARD, members, epochs=1, keep="last").states
        assert start is not None
        weights, optimizer = dict(start.weights), dict(start.optimizer)
        if what == "count":
            start = start.take([0, 1, 0])
        elif what == "optimizer":
            start = State(weights, {}, start.epochs)
        elif what == "size":  # of width 1, which would broadcast
            narrow = {name: tensor[..., :1] for name, tensor in weights.items() if "embedding" in name}
            start = State(weights | narrow, optimizer, start.epochs)
        elif what == "items":
            start = State(weights | {"item_bias.weight": torch.zeros(2, 3, 1)}, optimizer, start.epochs)
        else:
            weights["another"] = weights.pop("global_bias")
            start = State(weights, optimizer, start.epochs)
        with pytest.raises(ValueError):
            trainer.fit(program_of(ALL, STANDARD), members, PROBLEM, 1, start=start)
        if what in ("size", "items", "name"):
            with pytest.raises(ValueError):
                trainer.predict(start, PROBLEM.rows("validation"))

    # Manners.

    def test_global_random_numbers_are_left_alone(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        numpy_state = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        report = self.fit(STANDARD, members_of(2, STANDARD, seeds=2), keep="last")
        assert torch.equal(torch.get_rng_state(), state)
        assert np.random.get_state()[1].tolist() == numpy_state  # type: ignore[index]  # noqa: NPY002
        torch.manual_seed(6)
        assert_same(report, self.fit(STANDARD, members_of(2, STANDARD, seeds=2), keep="last"))

    def test_progress_counts_member_epochs(self) -> None:
        counts: list[int] = []
        self.fit(STANDARD_LONG, members_of(5, STANDARD, seeds=2), epochs=3, group=2, progress=counts.append)
        assert sum(counts) == 15

    def test_nobody_to_train(self) -> None:
        report = self.fit(STANDARD, [])
        assert report.metrics["auc"].shape == (0, 2) and report.outcomes == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": 0}, "epochs must be at least 1"),
            ({"members": [member(9, 0, 0.1, 0.0)]}, "row of the losses"),
        ],
    )
    def test_wrong_arguments(self, change: dict[str, Any], message: str) -> None:
        arguments: dict[str, Any] = {"members": members_of(1, STANDARD), "epochs": 1} | change
        with pytest.raises(ValueError, match=message):
            self.fit(STANDARD, **arguments)

    def test_a_problem_that_cannot_be_learnt_is_refused_before_anything_is_trained(self) -> None:
        trainer = self.trainer(STANDARD, model=mf_for(STANDARD))
        one_user_each = SPLIT.validation.take(np.unique(SPLIT.validation.users, return_index=True)[1])
        problem = PointwiseProblem(dataclasses.replace(SPLIT, validation=one_user_each), ("gauc",))
        with pytest.raises(DataError, match=r"small, validation part of .* 'gauc' .* choose another metric"):
            trainer.fit(program_of(ALL, STANDARD), members_of(1, STANDARD), problem, 1)

    @pytest.mark.parametrize("change", [{"batch_size": 0}, {"learning_rate": math.nan}, {"rate": 0.1}])
    def test_settings_that_make_no_sense_are_refused(self, change: dict[str, float]) -> None:
        trainer = self.trainer(STANDARD, model=mf_for(STANDARD))
        with pytest.raises(ValueError, match=next(iter(change))):
            trainer.fit(program_of(ALL, STANDARD), [Member(0, 0, change)], PROBLEM, 1)

    def test_each_member_has_its_own_batch_size_and_the_protocol_has_the_rest(self) -> None:
        sizes = [128, 500, 128, STANDARD.batch_size]
        members = [Member(k, 2, {"batch_size": size}) for k, size in enumerate(sizes)]
        members[3] = Member(3, 2)
        together = self.fit(STANDARD_LONG, members, keep="last")
        for row, size in enumerate(sizes):
            protocol = dataclasses.replace(STANDARD_LONG, batch_size=size)
            assert_same(self.fit(protocol, [Member(row, 2)], keep="last"), together, [row])

    def test_the_description_is_json_and_tells_settings_apart(self) -> None:
        texts = {
            json.dumps(self.trainer(protocol, model=model).describe(SCHEMA), sort_keys=True)
            for protocol in (STANDARD, STANDARD_LONG, PAPER)
            for model in (functools.partial(MF, embedding_size=8), functools.partial(MF, embedding_size=9))
        }
        assert len(texts) == 6
        grouped = self.trainer(STANDARD, group=2).describe(SCHEMA)
        assert grouped == self.trainer(STANDARD, group=5).describe(SCHEMA), "batching is invisible"
