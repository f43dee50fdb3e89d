"""AutoLossGen's iterative and alternating optimisation: the recommender learns on while the searcher learns.

Source: AutoLossGen (SIGIR 2022, arXiv 2204.13160), section 3.3, and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from gploss.arguments import instance, whole_number
from gploss.compute.kinds import Loss
from gploss.files.plain import JSON
from gploss.screening.screening import screen
from gploss.search.evaluation import Evaluation, Status
from gploss.search.evaluator import RoundsEvaluator
from gploss.search.reward import BaselineFilter
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.base import Batch, build_model
from recmodels.training.trainer import Member, Outcome, State, Trainer


@dataclass(frozen=True)
class Step:
    """How a round of the search ended for the recommender.

    Attributes:
        round: number of the round, from 0.
        samples: evaluations of the round, whatever became of them.
        trained: how many of them were trained.
        start: the recommender's validation metric at the beginning of the round.
        end: the same at its end.
        loss: formula that the recommender was trained with; None where its weights stayed.
        reward: what this loss was rewarded with as a sample; None where the weights stayed.
    """

    round: int
    samples: int
    trained: int
    start: float
    end: float
    loss: str | None
    reward: float | None


class AlternatingEvaluator(RoundsEvaluator):
    """Rewards losses by what they make of a recommender that itself goes on learning.

    In a round every sample trains a copy of the recommender's present weights, and its reward is the validation
    metric after that. When the round has `samples_per_round` samples, the best of them trains the recommender
    itself, if that does not leave it worse than it began; otherwise the searcher is asked for up to
    `fresh_samples` more, and the first of them that does takes the step. If none does, the weights stay. A
    duplicate is one of the same round, and has the first one's reward.

    Two things differ from the authors' code. Fresh samples are samples like all others, so that the searcher
    learns from them and the budget pays for them; there, the searcher never hears of them. And they are tried in
    the batches in which they are proposed, the best of a batch for all of it; there, one by one, without end.

    Args:
        inner: evaluates the samples; its start is the recommender's first state, fresh weights by default.
        step_trainer: trains the recommender itself; the inner evaluator's trainer by default. Under protocol
            "paper" the authors' regulariser is part of the loss here, and only here (loss_decay 1e-4).
        samples_per_round: samples before the recommender takes a step; the paper's 10 updates of 10.
        fresh_samples: samples after that, as long as there is nothing to take the step with.
        rounds: how many there are, or None for no end.

    Attributes:
        history: how each round ended.
        start: the recommender's present state; None for fresh weights.
        start_value: its validation metric.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a number is out of range, or lower values of the problem's first metric are better.
    """

    def __init__(
        self,
        inner: LossEvaluator,
        *,
        step_trainer: Trainer | None = None,
        samples_per_round: int = 100,
        fresh_samples: int = 100,
        rounds: int | None = None,
    ) -> None:
        instance("inner", inner, LossEvaluator, "a LossEvaluator")
        if step_trainer is not None:
            instance("step_trainer", step_trainer, Trainer, "a Trainer, or None")
        if not inner.higher_is_better:
            raise ValueError(f"alternating search needs a metric of which more is better, not {inner.metric!r}")
        self.epochs = inner.epochs
        self.metric = inner.metric
        self.higher_is_better = inner.higher_is_better
        self.step_trainer = inner.trainer if step_trainer is None else step_trainer
        self.samples_per_round = whole_number("samples_per_round", samples_per_round, least=1)
        self.fresh_samples = whole_number("fresh_samples", fresh_samples, least=0)
        self.rounds = None if rounds is None else whole_number("rounds", rounds, least=1)
        self.history: list[Step] = []
        self._inner = inner
        self._settings = inner.describe()
        self._evaluations: list[Evaluation] = []
        self._considered = 0
        self.start_value = self._measure(inner.start)

    @property
    def start(self) -> State | None:
        """The recommender's present state; None for fresh weights."""
        return self._inner.start

    @property
    def finished(self) -> bool:
        """Whether all rounds are over."""
        return self.rounds is not None and len(self.history) >= self.rounds

    def describe(self) -> dict[str, JSON]:
        """Return what decides the evaluations; the number of rounds is no part of it, so that one may add some."""
        protocol: dict[str, JSON] = dict(self.step_trainer.protocol.describe())
        return {
            **self._settings,
            "alternating": {
                "samples_per_round": self.samples_per_round,
                "fresh_samples": self.fresh_samples,
                "step_protocol": protocol,
            },
        }

    def evaluate(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluate a prefix of the losses from the recommender's present weights.

        Args:
            losses: candidates.
            seen: not looked at: what was met in earlier rounds is no duplicate.
            limit: the most candidates to train.
        """
        met: dict[str, Evaluation] = {}
        for evaluation in self._evaluations:
            if evaluation.charged and evaluation.fingerprint is not None:
                met.setdefault(evaluation.fingerprint, evaluation)
        evaluations = self._inner.evaluate(losses, met, limit)
        self._evaluations.extend(evaluations)
        return evaluations

    def advance(self) -> float | None:
        """End the round where it has enough samples; see `RoundsEvaluator.advance`."""
        enough = len(self._evaluations) >= self.samples_per_round
        return self.start_value if enough and self.end_round() else None

    def end_round(self) -> bool:
        """Train the recommender with the best sample since the last call, and begin a new round.

        Returns:
            Whether a new round began; if not, fresh samples are wanted.
        """
        least = self.start_value - BaselineFilter.TOLERANCE
        fresh = [one for one in self._evaluations[self._considered :] if one.status is Status.TRAINED]
        self._considered = len(self._evaluations)
        best = max(fresh, key=_reward, default=None)
        if best is not None and _reward(best) >= least:
            state, value = self._step(best.loss)
            if state is not None and value >= least:
                self._begin(state, value, best)
                return True
        if len(self._evaluations) < self.samples_per_round + self.fresh_samples:
            return False
        self._begin(self.start, self.start_value, None)
        return True

    def _step(self, loss: Loss) -> tuple[State | None, float]:
        """Train the recommender with a loss; return its new state and metric, or no state where it diverged."""
        inner = self._inner
        program = screen([loss], scale_free=self.step_trainer.protocol.scale_free).losses
        report = self.step_trainer.fit(
            program,
            [Member(0, inner.seed, inner.settings)],
            inner.problem,
            self.epochs,
            start=inner.start,
            keep="last",
        )
        if report.outcomes[0] is Outcome.DIVERGED or report.states is None:
            return None, float("nan")
        return report.states, float(report.metrics[self.metric][0, int(report.stopped_at[0]) - 1])

    def _begin(self, state: State | None, value: float, best: Evaluation | None) -> None:
        """Begin a new round from a state. Its number decides the order of batches, also where weights stayed."""
        self.history.append(
            Step(
                round=len(self.history),
                samples=len(self._evaluations),
                trained=sum(one.charged for one in self._evaluations),
                start=self.start_value,
                end=value,
                loss=None if best is None else str(best.loss),
                reward=None if best is None else best.reward,
            )
        )
        if state is not None:
            number = np.array([len(self.history) * self.epochs], np.int64)
            self._inner = self._inner.starting_from(replace(state, epochs=number))
        self.start_value = value
        self._evaluations = []
        self._considered = 0

    def _measure(self, state: State | None) -> float:
        """Return the validation metric of one model; None means fresh weights."""
        inner = self._inner
        rows = inner.problem.rows("validation")
        if state is not None:
            scores = torch.from_numpy(inner.trainer.predict(state, rows))
        else:
            model = build_model(inner.trainer.model, rows.schema, inner.seed).eval()
            batch = Batch(**{name: torch.tensor(ids) for name, ids in rows.features.items()})
            with torch.no_grad():
                scores = model(batch).float().unsqueeze(0)
        return float(inner.problem.judge("validation")(scores)[self.metric][0])

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser state, and what has happened in this round and before."""
        return {
            "start": None if self.start is None else _packed(self.start),
            "start_value": self.start_value,
            "evaluations": [evaluation.to_json() for evaluation in self._evaluations],
            "considered": self._considered,
            "history": [asdict(step) for step in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` returned."""
        if state["start"] is not None:
            self._inner = self._inner.starting_from(_unpacked(state["start"]))
        self.start_value = float(state["start_value"])
        self._evaluations = [Evaluation.from_json(record) for record in state["evaluations"]]
        self._considered = int(state["considered"])
        self.history = [Step(**record) for record in state["history"]]


def _reward(evaluation: Evaluation) -> float:
    assert evaluation.reward is not None
    return evaluation.reward


def _packed(state: State) -> dict[str, Any]:
    """A state as a dict of numpy arrays."""
    return {
        "weights": {name: tensor.numpy() for name, tensor in state.weights.items()},
        "optimizer": {name: tensor.numpy() for name, tensor in state.optimizer.items()},
        "epochs": state.epochs,
        "seeds": state.seeds,
    }


def _unpacked(record: Mapping[str, Any]) -> State:
    return State(
        {name: torch.from_numpy(array) for name, array in record["weights"].items()},
        {name: torch.from_numpy(array) for name, array in record["optimizer"].items()},
        np.asarray(record["epochs"], np.int64),
        np.asarray(record["seeds"], np.int64),
    )
