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
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gploss.language.expression import Expression
from recmodels.data.interactions import DataError
from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.trainer import Member, Outcome, TrainReport
from tests.pointwise import compiled
from tests.recmodels.training.cases import (
    ALL,
    LOSSES,
    PAPER_LONG,
    PROBLEM,
    PROTOCOLS,
    SCHEMA,
    SPLIT,
    STANDARD_LONG,
    assert_same,
    member,
    members_of,
    mf_for,
    program_of,
    reference_scores,
    reference_training,
)
from tests.recmodels.training.states_contract import StatesContract


class TrainerContract(StatesContract):
    """Tests for a trainer of `MF`; the trainer's own tests come on top."""

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
