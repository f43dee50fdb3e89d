"""What AutoLossGen's authors report, and how they train from scratch to the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gploss.tasks import NamedLoss
from gploss.tasks.pointwise import LOSSES
from recmodels.training.protocol import Protocol

#: Test AUC that AutoLossGen's authors' code gives on MovieLens 100K (their own split, MF, one seed): at the epoch
#: with the best validation AUC, after at most 300 epochs, stopping after 100 without a better one. Their hinge is
#: torch's HingeEmbeddingLoss on the score.
AUTHORS: Final = {
    "maxr": 0.677,
    "sumr": 0.652,
    "hinge_embedding": 0.626,
    "logmin": 0.593,
    "bce": 0.565,
    "focal": 0.553,
    "mse": 0.507,
}

_STANDARD_EPOCHS, _PAPER_EPOCHS = 30, 300


def published() -> list[NamedLoss]:
    """Return the seven losses that AutoLossGen's authors compare."""
    return [LOSSES[name] for name in AUTHORS]


def long_protocol(protocol: Protocol) -> Protocol:
    """Return the protocol of training from scratch to the end: "paper" has its regulariser in the loss as well."""
    return replace(protocol, loss_decay=1e-4) if protocol.name == "paper" else protocol


def long_epochs(protocol: Protocol) -> int:
    """Return how long training from scratch may last; the protocol's patience ends it earlier."""
    return _PAPER_EPOCHS if protocol.name == "paper" else _STANDARD_EPOCHS
