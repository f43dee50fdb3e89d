"""Losses that a proof trains with: slopes that neither vanish nor grow, so that what is wrong shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.losses import LossKernel
from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE


def formulas(task: Task) -> Program:
    """Return two losses of the score as formulas, for trainers that know nothing else.

    Args:
        task: of the losses that will be trained with: if it has a logit, no other kernel has to be compiled.
    """
    known = task if "logit" in task.terminals else POINTWISE
    return Program.compile([Expression.parse("square(logit + 1)"), Expression.parse("square(logit - 2)")], known)


class Pulls:
    """log(1 + exp(s)) and sqrt(1 + s^2), computed by torch: nothing has to be compiled for them."""

    task = POINTWISE
    uses = (POINTWISE.score,)

    def __len__(self) -> int:
        return 2

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        """Return what differentiates the losses of A members."""
        return _Slopes(rows)


class _Slopes(LossKernel):
    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = rows

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score; see `LossKernel.slopes`."""
        own = [
            (torch.sigmoid(one) if row == 0 else one * torch.rsqrt(1 + one.square())) / scores.shape[1]
            for one, row in zip(scores.detach(), self._rows, strict=True)
        ]
        slopes = torch.stack(own)
        return slopes if weights is None else slopes * weights

    def diverged(self) -> npt.NDArray[np.bool_]:
        """Return that no member is watched."""
        return np.zeros(len(self._rows), np.bool_)
