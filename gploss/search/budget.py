"""How long a search may go on: a number of candidates, of candidate-epochs, or of seconds."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from gploss.arguments import real_number, shown, whole_number

PROPOSALS_PER_CANDIDATE = 100
"""A run ends as exhausted after so many proposals for each candidate of its budget."""


@dataclass
class Spending:
    """What a run has used up so far.

    Attributes:
        proposals: proposals evaluated, whatever became of them.
        candidates: those that were charged (trained or diverged, from the cache or not).
        candidate_epochs: epochs of the charged ones.
        candidate_seconds: training seconds of the charged ones, as stored when they were trained.
        elapsed: seconds since the run began, interruptions excluded.
    """

    proposals: int = 0
    candidates: int = 0
    candidate_epochs: int = 0
    candidate_seconds: float = 0.0
    elapsed: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a run may spend; give exactly one of the three.

    A candidate is charged at its first use in a run, whether it is trained then or found in the cache, and
    always at the epochs and seconds stored when it was trained. So a full cache makes a run faster, but never
    longer and never different. Duplicates and rejections cost nothing.

    Attributes:
        candidates: distinct candidates trained; a run spends exactly this many unless it ends as exhausted.
        candidate_epochs: epochs summed over candidates; a run never spends more.
        seconds: ends the run after the first turn in which either its own clock or the training seconds
            of its candidates reach this. A run limited in this way cannot be replayed exactly.

    Raises:
        ValueError: unless exactly one is given and it is positive (and whole, but for seconds).
        TypeError: if a value is not a number.

    Example:
        >>> Budget(candidates=500)
        Budget(candidates=500, candidate_epochs=None, seconds=None)
        >>> Budget.of(500) == Budget(candidates=500)
        True
    """

    candidates: int | None = None
    candidate_epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {name: amount for name, amount in self._amounts().items() if amount is not None}
        if len(given) != 1:
            raise ValueError(
                "a budget has exactly one of candidates, candidate_epochs and seconds, "
                f"got {', '.join(given) or 'none of them'}"
            )
        for name, amount in given.items():
            words = f"a budget's {name}"
            number = (
                real_number(words, amount, above=0.0) if name == "seconds" else whole_number(words, amount, least=1)
            )
            object.__setattr__(self, name, number)

    @classmethod
    def of(cls, budget: int | Budget) -> Budget:
        """Return a budget; a plain number means candidates.

        Raises:
            TypeError: for anything else.
        """
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, bool) or not isinstance(budget, Integral):
            raise TypeError(f"a budget is a Budget or a number of candidates, got {shown(budget)}")
        return cls(candidates=int(budget))

    @property
    def unit(self) -> str:
        """What is counted: "candidates", "candidate_epochs" or "seconds"."""
        return next(name for name, amount in self._amounts().items() if amount is not None)

    @property
    def amount(self) -> float:
        """How much of it the run may spend."""
        return next(amount for amount in self._amounts().values() if amount is not None)

    def spent(self, spending: Spending) -> float:
        """Return how much of the budget is used up, in its unit."""
        if self.candidates is not None:
            return spending.candidates
        if self.candidate_epochs is not None:
            return spending.candidate_epochs
        return max(spending.elapsed, spending.candidate_seconds)

    def affordable(self, spending: Spending, epochs: int) -> int | None:
        """Return how many more candidates may be charged; None where only the clock can tell.

        Args:
            spending: what is spent already.
            epochs: the most epochs that one candidate is trained.
        """
        if self.candidates is not None:
            return max(0, self.candidates - spending.candidates)
        if self.candidate_epochs is not None:
            return max(0, (self.candidate_epochs - spending.candidate_epochs) // epochs)
        assert self.seconds is not None
        return None if self.spent(spending) < self.seconds else 0

    def most_proposals(self, epochs: int) -> int | None:
        """Return how many proposals a run may make in all; None where the clock ends it.

        Raises:
            ValueError: if the budget does not pay for one candidate.
        """
        affordable = self.affordable(Spending(), epochs)
        if affordable == 0:
            raise ValueError(
                f"a budget of {self.amount} candidate-epochs does not pay for one candidate of {epochs} epochs: "
                "raise the budget or lower the epochs"
            )
        return None if affordable is None else PROPOSALS_PER_CANDIDATE * affordable

    def describe(self) -> dict[str, int | float]:
        """Return the budget as JSON."""
        return {self.unit: self.amount}

    def _amounts(self) -> dict[str, int | float | None]:
        return {
            "candidates": self.candidates,
            "candidate_epochs": self.candidate_epochs,
            "seconds": self.seconds,
        }
