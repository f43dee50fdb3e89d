"""The pointwise problem: interactions with labels 0 and 1, learnt from one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import functions, instance, shown, texts
from gploss.files.plain import JSON
from gploss.tasks import Task
from gploss.tasks.pointwise import POINTWISE
from recmodels.data.interactions import DataError, IntegerArray, Interactions, Split
from recmodels.data.rows import Rows, Schema
from recmodels.metrics import METRICS, evaluate, evaluate_resampled, require
from recmodels.metrics.targets import Targets
from recmodels.training.problem import Judge, Part, Problem, Resampler

#: Computes an input of the task for some interactions, (N,) numbers, from them and from the train part.
InputFunction: TypeAlias = Callable[[Interactions, Interactions], npt.NDArray[Any]]


class PointwiseProblem(Problem):
    """A split of interactions, of which a model sees user and item, and a loss the label.

    Where the split has weights, they are divided by their mean over train. Each example's loss is multiplied with
    its own in training, and losses can read it as the input "weight". Metrics do not look at weights.

    Args:
        split: the interactions.
        metrics: names from `METRICS`; the first one steers. By default the task's own.
        task: what a loss is given; `POINTWISE`, or that with further inputs.
        inputs: a function for each further input, such as the item's popularity.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: no metric, or one twice.
        LookupError: a metric is unknown.
        DataError: a further input is none of the task's; or, when its rows are asked for, not (N,) finite numbers.

    Example:
        >>> def popularity(rows: Interactions, train: Interactions) -> npt.NDArray[Any]:
        ...     return np.log1p(np.bincount(train.items, minlength=train.n_items))[rows.items]
    """

    def __init__(
        self,
        split: Split,
        metrics: Sequence[str] | None = None,
        *,
        task: Task = POINTWISE,
        inputs: Mapping[str, InputFunction] | None = None,
    ) -> None:
        instance("split", split, Split, "a Split, such as load_dataset(path)")
        instance("task", task, Task, "a Task, such as POINTWISE")
        names = (task.metric,) if metrics is None else texts("metrics", metrics)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"metrics must be a list of names, at least one, and each once, got {shown(metrics)}")
        if inputs is not None:
            instance("inputs", inputs, Mapping, "a dictionary of functions by name")
        functions("the functions of inputs", list((inputs or {}).values()))
        self.name = split.name
        self.task = task
        self.split = split
        self.metrics = {name: METRICS[name].higher_is_better for name in names}
        self._schema = Schema({"user": split.n_users, "item": split.n_items})
        self._inputs = dict(inputs or {})
        known = [given.name for given in task.inputs]
        for name in self._inputs:
            if name not in known:
                raise DataError(
                    f"{self.name}: the task {task.name!r} has no input {name!r}; it has {', '.join(known)}: "
                    "give it one with task.with_input"
                )
        self._rows: dict[Part, Rows] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "own": METRICS.own(self.metrics)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        METRICS.receive(state.pop("own"))
        self.__dict__.update(state)

    def rows(self, part: Part) -> Rows:
        """Return the interactions of a part."""
        if part not in self._rows:  # made when it is asked for: a search never asks for the test part
            self._rows[part] = self._columns(self.split.parts()[part])
        return self._rows[part]

    def _columns(self, part: Interactions) -> Rows:
        train = self.split.train
        inputs: dict[str, npt.NDArray[Any]] = {"label": part.labels}
        weights = None
        if part.weights is not None and train.weights is not None:
            weights = inputs["weight"] = (part.weights / train.weights.mean(dtype=np.float64)).astype(np.float32)
        inputs |= {name: function(part, train) for name, function in self._inputs.items()}
        return Rows(self._schema, {"user": part.users, "item": part.items}, inputs, weights)

    def judge_of(self, rows: Rows, groups: IntegerArray | None, device: torch.device | str = "cpu") -> Judge:
        """Return what computes the metrics of some interactions; groups are their users."""
        targets = Targets(rows.inputs["label"], groups, device=device)
        require(self.metrics, targets)
        return lambda scores: evaluate(self.metrics, scores, targets)

    def resampler(self, part: Part, metric: str) -> Resampler | None:
        """Return what computes a metric in resamples of a part's users, where the metric says how."""
        if METRICS[metric].resampled is None:
            return None
        targets = Targets(self.rows(part).inputs["label"], self.groups(part))
        return lambda scores, counts: evaluate_resampled(metric, scores, targets, counts)

    def describe(self) -> dict[str, JSON]:
        """Return what training and validation depend on; the metrics with the code that computes them."""
        return {**super().describe(), "judged_by": {name: METRICS[name].content for name in self.metrics}}

    def groups(self, part: Part) -> IntegerArray:
        """Return the user of each row of a part."""
        return self.split.parts()[part].users
