"""d loss/d score of stacked members: compiled for the CPU, or one Triton kernel on a CUDA device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from gploss.compute.gpu import load_triton_kernels
from gploss.compute.program import Program

#: Samples that the GPU's interpreter takes at a time, and the warps that share them.
BLOCK: Final = 128
WARPS: Final = 4


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, on which Triton launches, for a while; nothing for the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


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

    @staticmethod
    def of(program: Program, rows: Sequence[int], device: torch.device) -> LossKernel:
        """Return the kernel for a device.

        Args:
            program: K losses.
            rows: (A,) which of them each member uses.
            device: where the scores are.

        Raises:
            ValueError: the task has several inputs that come from the model.
            KernelError: the device is a GPU, and Triton is not there.
        """
        if device.type == "cpu":
            return CompiledLosses(program, rows)
        return TritonLosses(program, rows, device)


class CompiledLosses(LossKernel):
    """On the CPU; arguments as in `LossKernel.of`."""

    def __init__(self, program: Program, rows: Sequence[int]) -> None:
        self._score = program.task.score
        self._names = program.tables.inputs
        self._run = program.runner(np.array(rows, np.int64))
        self._diverged = np.zeros(len(rows), np.bool_)

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score; see `LossKernel.slopes`."""
        given = {name: column.unsqueeze(0).numpy() for name, column in inputs.items()}
        given[self._score] = scores.detach().float().contiguous().numpy()
        nothing = np.zeros((1, scores.shape[1]), np.float32)  # in the place of what no loss uses
        _, (gradients,) = self._run([given.get(name, nothing) for name in self._names])
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
        tables: arrays of `gploss.compute.program.Program`, in the order of the kernels' arguments.
        rows: (A,) int64.
        slots: of the longest program.
        uses: names of the inputs that the losses use, but for the score.
        given: (J,) int32: for each input of the task but the score its place in `uses`, or -1.
    """

    tables: tuple[torch.Tensor, ...]
    rows: torch.Tensor
    slots: int
    uses: tuple[str, ...]
    given: torch.Tensor

    @staticmethod
    def of(program: Program, rows: Sequence[int], device: torch.device) -> DeviceProgram:
        """Copy programs to a device.

        Args:
            program: K losses.
            rows: (A,) which of them each member uses.
            device: where to.

        Raises:
            ValueError: the task has several inputs that come from the model.
        """
        lengths = np.diff(program.instruction_offsets) + np.diff(program.constant_offsets)
        arrays: tuple[npt.NDArray[Any], ...] = (
            program.instructions,
            program.instruction_offsets,
            program.constants.astype(np.float32),
            program.constant_offsets,
            program.roots,
            program.used,
            program.clamped.astype(np.int32),
            program.multipliers.astype(np.float32),
        )
        others = [name for name in program.tables.inputs if name != program.task.score]
        uses = tuple(name for name in others if name in program.uses)
        given = [uses.index(name) if name in uses else -1 for name in others]
        # A kernel's argument has to be somewhere, even if there is no constant.
        filled = (array if array.size else np.zeros(1, array.dtype) for array in arrays)
        return DeviceProgram(
            tuple(torch.tensor(array, device=device) for array in filled),
            torch.tensor(np.asarray(rows, np.int64), device=device),
            len(program.tables.terminals) + int(lengths.max(initial=0)),
            uses,
            torch.tensor(given, dtype=torch.int32, device=device),
        )

    def inputs(self, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the kernels read of an example beside its score, (inputs, N), from the columns by name."""
        if not self.uses:
            return self.tables[-1]  # never read, but an argument has to be somewhere
        if len(self.uses) == 1:
            return columns[self.uses[0]].unsqueeze(0)
        return torch.stack([columns[name] for name in self.uses])

    def take(self, index: torch.Tensor) -> DeviceProgram:
        """Return the same losses for some of the members, (A,) int64."""
        return replace(self, rows=self.rows[index])


class TritonLosses(LossKernel):
    """On a CUDA device, in one launch that the host never waits for; arguments as in `LossKernel.of`.

    Raises:
        KernelError: Triton is not there.
    """

    def __init__(self, program: Program, rows: Sequence[int], device: torch.device) -> None:
        self._kernel = load_triton_kernels(program.tables).differentiate
        self._program = DeviceProgram.of(program, rows, device)
        self._workspace = torch.empty((len(rows), 2 * self._program.slots * BLOCK), device=device)
        self._diverged = torch.zeros(len(rows), dtype=torch.int32, device=device)

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return d (mean loss)/d score; see `LossKernel.slopes`."""
        values = scores.detach().float().contiguous()
        given = self._program.inputs(inputs)
        slopes = torch.empty_like(values)
        with launching_on(values.device):
            self._kernel[(len(values),)](
                *self._program.tables,
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
