"""Kinds of losses: what results, caches, verdicts and reports know of one loss, and how to compute several.

A formula is one kind (`gploss.language.expression.Expression`). Another one, such as a learned mixture, registers
how it is read from text, computed and called; searches, caches and verdicts take its losses then as they take
formulas, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import shown
from gploss.compute.losses import Losses, LossKernel
from gploss.registry import Registry
from gploss.tasks import Task


class Loss(Protocol):
    """One loss, as it is written down: immutable, and equal where it is the same."""

    @property
    def kind(self) -> str:
        """Name of its kind, in `LOSS_KINDS`."""
        ...

    @property
    def complexity(self) -> int:
        """What a reader has to take in, such as the parts of a formula; of equally good losses the lesser wins."""
        ...

    @property
    def constants(self) -> Mapping[str, float]:
        """Value of each named constant: what tuning may change."""
        ...

    @property
    def family(self) -> str:
        """The text with names in the place of the values of constants."""
        ...

    def with_constants(self, **values: float) -> Loss:
        """Return the same family with other values for some of its constants."""
        ...

    def readable(self) -> str:
        """Return the text for people, on one line."""
        ...

    def __str__(self) -> str:
        """Return the exact text, which its kind reads back."""
        ...

    def __hash__(self) -> int:
        """Return the same for equal losses."""
        ...


@dataclass(frozen=True)
class LossKind:
    """What can be done with the losses of one kind.

    Attributes:
        parse: reads one from its exact text; a ValueError says what is wrong with it.
        compile: makes several of a task ready to be computed.
        function: makes one callable in a training loop, a `gploss.loss_function.LossFunction`, divided by a scale.
    """

    parse: Callable[[str], Loss]
    compile: Callable[[Sequence[Any], Task], Losses]
    function: Callable[[Any, float, Task], Any]


#: Kinds of losses by name.
LOSS_KINDS: Final[Registry[LossKind]] = Registry("kind of losses", module=__name__)


def compiled(losses: Sequence[Loss], task: Task) -> Losses:
    """Return losses, of one kind or of several, ready to be computed in their order.

    Args:
        losses: K of them.
        task: what they are given.

    Raises:
        TypeError: they are no list of losses.
        LookupError: a loss is of a kind that is not registered.
        ValueError: a loss uses what the task does not have.
    """
    if hasattr(losses, "kind"):
        raise TypeError(f"losses must be a list, got a single one: write [{shown(losses)}]")
    for loss in losses:
        if not hasattr(loss, "kind"):
            raise TypeError(f"each of losses must be a loss, such as Expression.parse(text), got {shown(loss)}")
    kinds = list(dict.fromkeys(loss.kind for loss in losses)) or [FORMULA]
    if len(kinds) == 1:
        return LOSS_KINDS[kinds[0]].compile(losses, task)
    places = [[k for k, loss in enumerate(losses) if loss.kind == kind] for kind in kinds]
    parts = [
        LOSS_KINDS[kind].compile([losses[k] for k in own], task) for kind, own in zip(kinds, places, strict=True)
    ]
    return JoinedLosses(task, tuple(parts), tuple(map(tuple, places)))


#: The kind that expressions are of.
FORMULA: Final = "formula"


@dataclass(frozen=True)
class JoinedLosses:
    """Losses of several kinds as one sequence: each is computed by its own kind; see `Losses`.

    Attributes:
        task: what they are given.
        parts: the losses of each kind.
        places: for each part, which places of the sequence its losses have.
    """

    task: Task
    parts: tuple[Losses, ...]
    places: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def texts(self) -> list[str]:
        """K texts that name the losses."""
        found = {
            k: text
            for part, own in zip(self.parts, self.places, strict=True)
            for k, text in zip(own, part.texts, strict=True)
        }
        return [found[k] for k in range(len(self))]

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the inputs that some of the losses read, in the task's order."""
        return tuple(one.name for one in self.task.inputs if any(one.name in part.uses for part in self.parts))

    def scaled(self, multipliers: npt.NDArray[np.float64]) -> JoinedLosses:
        """Return the same losses with other multipliers, shape (K,)."""
        parts = (part.scaled(multipliers[list(own)]) for part, own in zip(self.parts, self.places, strict=True))
        return JoinedLosses(self.task, tuple(parts), self.places)

    def losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """Return losses (M, N) and d loss/d input (M, N) by differentiable input, as `Program.losses` does."""
        wanted = np.arange(len(self)) if rows is None else rows
        answers = [
            (members, part.losses(_of_members(inputs, members, len(wanted), self.task), own, present))
            for part, members, own in self._divided(wanted)
        ]
        values = _spread([(members, values) for members, (values, _) in answers], len(wanted))
        names = answers[0][1][1] if answers else {}
        return values, {
            name: _spread([(members, slopes[name]) for members, (_, slopes) in answers], len(wanted))
            for name in names
        }

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        """Return what differentiates the losses of A members on a device."""
        return _JoinedKernel(
            [
                (torch.tensor(members, device=device), part.kernel(own.tolist(), device))
                for part, members, own in self._divided(np.asarray(rows))
            ],
            len(rows),
        )

    def _divided(self, rows: npt.NDArray[np.int64]) -> list[tuple[Losses, list[int], npt.NDArray[np.int64]]]:
        """Return for each part that some of M rows name: the part, which of the M, and their rows in the part."""
        divided = []
        for part, places in zip(self.parts, self.places, strict=True):
            members = [m for m, row in enumerate(rows) if row in places]
            if members:
                own = np.array([places.index(rows[m]) for m in members], np.int64)
                divided.append((part, members, own))
        return divided


class _JoinedKernel(LossKernel):
    """Each kernel differentiates the losses of its members."""

    def __init__(self, kernels: Sequence[tuple[torch.Tensor, LossKernel]], count: int) -> None:
        self.kernels = kernels
        self.count = count

    def slopes(
        self, scores: torch.Tensor, inputs: Mapping[str, torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        slopes = torch.empty_like(scores)
        for members, kernel in self.kernels:
            slopes[members] = kernel.slopes(scores[members].contiguous(), inputs, weights)
        return slopes

    def diverged(self) -> npt.NDArray[np.bool_]:
        diverged = np.zeros(self.count, np.bool_)
        for members, kernel in self.kernels:
            diverged[members.cpu().numpy()] = kernel.diverged()
        return diverged


def _of_members(
    inputs: Mapping[str, npt.NDArray[Any]], members: Sequence[int], count: int, task: Task
) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs of some of the rows; what is the same for all stays."""
    return {
        name: array[list(members)] if array.ndim == 2 + (name in task.wide) and len(array) == count > 1 else array
        for name, array in inputs.items()
    }


def _spread(parts: Sequence[tuple[Sequence[int], npt.NDArray[Any]]], count: int) -> npt.NDArray[Any]:
    """Put the rows of several arrays at their places in one."""
    whole = np.empty((count, *parts[0][1].shape[1:]), parts[0][1].dtype) if parts else np.empty((0, 0))
    for members, rows in parts:
        whole[list(members)] = rows
    return whole
