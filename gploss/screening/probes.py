"""Fixed, versioned points at which losses are looked at before anything is trained.

64 scores at normal quantiles with standard deviation 1.5, with labels 1 and 0 in turn; and the same scores with
the labels flipped. Everything that depends on them carries `PROBE_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program

PROBE_VERSION: Final = 1

#: (64,) probe scores, ascending.
SCORES: Final = np.array([NormalDist(0, 1.5).inv_cdf((i + 0.5) / 64) for i in range(64)])

#: (64,) probe labels: half 1, half 0, so that neighbours differ.
LABELS: Final = np.array([(i + 1) % 2 for i in range(64)], dtype=np.float64)

_BOTH_SCORES: Final = np.concatenate([SCORES, SCORES])
_BOTH_LABELS: Final = np.concatenate([LABELS, 1 - LABELS])

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeResponse:
    """What K losses do at the probes, multipliers left aside.

    Attributes:
        losses: (K, 128) values: at the probes, then at the probes with flipped labels.
        gradients: (K, 64) d loss/d score at the probes.
        flipped_gradients: (K, 64) the same with flipped labels.
        scales: (K,) s, the mean of |d loss/d score| over the probes.
    """

    losses: Floats
    gradients: Floats
    flipped_gradients: Floats
    scales: Floats


def probe(program: Program) -> ProbeResponse:
    """Evaluate losses at the probes, in float64."""
    losses, gradients = program.scaled(np.ones(len(program))).losses(_BOTH_SCORES, _BOTH_LABELS)
    count = len(SCORES)
    own = gradients[:, :count]
    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.abs(own).mean(axis=1)
    return ProbeResponse(losses, own, gradients[:, count:], scales)
