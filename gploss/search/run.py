"""One run of a searcher that asks and tells: turn by turn until the budget is spent, saved so that none is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gploss.environment import versions
from gploss.files.plain import JSON, canonical_json
from gploss.language.expression import Expression
from gploss.search.ask_tell import AskTell
from gploss.search.budget import Budget
from gploss.search.checkpoint import Checkpoint, Saved
from gploss.search.evaluation import Evaluation
from gploss.search.evaluator import RoundsEvaluator
from gploss.search.interruption import Interruption
from gploss.search.progress import Display
from gploss.search.record import Progress, RunRecord
from gploss.search.result import SearchResult


class StopSearch(Exception):  # noqa: N818 (a request, not an error)
    """Raised by a callback to end the run after the present turn; the result is complete up to there."""


Callback: TypeAlias = Callable[[AskTell, Sequence[Evaluation], Progress], None]
"""Called after each turn with the searcher, the turn's new evaluations, and where the run stands."""


@dataclass
class Turn:
    """Proposals that were asked for, and the evaluations of the first few of them.

    A turn stays open over a spent budget. So a run that goes on later with a larger one tells its searcher
    the whole turn, as if there had been no pause.

    Attributes:
        proposals: as asked for.
        evaluations: of a prefix of them.
    """

    proposals: list[Expression] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def rest(self) -> list[Expression]:
        """The proposals not evaluated yet."""
        return self.proposals[len(self.evaluations) :]


class SearchRun:
    """Drives one run.

    Args:
        searcher: what asks and tells.
        budget: what the run may spend.
        checkpoint: where its state is kept, or None. A run that is in it already goes on.

    Raises:
        CheckpointError: if the checkpoint is of a run with other settings, or cannot be used.
        ValueError: if the budget does not pay for one candidate, or is less than the checkpoint's run has spent.
    """

    def __init__(self, searcher: AskTell, budget: Budget, checkpoint: Checkpoint | None) -> None:
        self._searcher = searcher
        self._budget = budget
        self._checkpoint = checkpoint
        self._most_proposals = budget.most_proposals(searcher.evaluator.epochs)
        self._record = RunRecord(searcher.evaluator.higher_is_better)
        self._turn = Turn()
        self._turned_down_before = searcher.turned_down
        self._settings = searcher.settings()
        self._started = time.monotonic()
        if checkpoint is not None:
            checkpoint.begin(self._settings)
            self._resume(checkpoint, checkpoint.load())

    def go(self, callbacks: Sequence[Callback], display: Display, interruption: Interruption) -> SearchResult:
        """Take turns until there is a reason to stop, and return the result.

        Raises:
            BaseException: whatever stopped the run, with the result so far as its `search_result`.
        """
        try:
            return self._result(self._take_turns(callbacks, display, interruption))
        except BaseException as error:
            self._hand_over(error)
            raise

    def _hand_over(self, error: BaseException) -> None:
        """Give an exception what was found before it."""
        result = self._result("failed")
        error.search_result = result  # type: ignore[attr-defined]
        error.add_note(
            f"{len(result.records)} evaluations were made before this error: they are its `search_result`"
        )

    def _take_turns(self, callbacks: Sequence[Callback], display: Display, interruption: Interruption) -> str:
        """Take turns until there is a reason to stop, and return it."""
        display.update(self._progress())
        stopped = self._reason_to_stop(interruption)
        while stopped is None:
            try:
                new = self._evaluate_next(interruption)
            except KeyboardInterrupt:
                stopped = "interrupted"
                break
            self._take(new)
            progress = self._progress()
            display.update(progress)
            try:
                for callback in callbacks:
                    callback(self._searcher, new, progress)
            except StopSearch:
                interruption.requested = True
            stopped = self._reason_to_stop(interruption)
        if self._turn.evaluations:
            # In the checkpoint the turn stays open; the searcher at hand should know all that is known.
            self._searcher.tell(self._turn.evaluations)
        return stopped

    def _reason_to_stop(self, interruption: Interruption) -> str | None:
        spending = self._record.spending
        spending.elapsed = max(spending.elapsed, self._elapsed())
        if self._budget.affordable(spending, self._searcher.evaluator.epochs) == 0:
            return "budget"
        if isinstance(self._searcher.evaluator, RoundsEvaluator) and self._searcher.evaluator.finished:
            return "budget"
        if self._most_proposals is not None and spending.proposals >= self._most_proposals:
            return "exhausted"
        return "interrupted" if interruption.requested else None

    def _evaluate_next(self, interruption: Interruption) -> list[Evaluation]:
        """Evaluate what is left of the turn, beginning a new one where nothing is."""
        if not self._turn.rest:
            self._turn = Turn(self._searcher.ask(self._searcher.proposals_at_once))
        spending = self._record.spending
        batch = self._turn.rest
        if self._most_proposals is not None:
            batch = batch[: self._most_proposals - spending.proposals]
        evaluator = self._searcher.evaluator
        affordable = self._budget.affordable(spending, evaluator.epochs)
        limit = len(batch) if affordable is None else affordable
        with interruption.allowed():
            evaluations = evaluator.evaluate(batch, self._record.seen, limit)
        _check_evaluations(batch, evaluations, limit)
        return evaluations

    def _take(self, new: Sequence[Evaluation]) -> None:
        """Record, tell and save new evaluations."""
        elapsed = self._elapsed()
        self._record.add(new, elapsed)
        self._turn.evaluations.extend(new)
        if not self._turn.rest:
            self._searcher.tell(self._turn.evaluations)
            self._turn = Turn()
            if isinstance(self._searcher.evaluator, RoundsEvaluator):
                start = self._searcher.evaluator.advance()
                if start is not None:
                    self._searcher.new_round(start)
        if self._checkpoint is not None:
            self._checkpoint.save(new, [elapsed] * len(new), self._state())

    def _state(self) -> dict[str, Any]:
        evaluator = self._searcher.evaluator
        return {
            "evaluator": evaluator.state_dict() if isinstance(evaluator, RoundsEvaluator) else None,
            "searcher": self._searcher.state_dict(),
            "turned_down_before": self._turned_down_before,
            "turn": {
                "proposals": [str(proposal) for proposal in self._turn.proposals],
                "evaluated": len(self._turn.evaluations),
            },
        }

    def _resume(self, checkpoint: Checkpoint, saved: Saved | None) -> None:
        if saved is None:
            # So that a run stopped in its first turn goes on from its beginning, warm start included.
            checkpoint.save([], [], self._state())
            return
        with checkpoint.making_sense():
            told = len(saved.evaluations) - saved.state["turn"]["evaluated"]
            whole = _length_before_damage(saved.evaluations, told)
        # What comes after a damaged evaluation of the open turn is evaluated again, and written over.
        checkpoint.forget(whole)
        for evaluation, elapsed in zip(saved.evaluations[:whole], saved.elapsed, strict=False):
            if evaluation is not None:
                self._record.add([evaluation], elapsed)
        self._started = time.monotonic() - self._record.spending.elapsed
        spent = self._budget.spent(self._record.spending)
        if self._budget.seconds is None and spent > self._budget.amount:
            raise ValueError(
                f"the run in {checkpoint.path} has spent {spent:.0f} {self._budget.unit.replace('_', '-')}, "
                f"more than the budget of {self._budget.amount:.0f}: give at least that, or another checkpoint"
            )
        with checkpoint.making_sense():
            self._searcher.load_state_dict(saved.state["searcher"])
            if isinstance(self._searcher.evaluator, RoundsEvaluator):
                self._searcher.evaluator.load_state_dict(saved.state["evaluator"])
            self._turned_down_before = int(saved.state["turned_down_before"])
            self._turn = Turn(
                [Expression.parse(text) for text in saved.state["turn"]["proposals"]],
                [evaluation for evaluation in saved.evaluations[told:whole] if evaluation is not None],
            )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _progress(self) -> Progress:
        progress = self._record.progress(self._budget)
        progress.counts["below_baseline"] = self._searcher.turned_down - self._turned_down_before
        return progress

    def _result(self, stopped: str) -> SearchResult:
        evaluator = self._searcher.evaluator
        settings: dict[str, JSON] = {
            **self._settings,
            "budget": self._budget.describe(),
            "versions": versions(),
        }
        return SearchResult(
            searcher=self._searcher.name,
            seed=self._searcher.seed,
            stopped=stopped,
            metric=evaluator.metric,
            higher_is_better=evaluator.higher_is_better,
            counts=self._progress().counts,
            settings=json.loads(canonical_json(settings)),
            records=tuple(self._record.evaluations),
            elapsed=tuple(self._record.elapsed),
        )


def _length_before_damage(evaluations: Sequence[Evaluation | None], start: int) -> int:
    """How many evaluations there are before the first damaged one from the start on."""
    return next((step for step in range(start, len(evaluations)) if evaluations[step] is None), len(evaluations))


def _check_evaluations(batch: Sequence[Expression], evaluations: Sequence[Evaluation], limit: int) -> None:
    """Refuse what would make a run endless, or its budget a lie.

    Raises:
        RuntimeError: if these are not evaluations of a prefix of the batch that ends where the limit says.
    """
    charged = sum(evaluation.charged for evaluation in evaluations)
    order_kept = len(evaluations) <= len(batch) and all(
        evaluation.loss is loss for evaluation, loss in zip(evaluations, batch, strict=False)
    )
    if not order_kept:
        raise RuntimeError("the evaluator must return one evaluation a proposal, of a prefix, in their order")
    if charged > limit:
        raise RuntimeError(f"the evaluator charged {charged} candidates, the limit was {limit}")
    if len(evaluations) < len(batch) and charged < limit:
        raise RuntimeError(
            f"the evaluator stopped before its limit of {limit}: it charged {charged} candidates, "
            f"and returned {len(evaluations)} evaluations for {len(batch)} proposals"
        )
