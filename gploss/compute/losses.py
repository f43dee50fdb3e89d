"""What trainers know of losses: how many there are, what they read, and what differentiates them on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gploss.tasks import Task


class LossKernel(ABC):
    """Differentiates the losses of A members, for one epoch, and marks those that diverge.

    The task has one input that comes from the model: the score.
    """

    @abstractmethod
    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score, (A, B), like the scores; a member with a non-finite one is no longer moved.

        Args:
            scores: (A, B).
            inputs: (B,) float32 each: what the task's losses are given beside the score, by name.
            weights: (B,) float32: what each example's loss is multiplied with, or None for 1.
        """

    @abstractmethod
    def diverged(self) -> npt.NDArray[np.bool_]:
        """Return which members met a non-finite derivative, (A,)."""


class TrainableLosses(Protocol):
    """K losses, as far as trainers have to know them."""

    @property
    def task(self) -> Task:
        """What the losses are given."""
        ...

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the inputs that the losses read, in the task's order; the differentiable ones always are."""
        ...

    def __len__(self) -> int:
        """Return K."""
        ...

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        """Return what differentiates the losses of A members on a device.

        Args:
            rows: (A,) which of the losses each member uses.
            device: where the scores are.

        Raises:
            ValueError: the task has several inputs that come from the model.
            KernelError: the losses cannot be computed on the device.
        """
        ...


class Losses(TrainableLosses, Protocol):
    """K losses that can be searched for: a compiled program, or whatever else has these parts.

    Caches, results and tables know a loss by its text and by its fingerprint, which is made of the gradients that
    `losses` gives at the task's probes (`gploss.screening.fingerprint.fingerprints`).
    """

    @property
    def texts(self) -> Sequence[str]:
        """K texts that name the losses: where one changes, so does what is trained, and the other way round."""
        ...

    def scaled(self, multipliers: npt.NDArray[np.float64]) -> Losses:
        """Return the same losses, each multiplied with a number; (K,) in the place of earlier ones."""
        ...

    def losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """Return losses (M, N) and d loss/d input (M, N) by differentiable input, as `Program.losses` does."""
        ...
