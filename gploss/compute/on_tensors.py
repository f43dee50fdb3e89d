"""d loss/d score of stacked members: compiled for the CPU, or one Triton kernel on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.gpu import load_triton_kernels
from gploss.compute.losses import LossKernel
from gploss.compute.tables import Tables

#: Computes losses (M, N) and gradients (D, M, N) from an array for each input of a task, in the task's order.
Run: TypeAlias = Callable[[Sequence[npt.NDArray[Any]]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]

#: Samples that the GPU's interpreter takes at a time, and the warps that share them.
BLOCK: Final = 128
WARPS: Final = 4


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, on which Triton launches, for a while; nothing for the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class CompiledLosses(LossKernel):
    """On the CPU.

    Args:
        run: computes losses and gradients of A members.
        inputs: names of the inputs that it takes, in its order.
        score: the one that comes from the model.
        count: A.
    """

    def __init__(self, run: Run, inputs: Sequence[str], score: str, count: int) -> None:
        self._run = run
        self._names = inputs
        self._score = score
        self._diverged = np.zeros(count, np.bool_)
        self._nothing = np.zeros((1, 0), np.float32)  # in the place of what no loss uses

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score; see `LossKernel.slopes`."""
        given = {name: column.unsqueeze(0).numpy() for name, column in inputs.items()}
        given[self._score] = scores.detach().float().contiguous().numpy()
        if self._nothing.shape[1] != scores.shape[1]:
            self._nothing = np.zeros((1, scores.shape[1]), np.float32)
        _, (gradients,) = self._run([given.get(name, self._nothing) for name in self._names])
        if weights is not None:
            gradients *= weights.numpy()
        finite = np.isfinite(gradients)
        if not finite.all():
            self._diverged |= ~finite.all(axis=1)
        if self._diverged.any():
            gradients[self._diverged] = 0.0
        gradients /= scores.shape[1]
        return torch.from_numpy(gradients).to(scores)

    def diverged(self) -> npt.NDArray[np.bool_]:
        """Return which members met a non-finite derivative, (A,)."""
        return self._diverged


@dataclass(frozen=True)
class DeviceProgram:
    """K losses on a device, and which of them each of A members uses.

    Attributes:
        arrays: of a `gploss.compute.program.Program`, in the order of the kernels' arguments.
        tables: of the program.
        rows: (A,) int64.
        slots: of the longest program.
        uses: names of the inputs that the losses use, but for the score.
        given: (J,) int32: for each input of the task but the score its place in `uses`, or -1.
    """

    arrays: tuple[torch.Tensor, ...]
    tables: Tables
    rows: torch.Tensor
    slots: int
    uses: tuple[str, ...]
    given: torch.Tensor

    def inputs(self, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the kernels read of an example beside its score, (inputs, N), from the columns by name."""
        if not self.uses:
            return self.arrays[-1]  # never read, but an argument has to be somewhere
        if len(self.uses) == 1:
            return columns[self.uses[0]].unsqueeze(0)
        return torch.stack([columns[name] for name in self.uses])

    def take(self, index: torch.Tensor) -> DeviceProgram:
        """Return the same losses for some of the members, (A,) int64."""
        return replace(self, rows=self.rows[index])


class TritonLosses(LossKernel):
    """On a CUDA device, in one launch that the host never waits for.

    Args:
        program: of A members, on the device.

    Raises:
        KernelError: Triton is not there.
    """

    def __init__(self, program: DeviceProgram) -> None:
        count, device = len(program.rows), program.rows.device
        self._kernel = load_triton_kernels(program.tables).differentiate
        self._program = program
        self._workspace = torch.empty((count, 2 * program.slots * BLOCK), device=device)
        self._diverged = torch.zeros(count, dtype=torch.int32, device=device)

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score; see `LossKernel.slopes`."""
        values = scores.detach().float().contiguous()
        given = self._program.inputs(inputs)
        slopes = torch.empty_like(values)
        with launching_on(values.device):
            self._kernel[(len(values),)](
                *self._program.arrays,
                self._program.rows,
                values,
                given,
                given.shape[-1],
                self._program.given,
                values if weights is None else weights,
                values.shape[1],
                self._diverged,
                slopes,
                self._workspace,
                self._workspace.shape[1],
                WEIGHTED=weights is not None,
                BLOCK=BLOCK,
                num_warps=WARPS,
                num_stages=1,
            )
        return slopes.to(scores)

    def diverged(self) -> npt.NDArray[np.bool_]:
        """Return which members met a non-finite derivative, (A,)."""
        found: npt.NDArray[np.bool_] = self._diverged.cpu().numpy() != 0
        return found
