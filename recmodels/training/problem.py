"""What a trainer is given: examples in three parts, the order in which they are learnt, and a judge of scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gploss.files.described import own_code
from gploss.files.plain import JSON
from gploss.setting import Setting
from gploss.tasks import Task
from recmodels.data.interactions import DataError, IntegerArray
from recmodels.data.rows import Batches, Rows, Schema

Part: TypeAlias = Literal["train", "validation", "test"]

#: Gives for the scores of M models, (M, N) float32, each metric's value for each model, (M,) float64 by name.
Judge: TypeAlias = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]

#: Gives a metric's values (M, R) for the scores of M models, (M, N) float32, and for how often each of U groups was
#: drawn in each of R resamples, (U, R) uint8; NaN where the metric is undefined on what was drawn. Groups are in
#: sorted order; where there are none, rows are drawn.
Resampler: TypeAlias = Callable[[torch.Tensor, npt.NDArray[np.uint8]], npt.NDArray[np.float64]]

ORDER: Final = 1  # purpose of random numbers, beside the seed


class Problem(ABC):
    """Data, the task that losses are for, and what trained models are measured by.

    Subclasses give the rows of each part and a judge of them. What they leave as it is here: an epoch goes through
    the train part once, in an order that seed and epoch decide.

    Attributes:
        name: for people; not part of any key.
        task: what a loss is given.
        metrics: for each metric whether more of it is better; the first one steers.
        settings: what members may choose beside the protocol's settings, because batches depend on it.
    """

    name: str
    task: Task
    metrics: Mapping[str, bool]
    settings: Mapping[str, Setting] = {}

    @abstractmethod
    def rows(self, part: Part) -> Rows:
        """Return the examples of a part: always the same ones, in the same order."""

    @abstractmethod
    def judge_of(self, rows: Rows, groups: IntegerArray | None, device: torch.device | str = "cpu") -> Judge:
        """Return what measures the scores of some rows: those of a part, or of a resample of a part.

        Args:
            rows: N examples.
            groups: (N,) the group of each, as in `groups`; a group that was drawn twice is two groups.
            device: where the scores will be.

        Raises:
            ValueError: a metric is undefined on these rows.
        """

    def judge(self, part: Part, device: torch.device | str = "cpu") -> Judge:
        """Return what measures the scores of a part's rows; see `judge_of`."""
        return self.judge_of(self.rows(part), self.groups(part), device)

    def resampler(self, part: Part, metric: str) -> Resampler | None:
        """Return what computes a metric in many resamples of a part at once.

        Without one, a verdict judges the rows of each resample by themselves, which takes long.
        """
        return None

    def groups(self, part: Part) -> IntegerArray | None:
        """Return the group, such as the user, of each of a part's rows, (N,); None where rows stand alone.

        A verdict draws groups, not rows, to say how sure it is.
        """
        return None

    def batches(self, seed: int, epoch: int, settings: Mapping[str, float]) -> Batches:
        """Return the examples of an epoch in the order of training, cut in batches.

        Args:
            seed: of the members.
            epoch: counted from the first after the initial weights.
            settings: "batch_size", and what the problem itself declares.
        """
        train = self.rows("train")
        order = np.random.default_rng([seed, ORDER, epoch]).permutation(len(train))
        return Batches(train.take(order), bounds_of(len(train), int(settings["batch_size"])))

    @property
    def schema(self) -> Schema:
        """The columns that models see."""
        return self.rows("train").schema

    @property
    def metric(self) -> str:
        """The metric that steers."""
        return next(iter(self.metrics))

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""
        return self.metrics[self.metric]

    def describe(self) -> dict[str, JSON]:
        """Return what training and validation depend on, beside losses, members and trainer: for keys and records.

        A subclass whose batches or judge depend on anything but its rows and its source code adds that.
        """
        return {
            "task": self.task.name,
            "columns": dict(self.schema),
            "metrics": list(self.metrics),
            "train": self.rows("train").content_hash,
            "validation": self.rows("validation").content_hash,
            "source": own_code(type(self), f"the problem {type(self).__qualname__}"),
            "task_content": self.task.content_hash,
        }

    def check(self, inputs: Sequence[str], part: Part = "validation") -> None:
        """Check, before anything is trained, that rows and judge fit each other.

        Args:
            inputs: what the losses read beside what the model returns.
            part: the one to be judged.

        Raises:
            DataError: the message names problem, part, and what to do.
        """
        train = self.rows("train")
        if not len(train):
            raise DataError(f"{self.name}: the train part is empty, so there is nothing to learn from")
        for name in inputs:
            if name not in train.inputs:
                raise DataError(
                    f"{self.name}: the losses read the input {name!r}, which the train part lacks; it has "
                    f"{', '.join(train.inputs) or 'none'}: give the problem this input, or use other losses"
                )
        self._check_judge(part)

    def _check_judge(self, part: Part) -> None:
        count = len(self.rows(part))
        where = f"{self.name}, {part} part of {count} rows"
        trial = torch.linspace(-1, 1, count).unsqueeze(0)
        try:
            values = dict(self.judge(part)(trial))
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            told = str(error).strip().partition("\n")[0]
            raise DataError(
                f"{where}: cannot be judged by {', '.join(self.metrics)} ({told}); rows and judge of a part must "
                "have the same length, and metrics be defined on it: choose another metric or split"
            ) from error
        if values.keys() != self.metrics.keys():
            raise DataError(
                f"{where}: the judge gives {', '.join(values) or 'nothing'}, the problem's metrics are "
                f"{', '.join(self.metrics)}: name the same"
            )
        for name, value in values.items():
            if tuple(value.shape) != (1,):
                raise DataError(f"{where}: {name} of one model has the shape {tuple(value.shape)}; give (1,)")
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"{where}: {name} is {float(value):g}; choose another metric or split")


def bounds_of(count: int, size: int) -> npt.NDArray[np.int64]:
    """Return where batches of `count` rows begin and end; a last one of a single row joins the one before.

    Batch normalisation needs two rows.
    """
    bounds = [*range(0, count, size), count]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return np.array(bounds, np.int64)
