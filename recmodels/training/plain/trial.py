"""What a faster way is tried on: a few batches of a problem, and a protocol under which a wrong gradient shows.

Also what the scores of an untrained model tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.losses import TrainableLosses
from gploss.tasks import Task
from recmodels.data.interactions import IntegerArray
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.training.plain.trainer import PlainTrainer
from recmodels.training.problem import Judge, Part, Problem, bounds_of
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import Member, State, Trainer

#: Batches that both ways go through.
BATCHES: Final = 3

#: Of all that is drawn here.
SEED: Final = 0


class Few(Problem):
    """The first batches of an epoch, as they are; nothing is judged.

    Args:
        batches: of the epoch, real ones.
        task: of the losses.
    """

    name = "a few batches"
    metrics: Mapping[str, bool] = {"none": True}

    def __init__(self, batches: Batches, task: Task) -> None:
        self.task = task
        bounds = batches.bounds[: BATCHES + 1]
        part = batches.rows.take(np.arange(bounds[-1]))
        signs = np.random.default_rng(SEED).choice([-1.5, -0.5, 0.5, 1.5], len(part))  # losses that pull both ways
        self._batches = Batches(Rows(part.schema, part.features, {}, signs.astype(np.float32)), bounds)

    def rows(self, part: Part) -> Rows:
        """Return the examples of the batches, whichever part is asked for."""
        return self._batches.rows

    def judge_of(self, rows: Rows, groups: IntegerArray | None, device: torch.device | str = "cpu") -> Judge:
        """Return what finds nothing to say."""
        return lambda scores: {"none": torch.zeros(len(scores), dtype=torch.float64)}

    def batches(self, seed: int, epoch: int, settings: Mapping[str, float]) -> Batches:
        """Return the batches."""
        return self._batches


def made_up(schema: Schema) -> Batches:
    """Return batches of ids that are drawn, for who asks before there are data."""
    rng = np.random.default_rng(SEED)
    rows = Rows(schema, {name: rng.integers(0, size, 64 * BATCHES) for name, size in schema.items()})
    return Batches(rows, bounds_of(len(rows), 64))


def lens(protocol: Protocol) -> Protocol:
    """Return a protocol under which steps are in proportion to gradients, so that one that is off cannot hide.

    Adam's steps are the fused trainer's own: there plain SGD shows the gradients.
    """
    kind = "sgd" if protocol.optimizer == "adam" else protocol.optimizer
    return replace(
        protocol, optimizer=kind, learning_rate=1.0, weight_decay=0.02, loss_decay=0.0, gradient_clip=None,
        initial_accumulator=1.0, patience=None,
    )  # fmt: skip


def disturbed(state: State, names: Iterable[str], size: float, seed: int = SEED) -> State:
    """Return a state whose weights are off by parts of themselves.

    Args:
        state: of some members.
        names: of the weights that are changed.
        size: standard deviation of the parts.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def moved(weight: torch.Tensor) -> torch.Tensor:
        noise = size * torch.randn(weight.shape, generator=generator)
        return torch.where(weight == 0, 0.1 * noise.to(weight.dtype), weight * (1 + noise).to(weight.dtype))

    return replace(state, weights={**state.weights, **{name: moved(state.weights[name]) for name in names}})


def check_scores(trainer: PlainTrainer, fresh: State, trained: Iterable[str], problem: Problem) -> None:
    """Look at the scores of an untrained model.

    Args:
        trainer: makes them.
        fresh: the model.
        trained: names of its weights that will be trained.
        problem: some examples.

    Raises:
        ValueError: they are not finite.
    """
    scores = trainer.predict(fresh, problem.rows("test"))[0]
    wrong = np.flatnonzero(~np.isfinite(scores))
    name = trainer.described(problem.schema)
    if len(wrong):
        raise ValueError(
            f"{name} gives {len(wrong)} of {len(scores)} examples scores that are not finite before it is trained: "
            "look at its initial weights, and at what its forward divides by or takes logarithms of"
        )
    if not _are_probabilities(scores) or not _are_probabilities(
        trainer.predict(disturbed(fresh, trained, 100.0), problem.rows("test"))[0]
    ):
        return
    warnings.warn(
        f"{name} seems to return probabilities: all scores lie between 0 and 1, with any weights. Losses take the "
        "score before the sigmoid (logit) and make the probability (pred) themselves: let forward return what it "
        "gives to its last sigmoid",
        stacklevel=2,
    )


def _are_probabilities(scores: npt.NDArray[np.float32]) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all() and scores.any())


def settings_of(protocol: Protocol) -> dict[str, float]:
    """Return the protocol's own values of all settings."""
    return {name: setting.default for name, setting in protocol.settings().items()}


def trained_on(
    trainer: Trainer, losses: TrainableLosses, problem: Few, start: State
) -> tuple[State, npt.NDArray[np.float32]]:
    """Train two members with different losses on a few batches; return their states, and the scores by these."""
    members = [Member(k, SEED, settings_of(trainer.protocol)) for k in range(2)]
    states = trainer.fit(losses, members, problem, 1, start=start, keep="last").states
    assert states is not None
    return states, trainer.predict(states, problem.rows("test"))
