"""Labels and users of the rows that metrics are computed on, with all that depends on them only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Need(StrEnum):
    """What a metric asks of the targets; the value completes the sentence "it needs ..."."""

    POSITIVE = "at least one row with label 1"
    BOTH_CLASSES = "rows with label 1 and rows with label 0"
    USERS = "the user of each row (Targets(labels, users))"
    MIXED_USER = "at least one user with rows of both labels"


@dataclass(frozen=True)
class Segments:
    """Column ranges of the sorted keys (a user's rows, or all rows) and their class counts, each (S,) int64."""

    begins: Tensor
    ends: Tensor
    positives: Tensor
    negatives: Tensor


@dataclass(frozen=True)
class Top:
    """The first k places of the users with a positive, as columns of the keys sorted by user.

    Attributes:
        columns: (C,) int64, a user's places side by side.
        ends: (U,) int64, where a user's places end in ``columns``.
        gain: (C,) float64, what a positive in that place adds to the user's NDCG.
        share: (C,) float64, what it adds to the user's recall.
    """

    columns: Tensor
    ends: Tensor
    gain: Tensor
    share: Tensor


class Targets:
    """Labels and users of N rows, with all that depends on them only and is shared by every call.

    Args:
        labels: (N,) of 0 and 1, numbers or booleans.
        users: (N,) integer identifiers, any values; None where there are no users.
        device: where the scores will be; by default that of ``labels``, or the CPU.

    Attributes:
        labels: (N,) float32.
        users: (N,) int64, or None.
        device: where everything is kept.
        n_rows: N.
        n_positives: the number of rows with label 1.
        n_negatives: the number of rows with label 0.
        offers: the needs of metrics that these targets meet.

    Raises:
        ValueError: no rows, a label other than 0 and 1, or shapes that differ.
        TypeError: labels that are not numbers, or users that are not integers.
    """

    def __init__(
        self,
        labels: npt.ArrayLike | Tensor,
        users: npt.ArrayLike | Tensor | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        self.labels = _checked_labels(labels, device)
        self.device = self.labels.device
        self.users = None if users is None else _checked_users(users, self.labels)
        self.n_rows = len(self.labels)
        self.n_positives = int(self.labels.sum(dtype=torch.float64))
        self.n_negatives = self.n_rows - self.n_positives
        self._tops: dict[int, Top] = {}
        self.offers = self._find_offers()

    def _find_offers(self) -> frozenset[Need]:
        found = {
            Need.POSITIVE: self.n_positives > 0,
            Need.BOTH_CLASSES: self.n_positives > 0 and self.n_negatives > 0,
            Need.USERS: self.users is not None,
            Need.MIXED_USER: self.users is not None and len(self.mixed_users.begins) > 0,
        }
        return frozenset(need for need, there in found.items() if there)

    @cached_property
    def negative(self) -> Tensor:
        """(N,) int64: 1 where the label is 0."""
        return 1 - self.labels.to(torch.int64)

    @cached_property
    def user_index(self) -> Tensor:
        """(N,) int64: the user of each row as its position among the sorted distinct users."""
        if self.users is None:
            raise ValueError(f"these targets have no users; a metric by user needs {Need.USERS}")
        index: Tensor = torch.unique(self.users, return_inverse=True)[1]
        return index

    @cached_property
    def unit(self) -> npt.NDArray[np.int64]:
        """(N,) what each row is drawn with in a resample: its user, or itself where there are no users."""
        index = torch.arange(self.n_rows) if self.users is None else self.user_index.cpu()
        unit: npt.NDArray[np.int64] = index.numpy()
        return unit

    @cached_property
    def n_units(self) -> int:
        """Number of users, or of rows where there are no users."""
        return int(self.unit.max()) + 1

    @cached_property
    def everything(self) -> Segments:
        """All rows as one segment."""
        values = (0, self.n_rows, self.n_positives, self.n_negatives)
        return Segments(*(torch.tensor([value], device=self.device) for value in values))

    @cached_property
    def all_users(self) -> Segments:
        """A segment for each user."""
        sizes = torch.bincount(self.user_index)
        negatives = torch.bincount(self.user_index[self.negative == 1], minlength=len(sizes))
        ends = sizes.cumsum(0)
        return Segments(ends - sizes, ends, sizes - negatives, negatives)

    @cached_property
    def mixed_users(self) -> Segments:
        """A segment for each user with rows of both labels."""
        users = self.all_users
        kept = (users.positives > 0) & (users.negatives > 0)
        return Segments(users.begins[kept], users.ends[kept], users.positives[kept], users.negatives[kept])

    def top(self, k: int) -> Top:
        """Return the first k places of the users with a positive; computed once for each k."""
        if k not in self._tops:
            self._tops[k] = self._find_top(k)
        return self._tops[k]

    def _find_top(self, k: int) -> Top:
        users = self.all_users
        owner = self.user_index.sort().values
        # Keys ascend, so a user's best row is the last of the segment.
        place = users.ends[owner] - 1 - torch.arange(self.n_rows, device=self.device)
        columns = ((place < k) & (users.positives[owner] > 0)).nonzero().squeeze(1)
        owner, place = owner[columns], place[columns]
        discounts = 1 / torch.arange(2, k + 2, device=self.device).to(torch.float64).log2()
        positives = users.positives[owner]
        ideal = discounts.cumsum(0)[positives.clamp(max=k) - 1]
        ends = torch.unique_consecutive(owner, return_counts=True)[1].cumsum(0)
        return Top(columns, ends, discounts[place] / ideal, 1 / positives.to(torch.float64))


def _checked_labels(labels: npt.ArrayLike | Tensor, device: torch.device | str | None) -> Tensor:
    values = _own_tensor("labels", labels, device).to(torch.float32)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"labels have the shape {tuple(values.shape)}; expected (N,) with at least one row")
    wrong = ((values != 0) & (values != 1)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(f"labels must be 0 or 1; row {row} has {values[row].item():g}")
    return values


def _checked_users(users: npt.ArrayLike | Tensor, labels: Tensor) -> Tensor:
    values = _own_tensor("users", users, labels.device)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"users are {values.dtype}; they must be integers: number them first")
    if values.shape != labels.shape:
        raise ValueError(
            f"users have the shape {tuple(values.shape)}, labels {tuple(labels.shape)}: give one user a row"
        )
    return values.to(torch.int64)


def _own_tensor(what: str, values: npt.ArrayLike | Tensor, device: torch.device | str | None) -> Tensor:
    """Copy to a tensor, so that later changes by the caller reach nothing derived from it."""
    if isinstance(values, Tensor):
        return values.detach().to(device or values.device, copy=True)
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} are {array.dtype}; they must be numbers")
    return torch.from_numpy(array).to(device or "cpu")
