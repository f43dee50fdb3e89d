"""Whether a faster way trains the user's own module: tried on a few real batches, never taken on trust.

Two members with different weights and losses go through the batches in plain torch and in the faster way, by the
protocol's own optimiser with constants under which a wrong gradient shows. Weights, buffers and scores must then be
the same, but for rounding. Scores are those of states that were taken out and put back, as `predict` does it.

Rounding can turn a ReLU over, and then it does not stay small. So what plain torch gives for weights that are off
by as much as rounding is right as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.losses import TrainableLosses
from recmodels.data.rows import Batches
from recmodels.models.base import ModelFactory
from recmodels.training.plain.pulls import Pulls
from recmodels.training.plain.single import DENSE
from recmodels.training.plain.trainer import PlainTrainer
from recmodels.training.plain.trial import SEED, Few, check_scores, disturbed, lens, settings_of, trained_on
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import State, Trainer

#: How far a weight may be off, as a part of the largest step of its tensor, of its largest weight, and of the
#: largest step of all; and a score, as a part of the largest one. Rounding stays below a tenth of each.
OF_STEP: Final = 3e-4
OF_WEIGHT: Final = 2e-6
OF_ALL_STEPS: Final = 1e-5
OF_SCORE: Final = 1e-4

#: How much rounding changes a weight, as a part of it, and how often that is tried.
ROUNDING: Final = 5e-7
REPEATS: Final = 16

#: States of two members after the batches, and their scores.
Result: TypeAlias = tuple[State, npt.NDArray[np.float32]]


def draws_alike(device: torch.device) -> bool:
    """Whether a mask of dropout for many members is drawn from the same random numbers as one for a module alone.

    CUDA's own dropout draws otherwise: there layers are compared without.
    """
    return device.type == "cpu"


class OtherwiseError(RuntimeError):
    """A faster way cannot do what the user's module does."""


def first_line(error: BaseException) -> str:
    """Return the first sentence of what an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].partition('. ')[0][:200]}"


class Proof:
    """What plain torch makes of a few batches.

    Args:
        model: makes the user's module.
        protocol: of the trainer that is to be held to it.
        batches: of the problem.
        device: where to train.
        losses: two that both ways can train with; by default ones for which nothing has to be compiled.

    Attributes:
        protocol: that all train by.
        idle: names of parameters that no batch gave a gradient.
        fields: the column of ids that each row-wise table is looked up with.
        carried: attributes that training changes.

    Raises:
        ValueError: the module cannot be trained at all; the message says why.
    """

    def __init__(
        self,
        model: ModelFactory,
        protocol: Protocol,
        batches: Batches,
        device: str,
        losses: TrainableLosses | None = None,
    ) -> None:
        self.protocol = lens(protocol)
        self._losses = Pulls() if losses is None else losses
        self._problem = Few(batches, self._losses.task)
        self._trainer = PlainTrainer(model, self.protocol, device=device, together=2)
        self._trainer.finds_carried = True
        self._trainer.drops_nothing = not draws_alike(self._trainer.device)
        try:
            first = self._trainer.single(batches.rows.schema, SEED, settings_of(self.protocol))
            fresh = first.state(0, SEED)
            check_scores(self._trainer, fresh, first.trained, self._problem)
            self._start = State.join([fresh, disturbed(fresh, first.trained, 0.1)])
            self._results = [trained_on(self._trainer, self._losses, self._problem, self._start)]
        except (ValueError, LookupError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the module's forward and backward say
            name = self._trainer.described(batches.rows.schema)
            raise ValueError(f"{name} cannot be trained: {first_line(error)}") from error
        self._trainer.finds_carried = False
        self.carried = self._trainer.carried
        self.fields: Mapping[str, str] = first.fields
        self._trained = tuple(first.trained)
        before, after = self._start.weights, self._results[0][0].weights
        self.idle = frozenset(name for name in first.trained if torch.equal(after[name], before[name]))

    def why_not(self, candidate: Trainer) -> str | None:
        """Return what a faster trainer, of the same model and of `protocol`, does otherwise; None if nothing."""
        if self.carried:
            return f"training changes {min(self.carried)}, which is neither parameter nor buffer"
        try:
            states, scores = trained_on(candidate, self._losses, self._problem, self._start_without_idle())
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except OtherwiseError as error:
            return str(error)
        except Exception as error:  # whatever the module says to what is done with it
            return first_line(error)
        reasons: dict[int, str] = {}
        members = [0, 1]
        for plain in self._plain_results():
            found = {k: self._difference(plain, (states, scores), k) for k in members}
            reasons = {k: reason for k, reason in found.items() if reason is not None}
            members = list(reasons)
            if not members:
                return None
        return next(iter(reasons.values()))

    def _start_without_idle(self) -> State:
        """Return the start for trainers that keep no optimiser state of parameters without gradient."""
        sums = self._start.optimizer
        if not self.idle or not sums:
            return self._start
        dense = set(self._trained) - self.idle - self.fields.keys()
        count = sum(self._start.weights[name][0].numel() for name in dense)
        kept = {name: own for name, own in sums.items() if name not in self.idle}
        return replace(self._start, optimizer=kept | {DENSE: sums[DENSE][:, :count]})  # all alike before a step

    def _plain_results(self) -> Iterator[Result]:
        """Yield what plain torch gives, and then what it gives for weights that are off by rounding."""
        yield from self._results
        for seed in range(len(self._results), REPEATS + 1):
            start = disturbed(self._start, self._trained, ROUNDING, seed)
            self._results.append(trained_on(self._trainer, self._losses, self._problem, start))
            yield self._results[-1]

    def _difference(self, plain: Result, other: Result, k: int) -> str | None:
        """Return what differs of member k by more than rounding."""
        expected, found, before = plain[0].weights, other[0].weights, self._start.weights
        if found.keys() != expected.keys():
            return "it keeps other weights than the module has"
        steps = {
            name: _most(own[k], before[name][k])
            for name, own in expected.items()
            if (own.is_floating_point() or own.is_complex()) and own[k].numel()
        }
        largest = max(steps.values(), default=0.0)
        for name, own in expected.items():
            if found[name].shape != own.shape:
                return f"{name} has another shape"
            bound = 0.0
            if name in steps:
                bound = OF_STEP * steps[name] + OF_WEIGHT * float(own[k].abs().max()) + OF_ALL_STEPS * largest
            if own.numel() and not _most(own[k], found[name][k]) <= bound:
                return f"{name} is not trained to the same values"
        bound = OF_SCORE * float(np.abs(plain[1][k]).max()) + 1e-6
        return None if np.abs(plain[1][k] - other[1][k]).max() <= bound else "scores of trained weights differ"


def _most(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference."""
    return float((one.to(torch.complex128) - other.to(torch.complex128)).abs().max())
