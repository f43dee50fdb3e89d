"""What losses do at a task's probes: fixed points at which they are looked at before anything is trained.

Everything that depends on the built-in tasks' probes carries `PROBE_VERSION`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gploss.compute.losses import Losses

PROBE_VERSION: Final = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeResponse:
    """What K losses do at P probes.

    Attributes:
        losses: (K, (1 + R) P) values: at the probes, then with each of R required inputs altered.
        gradients: (K, D P) d loss/d input at the probes, one differentiable input after the other; of a wide input
            all of its values, 0 where one is not there.
        altered_gradients: the same with an input altered, by its name.
        scales: (K,) s, the mean of |d loss/d input| over all of `gradients`.
    """

    losses: Floats
    gradients: Floats
    altered_gradients: Mapping[str, Floats]
    scales: Floats


def probe(losses: Losses) -> ProbeResponse:
    """Evaluate losses at their task's probes, in float64."""
    task = losses.task
    points = [task.probes(), *(task.probes(altered=name) for name in task.required)]
    together = {name: np.concatenate([part[name] for part in points]) for name in points[0]}
    present = task.present
    if present is None:
        values, gradients = losses.losses(together)
    else:
        values, gradients = losses.losses(together, present=np.tile(present, (len(points), 1)))
    count = len(together[task.inputs[0].name]) // len(points)
    parts = [
        np.concatenate(
            [_flat(column[:, i * count : (i + 1) * count]) for column in gradients.values()],
            axis=1,
        )
        for i in range(len(points))
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.abs(parts[0]).mean(axis=1)
    return ProbeResponse(values, parts[0], dict(zip(task.required, parts[1:], strict=True)), scales)


def _flat(gradients: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put all that follows the first dimension into one."""
    return gradients.reshape(len(gradients), int(np.prod(gradients.shape[1:])))
