"""What a search ends with, whichever searcher ran it: the best losses, every evaluation, and how it went."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gploss.arguments import instance, shown, whole_number
from gploss.compute.kinds import FORMULA, LOSS_KINDS
from gploss.files.plain import JSON, canonical_json, differences, digest
from gploss.files.shapes import NUMBER, first_line, read_json, require, require_each
from gploss.files.whole import write_text_atomic
from gploss.language.expression import Expression
from gploss.loss_function import LossFunction
from gploss.search.evaluation import Evaluation
from gploss.search.record import best_distinct, pareto_front
from gploss.tasks import TASKS
from gploss.tasks.pointwise import POINTWISE

_FORMAT = "gploss search result"
_VERSION = 2
_STOPPED = ("budget", "exhausted", "interrupted", "failed")

_LARGEST = 1 << 31
"""Bytes of the largest file that is read."""

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("searcher", "stopped", "metric"), (str,)),
    "seed": (int, type(None)),
    "higher_is_better": (bool,),
    **dict.fromkeys(("counts", "settings"), (dict,)),
    "elapsed": (list,),
}

_SHOWN = 5
"""Losses that a result's representation lists."""

_LONGEST = 120
"""Characters of a loss in it."""


class ResultError(ValueError):
    """A file does not hold a search result, or not an undamaged one."""


@dataclass(frozen=True, slots=True, repr=False)
class FoundLoss:
    """A trained loss that a search hands to its user.

    Attributes:
        evaluation: all that is known about it.
        metric: name of the validation metric that its reward is taken from.
        task: name of what the loss is given, in `gploss.TASKS`.
    """

    evaluation: Evaluation
    metric: str
    task: str = POINTWISE.name

    @property
    def expression(self) -> Expression:
        """The loss, where it is a formula; else a TypeError says what it is."""
        return self.evaluation.expression

    @property
    def reward(self) -> float:
        """Its best validation value over the epochs, in the metric's own direction."""
        assert self.evaluation.reward is not None
        return self.evaluation.reward

    @property
    def scale(self) -> float | None:
        """The number by which the formula was divided in training; None where it was trained as it is."""
        return self.evaluation.scale

    @property
    def loss(self) -> LossFunction:
        """The loss function as it was trained, divided by its scale; of a formula an `ExpressionLoss`.

        Raises:
            LookupError: its task is not registered.
        """
        own = self.evaluation.loss
        scale = 1.0 if self.scale is None else self.scale
        function: LossFunction = LOSS_KINDS[own.kind].function(own, scale, TASKS[self.task])
        return function

    def __str__(self) -> str:
        return (
            f"{self.evaluation.loss.readable()}  (validation {self.metric} {self.reward:.4f}, "
            f"complexity {self.evaluation.loss.complexity})"
        )

    def __repr__(self) -> str:
        return f"<FoundLoss {self}>"


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a run found, and the record of how; or what several runs found, joined.

    Attributes:
        searcher: the searcher's name; of joined runs with several searchers all names, "genetic + random".
        seed: its seed; None for joined runs with several seeds.
        stopped: why it ended: "budget" (spent), "exhausted" (too few new candidates among its proposals),
            "interrupted" (Ctrl-C, or a callback that asked for it) or "failed" (an exception carries this).
        metric: name of the validation metric that rewards are taken from.
        higher_is_better: its direction.
        counts: number of evaluations by kind: "proposals" in all, of which "trained", "diverged",
            "duplicates" and "rejected", the last also by reason as "rejected: <reason>"; "cached", those of the
            trained and diverged whose metrics came from the cache; "below_baseline", those that the
            searcher's reward filter turned down.
        settings: what the run was made with: searcher, seed, grammar, evaluator, budget and versions; of joined
            runs a list of theirs, as "joined".
        records: every evaluation in the order of proposal.
        elapsed: for each, the seconds into the run at which it was known.

    Raises:
        ValueError: if the parts do not fit together.
    """

    searcher: str
    seed: int | None
    stopped: str
    metric: str
    higher_is_better: bool
    counts: dict[str, int]
    settings: dict[str, JSON]
    records: tuple[Evaluation, ...]
    elapsed: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.stopped not in _STOPPED:
            raise ValueError(f"stopped must be one of {', '.join(_STOPPED)}, got {self.stopped!r}")
        if len(self.records) != len(self.elapsed):
            raise ValueError(f"{len(self.records)} evaluations but {len(self.elapsed)} elapsed times")

    @classmethod
    def join(cls, results: Iterable[SearchResult]) -> SearchResult:
        """Put the results of several runs on one problem together, as if one run had followed the other.

        Rewards have to compare: metric and evaluator must be the same, seeds (of search and of training) aside.

        Args:
            results: of any searchers, at least one; joined ones are fine.

        Returns:
            One result with all records. It ended as the least complete of the runs did.

        Raises:
            TypeError: they are no list of results.
            ValueError: there is none, or rewards do not compare; the message lists the differences.
        """
        if isinstance(results, cls) or not isinstance(results, Iterable):
            raise TypeError(f"results must be a list of search results, got {shown(results)}")
        joined = [instance("each of results", result, cls, "a SearchResult") for result in results]
        if not joined:
            raise ValueError("nothing to join: give at least one result")
        runs = [run for result in joined for run in result._runs()]
        first = joined[0]._problem()
        for place, result in enumerate(joined[1:], start=2):
            lines = list(differences("problem", first, result._problem(), "in result 1", f"in result {place}"))
            if lines:
                raise ValueError("\n".join(["results of different problems cannot be joined:", *lines]))
        starts = [0.0, *accumulate(max(result.elapsed, default=0.0) for result in joined)]
        counts: Counter[str] = Counter()
        for result in joined:
            counts.update(result.counts)
        seeds = {result.seed for result in joined}
        return cls(
            searcher=" + ".join(dict.fromkeys(str(run.get("searcher")) for run in runs)),
            seed=seeds.pop() if len(seeds) == 1 else None,
            stopped=max((result.stopped for result in joined), key=_STOPPED.index),
            metric=joined[0].metric,
            higher_is_better=joined[0].higher_is_better,
            counts=dict(counts),
            settings={"joined": runs},
            records=tuple(chain.from_iterable(result.records for result in joined)),
            elapsed=tuple(
                start + seconds for start, result in zip(starts, joined, strict=False) for seconds in result.elapsed
            ),
        )

    def top(self, k: int) -> list[FoundLoss]:
        """The best distinct losses: of those with the same fingerprint only the best evaluation counts.

        Args:
            k: how many, at most.

        Returns:
            Trained losses, the best reward first; of equals the least complex, then the earliest.

        Raises:
            TypeError: if k is not a whole number.
            ValueError: if k is less than 1.
        """
        best = best_distinct(self.records, self.higher_is_better)
        return [self._found(evaluation) for evaluation in best[: whole_number("k", k, least=1)]]

    @cached_property
    def best(self) -> FoundLoss | None:
        """The trained loss with the best reward (of equals the least complex one); None if none was trained."""
        return next(iter(self.top(1)), None)

    @cached_property
    def pareto(self) -> list[FoundLoss]:
        """The trained losses that none beats in both reward and complexity, by rising complexity."""
        front = pareto_front(self.records, self.higher_is_better)
        return [self._found(evaluation) for evaluation in front]

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row a proposal.

        Columns: step (from 1), expression (text), status, reason, reward, fingerprint, duplicate_of, cached,
        seconds (of training), candidate_epochs, complexity, elapsed (seconds into the run).
        """
        columns: dict[str, Any] = {
            "step": range(1, len(self.records) + 1),
            "expression": [str(record.loss) for record in self.records],
            "status": [str(record.status) for record in self.records],
            "reason": _texts([record.reason for record in self.records]),
            "reward": pd.Series([record.reward for record in self.records], dtype="float64"),
            "fingerprint": _texts([record.fingerprint for record in self.records]),
            "duplicate_of": _texts([record.duplicate_of for record in self.records]),
            "cached": pd.Series([record.cached for record in self.records], dtype="bool"),
            "seconds": pd.Series([record.seconds for record in self.records], dtype="float64"),
            "candidate_epochs": pd.Series([record.candidate_epochs for record in self.records], dtype="int64"),
            "complexity": pd.Series([record.loss.complexity for record in self.records], dtype="int64"),
            "elapsed": pd.Series(self.elapsed, dtype="float64"),
        }
        return pd.DataFrame(columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to one JSON file, which `load` reads back exactly.

        The file is complete or not there: a crash while it is written leaves an older one untouched.

        Raises:
            OSError: if the file cannot be written.
        """
        content: dict[str, JSON] = {
            "searcher": self.searcher,
            "seed": self.seed,
            "stopped": self.stopped,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "counts": self.counts,
            "settings": self.settings,
            "records": [record.to_json() for record in self.records],
            "elapsed": list(self.elapsed),
        }
        document = {"format": _FORMAT, "version": _VERSION, "digest": _digest(content), "result": content}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(document, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchResult:
        """Read a result that `save` wrote.

        Raises:
            ResultError: if the file is damaged, was changed since, or is something else.
            OSError: if there is no such file or it cannot be read.
        """
        path = Path(path)
        version, content = _read(path)
        try:
            require(content, {"records": (list,)})
            require_each("records", content["records"], (dict,))
            if version == 1:
                content["records"] = list(map(_with_kind, content["records"]))
            content["records"] = tuple(Evaluation.from_json(record) for record in content["records"])
            _check_shapes(content)
            content["elapsed"] = tuple(content["elapsed"])
            return cls(**content)
        except (ValueError, TypeError, LookupError) as error:
            told = first_line(error)
            raise ResultError(f"{path}: this search result cannot be understood: {told}") from error

    def __str__(self) -> str:
        best = "no candidate was trained" if self.best is None else f"best: {self.best}"
        return f"{self._title()}; {best}"

    def __repr__(self) -> str:
        lines = [f"<SearchResult: {self._title()}"]
        lines += [f"{place}. {shortened(str(loss))}" for place, loss in enumerate(self.top(_SHOWN), start=1)]
        return "\n   ".join(lines) + ">"

    def _repr_html_(self) -> str:
        """A small table of the best losses, for notebooks."""
        rows = [
            {
                f"validation {self.metric}": f"{loss.reward:.4f}",
                "complexity": loss.evaluation.loss.complexity,
                "loss": shortened(loss.evaluation.loss.readable()),
            }
            for loss in self.top(_SHOWN)
        ]
        table = pd.DataFrame(rows).to_html(index=False) if rows else "<p>no candidate was trained</p>"
        return f"<p>{escape(self._title())}</p>\n{table}"

    def _title(self) -> str:
        seed = "several seeds" if self.seed is None else f"seed {self.seed}"
        numbers = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"{self.searcher} ({seed}) ended as {self.stopped}" + (f"; {numbers}" if numbers else "")

    def _runs(self) -> list[dict[str, JSON]]:
        """The settings of each run that is in here."""
        joined = self.settings.get("joined", [self.settings])
        assert isinstance(joined, list)
        return joined

    def _found(self, evaluation: Evaluation) -> FoundLoss:
        evaluator = self._runs()[0].get("evaluator")
        task = evaluator.get("task") if isinstance(evaluator, dict) else None  # an own evaluator need not say
        return FoundLoss(evaluation, self.metric, str(task) if task else POINTWISE.name)

    def _problem(self) -> dict[str, JSON]:
        """What rewards depend on, but for the luck of training."""
        evaluator = self._runs()[0].get("evaluator")
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "evaluator": _without_seeds(evaluator),
        }


def shortened(text: str) -> str:
    """A text of at most 120 characters; of a longer one its beginning."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _without_seeds(value: JSON) -> JSON:
    """Settings without what training draws its luck from, and the kind of machine."""
    if isinstance(value, dict):
        return {name: _without_seeds(item) for name, item in value.items() if name not in ("seed", "environment")}
    return [_without_seeds(item) for item in value] if isinstance(value, list) else value


def _texts(values: Sequence[str | None]) -> pd.Series[Any]:
    """A column of texts in which None stays None."""
    return pd.Series(list(values), dtype="object")


def _digest(content: Mapping[str, JSON]) -> str | None:
    """Hash of the content; None where it holds what no result can, such as NaN."""
    try:
        return digest(canonical_json(content))
    except ValueError:
        return None


def _read(path: Path) -> tuple[int, dict[str, Any]]:
    """Version and result part of a file, its format, version and digest checked."""
    try:
        document = read_json(path, most=_LARGEST)
    except ValueError as error:
        raise ResultError(f"{path}: damaged, or not a search result: {first_line(error)}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ResultError(f"{path}: not a search result (its format is not {_FORMAT!r})")
    if document.get("version") not in (1, _VERSION):
        raise ResultError(
            f"{path}: written in version {document.get('version')!r} of the format, "
            f"this is version {_VERSION}: use the release of gploss that wrote it"
        )
    content: Any = document.get("result")
    try:
        digest = _digest(content) if isinstance(content, dict) else None
    except (ValueError, RecursionError):  # a number that is none, or what is nested too deeply
        digest = None
    if digest is None or document.get("digest") != digest:
        raise ResultError(f"{path}: damaged, or changed since it was saved: its digest does not fit its content")
    return document["version"], dict(content)


def _check_shapes(content: Mapping[str, Any]) -> None:
    require(content, _KINDS)
    require_each("elapsed", content["elapsed"], NUMBER)
    require_each("counts", content["counts"].values(), (int,))
    joined = content["settings"].get("joined", [])
    require({"joined": joined}, {"joined": (list,)})
    require_each("joined", joined, (dict,))


def _with_kind(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1, in which every loss was a formula, as it is written now."""
    rest = {name: value for name, value in record.items() if name != "expression"}
    return {**rest, "kind": FORMULA, "loss": record["expression"]}
