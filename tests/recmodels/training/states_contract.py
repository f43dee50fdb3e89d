"""What every trainer promises of early stopping and of states: the half of `TrainerContract` below the other."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recmodels.data.interactions import Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import ModelFactory
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.trainer import Member, Outcome, State, Trainer, TrainReport
from tests.recmodels.training.cases import (
    ALL,
    PAPER_LONG,
    PROBLEM,
    SPLIT,
    STANDARD_LONG,
    assert_same,
    assert_same_states,
    members_of,
    mf_for,
    program_of,
)


class StatesContract(ABC):
    """Tests of what is kept, and of going on from it."""

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
