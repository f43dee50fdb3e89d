"""Which column of a table holds what: as the user says, or else by common names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import pandas as pd

from recmodels.data.interactions import DataError
from recmodels.data.tables.columns import Column, Origin

USER_NAMES = ("user_id", "uid", "userId", "user")
ITEM_NAMES = ("item_id", "iid", "movieId", "itemId", "item")
LABEL_NAMES = ("label",)
RATING_NAMES = ("rating",)
TIME_NAMES = ("timestamp",)
WEIGHT_NAMES = ("weight",)

#: A column's name. Numbers are those that pandas gives to columns of files without a header.
Name = str | int


def find_columns(
    frame: pd.DataFrame,
    *,
    user: Name | None = None,
    item: Name | None = None,
    label: Name | None = None,
    rating: Name | None = None,
    positive_from: float | None = None,
    time: Name | Literal[False] | None = None,
    weight: Name | Literal[False] | None = None,
    missing: Collection[str] = (),
    decimal: str = ".",
    source: str = "the table",
) -> dict[str, Column]:
    """Return the columns by what they hold: user, item, label or rating; time and weight where there are some.

    Args:
        frame: a row an interaction.
        user: column of users; where None, user_id, uid, userId or user.
        item: column of items; where None, item_id, iid, movieId, itemId or item.
        label: column of labels; where None, label, unless ratings are asked for.
        rating: column of ratings; where None, rating, if there is no label.
        positive_from: where given, ratings are asked for.
        time: column of times; where None, timestamp, if there is one; False where no column holds times.
        weight: column of how much each row counts in training; where None, weight, if there is one; False where no
            column holds weights.
        missing: texts that are no id but stand for a missing one, such as "NA".
        decimal: what stands before decimals in numbers that are text.
        source: where the table comes from, for messages.

    Raises:
        DataError: a column is missing or there twice, or the table has no rows.
        ValueError: an argument that cannot be.
    """
    if isinstance(missing, str) or not all(isinstance(text, str) for text in missing):
        raise ValueError(f"missing is {missing!r}; it must be a list of texts, such as ['NA', '-']")
    if decimal not in (".", ","):
        raise ValueError(f"decimal is {decimal!r}; it can be '.' or ','")
    rated = rating is not None or positive_from is not None
    if label is not None and rated:
        raise DataError(f"{source}: give a label column, or a rating column and positive_from, not both")
    table = _Table(frame, Origin(source, frame.index), missing, decimal)
    found = {"user": table.column("user", user, USER_NAMES), "item": table.column("item", item, ITEM_NAMES)}
    if found["user"].name == found["item"].name:
        raise DataError(f"{source}: users and items cannot both be column {found['user'].name!r}")
    if rated or (label is None and table.has(RATING_NAMES) and not table.has(LABEL_NAMES)):
        found["rating"] = table.column("rating", rating, RATING_NAMES)
    else:
        found["label"] = table.column("label or rating", label, LABEL_NAMES + RATING_NAMES)
    if time is not False and (time is not None or table.has(TIME_NAMES)):
        found["time"] = table.column("time", time, TIME_NAMES)
    if weight is not False and (weight is not None or table.has(WEIGHT_NAMES)):
        found["weight"] = table.column("weight", weight, WEIGHT_NAMES)
    if len(frame) == 0:
        raise DataError(f"{source}: the table has no rows")
    return found


@dataclass(frozen=True)
class _Table:
    frame: pd.DataFrame
    origin: Origin
    missing: Collection[str]
    decimal: str

    def has(self, candidates: Sequence[str]) -> bool:
        return any(name in self.frame.columns for name in candidates)

    def column(self, role: str, name: Name | None, candidates: Sequence[str]) -> Column:
        """Return the column of that name, where None the first of the candidates."""
        if name is None:
            name = next((name for name in candidates if name in self.frame.columns), None)
        if name is None:
            raise DataError(
                f"{self.origin.source}: no {role} column found among: {self._names()}; "
                f"common names are {', '.join(candidates)}, others have to be named{self._no_header()}"
            )
        if not isinstance(name, str | Integral) or isinstance(name, bool):
            raise ValueError(f"{role} is {name!r}; it must be the name of a column")
        # A number may have become text on its way here, or have been text from the start.
        found = [k for k, own in enumerate(self.frame.columns) if own == name] or [
            k for k, own in enumerate(self.frame.columns) if str(own) == str(name)
        ]
        if len(found) != 1:
            many = f"{len(found)} columns have the same name {name!r}"
            problem = many if found else f"there is no column {name!r}"
            raise DataError(f"{self.origin.source}: {problem}; there are: {self._names()}")
        return Column(name, self.frame.iloc[:, found[0]], self.origin, self.missing, self.decimal)

    def _names(self) -> str:
        names = [str(name) for name in self.frame.columns]
        return ", ".join(names[:20]) + (f", ... ({len(names)} columns)" if len(names) > 20 else "")

    def _no_header(self) -> str:
        return " (if the first line is no header, say header=False)" if self.origin.index.name == "line" else ""
