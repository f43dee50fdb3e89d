"""What is known about one candidate after it was looked at: the only thing that a searcher is told.

`Evaluation` is one candidate's result, and `EvaluationKey` names everything that training saw: cached metrics are
served only under an equal key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gploss.arguments import whole_number
from gploss.compute.kinds import LOSS_KINDS, Loss
from gploss.files.plain import JSON, canonical_json, digest
from gploss.files.shapes import NUMBER, require, require_each
from gploss.language.expression import Expression


class Status(StrEnum):
    """What became of a candidate."""

    TRAINED = "trained"
    """Trained (or found in the cache as trained): it has metrics and a reward."""
    DIVERGED = "diverged"
    """Training produced numbers that are not finite: charged to the budget, no reward."""
    REJECTED = "rejected"
    """Turned down before training, with a named reason: not charged, no reward."""
    DUPLICATE = "duplicate"
    """Same fingerprint as an earlier candidate of this run: not trained, not charged."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result for one candidate.

    A duplicate carries the metrics and the reward of the first candidate with its fingerprint. Rejected and
    diverged candidates have no reward: what failure is worth is `gploss.search.reward.Reward`'s business.

    Attributes:
        loss: the candidate as it was proposed.
        status: what became of it.
        reason: why it was rejected or diverged; None otherwise.
        reward: best validation value over the epochs, in the metric's own direction; None without one.
        metrics: raw values by metric name, one an epoch; NaN where an epoch has none.
        fingerprint: hash of the loss's gradient on the fixed probes; None where it was rejected before that.
        scale: mean |d loss/d score| over the probes, by which the loss was divided; None where it was not.
        duplicate_of: text of the first loss with the same fingerprint.
        cached: whether the metrics were found in the cache.
        seconds: training time, as stored when it was trained.
        candidate_epochs: epochs trained.

    Raises:
        ValueError: if the fields contradict the status, or a number that must be finite is not.
    """

    loss: Loss
    status: Status
    reason: str | None = None
    reward: float | None = None
    metrics: dict[str, list[float]] = field(default_factory=dict)
    fingerprint: str | None = None
    scale: float | None = None
    duplicate_of: str | None = None
    cached: bool = False
    seconds: float = 0.0
    candidate_epochs: int = 0

    def __post_init__(self) -> None:
        for name, number in (("reward", self.reward), ("scale", self.scale), ("seconds", self.seconds)):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an evaluation's {name} must be finite or None, got {number!r}")
        failed = self.status in (Status.REJECTED, Status.DIVERGED)
        if failed and self.reward is not None:
            raise ValueError(f"a {self.status} evaluation has no reward, got {self.reward!r}")
        if failed and not self.reason:
            raise ValueError(f"a {self.status} evaluation needs a reason")
        if self.status is Status.TRAINED and self.reward is None:
            raise ValueError("a trained evaluation needs a reward")
        if self.status is Status.DUPLICATE and self.duplicate_of is None:
            raise ValueError("a duplicate evaluation must name in duplicate_of what it duplicates")

    @property
    def charged(self) -> bool:
        """Whether the candidate counts against the budget: trained or diverged, from the cache or not."""
        return self.status in (Status.TRAINED, Status.DIVERGED)

    @property
    def expression(self) -> Expression:
        """The loss, where it is a formula.

        Raises:
            TypeError: it is of another kind.
        """
        if not isinstance(self.loss, Expression):
            raise TypeError(f"a {self.loss.kind} is no formula: {self.loss.readable()}")
        return self.loss

    def to_json(self) -> dict[str, JSON]:
        """The evaluation as plain JSON values; NaN becomes null, infinities the texts "inf" and "-inf"."""
        return {
            "kind": self.loss.kind,
            "loss": str(self.loss),
            "status": str(self.status),
            "reason": self.reason,
            "reward": None if self.reward is None else float(self.reward),
            "metrics": metrics_to_json(self.metrics),
            "fingerprint": self.fingerprint,
            "scale": None if self.scale is None else float(self.scale),
            "duplicate_of": self.duplicate_of,
            "cached": bool(self.cached),
            "seconds": float(self.seconds),
            "candidate_epochs": int(self.candidate_epochs),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` described.

        Raises:
            ValueError: if the record lacks a field, has one too many, or a field does not make sense.
            LookupError: if the loss is of a kind that is not registered.
        """
        names = {"kind", *cls.__dataclass_fields__}
        if record.keys() != names:
            missing, unknown = sorted(names - record.keys()), sorted(record.keys() - names)
            raise ValueError(f"not an evaluation: missing fields {missing}, unknown fields {unknown}")
        require(record, _KINDS)
        whole_number("candidate_epochs", record["candidate_epochs"], least=0, most=2**63 - 1)
        for name, values in record["metrics"].items():
            require({name: values}, {name: (list,)})
            require_each(name, values, (*NUMBER, str, type(None)))
        fields = dict(record)
        fields["loss"] = LOSS_KINDS[fields.pop("kind")].parse(record["loss"])
        fields["status"] = Status(record["status"])
        fields["metrics"] = metrics_from_json(record["metrics"])
        return cls(**fields)


_MAYBE_TEXT: Final = (str, type(None))
_MAYBE_NUMBER: Final = (*NUMBER, type(None))

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("kind", "loss", "status"), (str,)),
    **dict.fromkeys(("reason", "fingerprint", "duplicate_of"), _MAYBE_TEXT),
    **dict.fromkeys(("reward", "scale"), _MAYBE_NUMBER),
    "metrics": (dict,),
    "cached": (bool,),
    "seconds": NUMBER,
    "candidate_epochs": (int,),
}


def metrics_to_json(metrics: Mapping[str, Sequence[float]]) -> dict[str, JSON]:
    """Metrics by name, one value an epoch, as JSON: NaN becomes null, infinities "inf" and "-inf"."""
    return {name: [_number_to_json(value) for value in values] for name, values in metrics.items()}


def metrics_from_json(record: Mapping[str, Sequence[float | str | None]]) -> dict[str, list[float]]:
    """What `metrics_to_json` was given."""
    return {
        name: [math.nan if value is None else float(value) for value in values] for name, values in record.items()
    }


def _number_to_json(value: float) -> JSON:
    value = float(value)
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


@dataclass(frozen=True, slots=True)
class EvaluationKey:
    """Everything that training a candidate depends on, the loss itself and the number of epochs excepted.

    Two keys are equal when their canonical JSON is. So 1 and 1.0, or 0.0 and -0.0, differ: that costs a cache
    hit, never a wrong one.

    Attributes:
        fields: a copy of the values given: text, finite numbers, booleans, None, lists and mappings of these.
        canonical_json: the fields as JSON with sorted keys and no spaces, floats by repr.
        hash: BLAKE2b of canonical_json, 32 hexadecimal characters.

    Raises:
        ValueError: if a value is not JSON; the message names where it is.

    Example:
        >>> EvaluationKey({"model": "mf", "learning_rate": 0.05}).canonical_json
        '{"learning_rate":0.05,"model":"mf"}'
    """

    fields: Mapping[str, JSON] = field(compare=False)
    canonical_json: str = field(init=False, repr=False)
    hash: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.fields, dict):
            raise ValueError(f"an evaluation key needs a dict of fields, got {self.fields!r}")
        text = canonical_json(self.fields)
        # A copy, so that a caller's later change to its mapping cannot make fields and hash disagree.
        object.__setattr__(self, "fields", json.loads(text))
        object.__setattr__(self, "canonical_json", text)
        object.__setattr__(self, "hash", digest(text))
