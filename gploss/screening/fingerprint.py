"""A name for what a loss does in training: a hash of its gradient at the probes.

Two formulas with one fingerprint train the same model, whatever they look like, so the second is never trained.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np

from gploss.screening.probes import PROBE_VERSION, ProbeResponse

#: Gradients are compared to this fraction of their mean magnitude.
RESOLUTION: Final = 1e-5


def fingerprints(response: ProbeResponse, *, scale_free: bool) -> list[str]:
    """Return the fingerprint of each of K losses.

    Args:
        response: what the losses do at the probes.
        scale_free: a loss and its multiples are one (their gradients are divided by s in training too). Otherwise
            the scale is part of the fingerprint.

    Returns:
        K texts such as ``"1-0f3a..."``: the probes' version and 32 hexadecimal digits. Losses that screening
        turns down have one too, of no meaning.
    """
    scales = response.scales
    with np.errstate(all="ignore"):
        steps = np.rint(response.gradients / (scales * RESOLUTION)[:, None])
        magnitude = np.zeros_like(scales) if scale_free else np.rint(np.log2(scales) / RESOLUTION)
        table = np.column_stack([magnitude, steps])
        table = np.nan_to_num(np.clip(table, -(2**53), 2**53)).astype(np.int64)
    return [f"{PROBE_VERSION}-{blake2b(row, digest_size=16).hexdigest()}" for row in table]
