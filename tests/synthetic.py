"""A cheap stand-in for training: the reward says how near a loss's gradient is to that of a hidden loss."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from statistics import NormalDist
from typing import cast

import numpy as np
import numpy.typing as npt

from gploss.compute.program import Program
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.search.evaluation import Evaluation, Status
from gploss.tasks.pointwise import POINTWISE

#: A focal loss with both labels in one formula: (label - pred)^2 times the cross-entropy.
FOCAL = (
    "neg(mul(square(add(label, neg(pred))), "
    "add(mul(label, log(pred)), mul(add(1, neg(label)), log(add(1, neg(pred)))))))"
)

Gradients = npt.NDArray[np.float64]

_QUANTILES = np.array([NormalDist(0.0, 1.5).inv_cdf((i + 0.5) / 64) for i in range(64)])
POINTS = {"score": np.concatenate([_QUANTILES, _QUANTILES]), "label": np.repeat([0.0, 1.0], 64)}


def gradients(expressions: Sequence[Expression]) -> Gradients:
    """d loss / d score at the probes: (len(expressions), 128)."""
    with np.errstate(all="ignore"):
        return np.asarray(Program.compile(list(expressions), POINTWISE).losses(POINTS)[1]["score"], np.float64)


class SyntheticEvaluator:
    """Implements `gploss.search.evaluation.Evaluator` without training anything.

    The reward is 0.5 + 0.5 * cosine between the candidate's and the target's gradient: 1 for the hidden loss and
    its multiples, about 0.5 for unrelated ones. A steep candidate "diverges".

    Args:
        target: the hidden loss.
        epochs: epochs that each candidate costs.
        higher_is_better: if not, the reward is 1 minus the above.
        before: called with the number of the call (from 0) before each evaluation of a batch.
        early_stop: makes candidates cost between 1 and `epochs` epochs.
        cached: whether everything counts as found in a cache.
    """

    def __init__(
        self,
        target: str = FOCAL,
        *,
        epochs: int = 1,
        higher_is_better: bool = True,
        before: Callable[[int], None] | None = None,
        early_stop: bool = False,
        cached: bool = False,
    ) -> None:
        self.target = target
        self.epochs = epochs
        self.metric = "likeness"
        self.higher_is_better = higher_is_better
        self.calls = 0
        self.early_stop = early_stop
        self.cached = cached
        self._before = before
        (target_gradient,) = gradients([Expression.parse(target)])
        self._target = target_gradient / np.linalg.norm(target_gradient)

    def describe(self) -> dict[str, JSON]:
        return {"kind": "synthetic", "target": self.target, "epochs": self.epochs}

    def evaluate(
        self, expressions: Sequence[Expression], seen: Mapping[str, Evaluation], limit: int
    ) -> list[Evaluation]:
        if self._before is not None:
            self._before(self.calls)
        self.calls += 1
        # Not copied: a run's evaluations would be walked through at each call. Only the first map is written to.
        known: ChainMap[str, Evaluation] = ChainMap({}, cast(dict[str, Evaluation], seen))
        evaluations: list[Evaluation] = []
        charged = 0
        for expression, gradient in zip(expressions, gradients(expressions), strict=True):
            evaluation = self._one(expression, gradient, known)
            if evaluation.charged:
                if charged == limit:
                    break
                charged += 1
                assert evaluation.fingerprint is not None
                known[evaluation.fingerprint] = evaluation
            evaluations.append(evaluation)
        return evaluations

    def _one(self, expression: Expression, gradient: Gradients, known: Mapping[str, Evaluation]) -> Evaluation:
        if not np.isfinite(gradient).all():
            return Evaluation(expression, Status.REJECTED, "non-finite")
        with np.errstate(over="ignore"):
            scale = float(np.abs(gradient).mean())
        if scale < 1e-8 or not np.isfinite(scale):
            return Evaluation(expression, Status.REJECTED, "zero gradient")
        unit = gradient / scale
        fingerprint = blake2b((np.round(unit, 6) + 0.0).tobytes(), digest_size=16).hexdigest()
        first = known.get(fingerprint)
        if first is not None:
            return Evaluation(
                expression,
                Status.DUPLICATE,
                reward=first.reward,
                metrics=first.metrics,
                fingerprint=fingerprint,
                scale=scale,
                duplicate_of=str(first.expression),
            )
        epochs = 1 + int(fingerprint, 16) % self.epochs if self.early_stop else self.epochs
        if scale > 1e6:
            return Evaluation(
                expression,
                Status.DIVERGED,
                "steep",
                fingerprint=fingerprint,
                scale=scale,
                candidate_epochs=epochs,
            )
        reward = 0.5 + 0.5 * float(unit @ self._target / np.linalg.norm(unit))
        if not self.higher_is_better:
            reward = 1.0 - reward
        return Evaluation(
            expression,
            Status.TRAINED,
            reward=reward,
            metrics={self.metric: [reward] * epochs},
            fingerprint=fingerprint,
            scale=scale,
            cached=self.cached,
            seconds=0.001,
            candidate_epochs=epochs,
        )
