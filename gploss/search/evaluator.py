"""The contract between searchers and whatever screens, looks up and trains the losses that they propose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gploss.arguments import shown
from gploss.compute.kinds import Loss
from gploss.files.plain import JSON
from gploss.search.evaluation import Evaluation


class Evaluator(Protocol):
    """What a searcher needs from whatever screens, looks up and trains candidates."""

    @property
    def epochs(self) -> int:
        """Epochs that each candidate is trained."""
        ...

    @property
    def metric(self) -> str:
        """Name of the validation metric that the reward is taken from."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction of that metric."""
        ...

    def evaluate(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluates a prefix of the losses, in order.

        Args:
            losses: candidates, of any kinds.
            seen: the run's earlier charged evaluations by fingerprint; a candidate with one of these
                fingerprints, or with that of an earlier candidate of this call, is a duplicate.
            limit: the most candidates to charge.

        Returns:
            One evaluation a loss, up to the candidate that would be the charged one number limit + 1.
        """
        ...

    def describe(self) -> dict[str, JSON]:
        """The settings of data, model and training, recorded with each result.

        Where losses are for another task than the pointwise one, "task" is its name in `gploss.TASKS`.
        """
        ...


def check_evaluator(evaluator: object) -> None:
    """Do nothing for what has all of `Evaluator`.

    Raises:
        TypeError: it lacks something, or is a class that was not called.
    """
    names = ("epochs", "metric", "higher_is_better", "evaluate", "describe")
    missing = [name for name in names if not hasattr(evaluator, name)]
    if missing or isinstance(evaluator, type):
        lack = f", which has no {', '.join(missing)}" if missing else ", a class that was not called"
        raise TypeError(f"evaluator must be such as a recmodels.LossEvaluator, got {shown(evaluator)}{lack}")


class RoundsEvaluator(ABC):
    """An evaluator whose rewards hold for one round, because what candidates start from changes after it.

    A run lets it advance whenever the searcher has learnt from all there is, tells the searcher of a new round, and
    saves both their states together.
    """

    epochs: int
    metric: str
    higher_is_better: bool

    @abstractmethod
    def evaluate(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> list[Evaluation]:
        """Evaluate a prefix of the losses; see `Evaluator`. Duplicates are those of this round."""

    @abstractmethod
    def describe(self) -> dict[str, JSON]:
        """Return the settings, which do not change from round to round."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether there are no more rounds to come."""

    @abstractmethod
    def advance(self) -> float | None:
        """Begin the next round, if this one has all that it needs; the searcher knows all evaluations by now.

        Returns:
            Where a new round begins, the metric of what its candidates start from; None elsewhere.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that later evaluations depend on, as JSON and numpy arrays."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` returned."""
