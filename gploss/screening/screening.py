"""Rejection before training: pure predicates on losses, each with a named reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.arguments import instance
from gploss.compute.kinds import Loss, compiled
from gploss.compute.losses import Losses
from gploss.screening.fingerprint import fingerprints
from gploss.screening.probes import ProbeResponse, probe
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE

#: A loss whose mean |d loss/d score| over the probes is below this has no gradient to learn from.
SMALLEST_SCALE: Final = 1e-8

#: Gradients that agree to this fraction after an input was altered do not depend on it.
_SAME: Final = 1e-9


class Reason(StrEnum):
    """Why a loss is rejected before training."""

    NON_FINITE = "non-finite"
    ZERO_GRADIENT = "zero gradient"
    NO_DEPENDENCE = "no dependence"
    WRONG_DIRECTION = "wrong direction"


@dataclass(frozen=True)
class Screening:
    """K losses, looked at before training.

    Attributes:
        losses: ready to be computed; made scale-free (multiplied with 1/s), if that was asked for.
        reasons: (K,) why a loss is rejected, or None.
        texts: (K,) the same for people: "no dependence on label" says on which input.
        scales: (K,) s, the mean of |d loss/d score| over the probes; NaN or infinite for some rejected ones.
        fingerprints: (K,) as in `gploss.screening.fingerprint`.
    """

    losses: Losses
    reasons: list[Reason | None]
    texts: list[str | None]
    scales: npt.NDArray[np.float64]
    fingerprints: list[str]


def screen(
    losses: Sequence[Loss],
    task: Task = POINTWISE,
    *,
    scale_free: bool = True,
    check_direction: bool = False,
) -> Screening:
    """Compile losses, measure them at the probes, and reject those that cannot train anything.

    Args:
        losses: K of them, of any kinds.
        task: what they are given.
        scale_free: divide each loss by its scale s, so that the learning rate means the same for all.
        check_direction: ask for the task's check of the direction too; in pointwise, AutoLossGen's validity check.

    Raises:
        ValueError: a loss uses what the task does not have, or the task has no check of the direction.

    Example:
        >>> from gploss.language.expression import Expression
        >>> screening = screen([Expression.parse("square(label - pred)"), Expression.parse("pred")])
        >>> screening.texts
        [None, 'no dependence on label']
    """
    instance("task", task, Task, "a Task, such as POINTWISE")
    if check_direction and task.direction is None:
        raise ValueError(f"the task {task.name!r} has no check of the direction")
    ready = compiled(losses, task)
    response = probe(ready)
    finite = _finite(response)
    zero = ~(response.scales >= SMALLEST_SCALE)
    missing = _independent_of(response)
    reasons: list[Reason | None] = [None] * len(ready)
    texts: list[str | None] = [None] * len(ready)

    def reject(k: int, reason: Reason, detail: str = "") -> None:
        if reasons[k] is None:
            reasons[k] = reason
            texts[k] = f"{reason}{detail}"

    for k in np.flatnonzero(~finite).tolist():
        reject(k, Reason.NON_FINITE)
    for k in np.flatnonzero(zero).tolist():
        reject(k, Reason.ZERO_GRADIENT)
    for name, blind in missing.items():
        for k in np.flatnonzero(blind).tolist():
            reject(k, Reason.NO_DEPENDENCE, f" on {name}")
    if check_direction and task.direction is not None:
        sound = [k for k, reason in enumerate(reasons) if reason is None]
        rows = np.array(sound, np.int64)
        right = task.direction(lambda points: ready.losses(points, rows)[1])
        for k in rows[~right].tolist():
            reject(k, Reason.WRONG_DIRECTION)
    names = fingerprints(response, scale_free=scale_free)
    if scale_free:
        usable = np.where(finite & ~zero, response.scales, 1.0)
        ready = ready.scaled(1.0 / usable)
    return Screening(ready, reasons, texts, response.scales, names)


def _finite(response: ProbeResponse) -> npt.NDArray[np.bool_]:
    parts = (response.losses, response.gradients, *response.altered_gradients.values())
    finite: npt.NDArray[np.bool_] = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)
    return finite & np.isfinite(response.scales)


def _independent_of(response: ProbeResponse) -> dict[str, npt.NDArray[np.bool_]]:
    """Return for each required input which losses' gradients do not depend on it, (K,)."""
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            name: np.abs(response.gradients - altered).max(axis=1) <= _SAME * response.scales
            for name, altered in response.altered_gradients.items()
        }
