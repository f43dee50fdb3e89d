"""Rejection before training: pure predicates on losses, each with a named reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.screening.fingerprint import fingerprints
from gploss.screening.probes import ProbeResponse, probe

#: A loss whose mean |d loss/d score| over the probes is below this has no gradient to learn from.
SMALLEST_SCALE: Final = 1e-8

#: Gradients under both labels that agree to this fraction do not depend on the label.
_SAME: Final = 1e-9

#: AutoLossGen's validity check: 1,000 predictions, two labels, and how many of the 2,000 signs must be right.
DIRECTION_POINTS: Final = 1_000
DIRECTION_NEEDED: Final = 1_200
_DIRECTION_SLOPE: Final = 1e-6


class Reason(StrEnum):
    """Why a loss is rejected before training."""

    NON_FINITE = "non-finite"
    ZERO_GRADIENT = "zero gradient"
    NO_LABEL = "no dependence on label"
    WRONG_DIRECTION = "wrong direction"


@dataclass(frozen=True)
class Screening:
    """K losses, looked at before training.

    Attributes:
        program: the compiled losses; made scale-free (multiplied with 1/s), if that was asked for.
        reasons: (K,) why a loss is rejected, or None.
        scales: (K,) s, the mean of |d loss/d score| over the probes; NaN or infinite for some rejected ones.
        fingerprints: (K,) as in `gploss.screening.fingerprint`.
    """

    program: Program
    reasons: list[Reason | None]
    scales: npt.NDArray[np.float64]
    fingerprints: list[str]


def screen(
    expressions: Sequence[Expression], *, scale_free: bool = True, check_direction: bool = False
) -> Screening:
    """Compile losses, measure them at the probes, and reject those that cannot train anything.

    Args:
        expressions: K losses.
        scale_free: divide each loss by its scale s, so that the learning rate means the same for all.
        check_direction: ask for AutoLossGen's validity check too.

    Example:
        >>> screening = screen([Expression.parse("square(label - pred)"), Expression.parse("pred")])
        >>> [str(reason) for reason in screening.reasons]
        ['None', 'no dependence on label']
    """
    program = Program.compile(expressions)
    response = probe(program)
    finite = _finite(response)
    zero = ~(response.scales >= SMALLEST_SCALE)
    blind = _label_blind(response)
    reasons: list[Reason | None] = [None] * len(program)
    for k in np.flatnonzero(~finite | zero | blind).tolist():
        reasons[k] = Reason.NO_LABEL if finite[k] and not zero[k] else Reason.ZERO_GRADIENT
        if not finite[k]:
            reasons[k] = Reason.NON_FINITE
    if check_direction:
        sound = [k for k, reason in enumerate(reasons) if reason is None]
        for k, right in zip(sound, right_directions(program, sound).tolist(), strict=True):
            if right <= DIRECTION_NEEDED:
                reasons[k] = Reason.WRONG_DIRECTION
    names = fingerprints(response, scale_free=scale_free)
    if scale_free:
        usable = np.where(finite & ~zero, response.scales, 1.0)
        program = program.scaled(1.0 / usable)
    return Screening(program, reasons, response.scales, names)


def right_directions(program: Program, rows: Sequence[int]) -> npt.NDArray[np.int64]:
    """Count the points at which a loss pulls the prediction towards the label.

    Source: AutoLossGen (arXiv 2204.13160), section 3.4: at 1,000 points in (0, 1) the loss must fall with pred
    where the label is 1, and rise where it is 0; a valid loss does so in more than 1,200 of the 2,000 cases.

    Args:
        program: K losses.
        rows: which of them to look at, R indices.

    Returns:
        (R,) counts between 0 and 2,000.
    """
    pred = (np.arange(DIRECTION_POINTS) + 0.5) / DIRECTION_POINTS
    scores = np.log(pred / (1 - pred))
    index = np.array(rows, np.int64)
    counts = np.zeros(len(index), np.int64)
    for label, sign in ((1.0, -1.0), (0.0, 1.0)):
        _, gradients = program.losses(scores, np.full_like(scores, label), index)
        slopes = gradients / (pred * (1 - pred))  # d loss/d pred
        counts += (sign * slopes > _DIRECTION_SLOPE).sum(axis=1)
    return counts


def _finite(response: ProbeResponse) -> npt.NDArray[np.bool_]:
    parts = (response.losses, response.gradients, response.flipped_gradients)
    finite: npt.NDArray[np.bool_] = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)
    return finite & np.isfinite(response.scales)


def _label_blind(response: ProbeResponse) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(response.gradients - response.flipped_gradients).max(axis=1)
        blind: npt.NDArray[np.bool_] = difference <= _SAME * response.scales
    return blind
