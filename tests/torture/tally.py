"""What became of each trial, counted; what must not happen is kept with its story."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

#: Stories of what must not happen that are printed of a kind.
_STORIES: Final = 20


@dataclass
class Tally:
    """Trials of one kind.

    Attributes:
        kind: what was tried.
        outcomes: how often each outcome came.
        faults: outcomes that must not be, with how to get them again.
        begun: when.
        seconds: how long it took.
    """

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def add(self, outcome: str) -> None:
        """Count an outcome that may be."""
        self.outcomes[outcome] += 1
        self.seconds = time.monotonic() - self.begun

    def fault(self, outcome: str, story: str) -> None:
        """Count an outcome that must not be."""
        self.add(f"FAULT: {outcome}")
        self.faults.append(f"{outcome}: {story}")
        if len(self.faults) <= _STORIES:
            print(f"  FAULT in {self.kind}: {outcome}: {story}", flush=True)

    @property
    def trials(self) -> int:
        """How many there were."""
        return sum(self.outcomes.values())

    def row(self) -> str:
        """A row of the table in Markdown."""
        found = ", ".join(f"{outcome} {count:,}" for outcome, count in self.outcomes.most_common())
        return f"| {self.kind} | {self.trials:,} | {found} | {self.seconds:,.0f} |"


def table(tallies: list[Tally]) -> str:
    """All kinds as a table in Markdown."""
    head = ["| kind | trials | what became of them | seconds |", "| --- | ---: | --- | ---: |"]
    return "\n".join([*head, *(tally.row() for tally in tallies)])
