"""One column of a table: its ids become numbers from 0; ratings, labels and weights become floats."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recmodels.data.interactions import DataError, IntegerArray
from recmodels.data.tables.distinct import Codes, Floats, as_floats, as_whole_numbers, distinct, spread

SPARSE_FLOATS = 2.0**53  # from here on, one float stands for several whole numbers
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What the ids of Interactions stand for in the table they came from.

    Attributes:
        users: (n_users,) the table's own user at each id: int64, or text where some are no whole numbers. Sorted.
        items: (n_items,) the table's own item at each id, likewise.
    """

    users: npt.NDArray[Any]
    items: npt.NDArray[Any]


@dataclass(frozen=True)
class Origin:
    """Where rows came from, for messages.

    Attributes:
        source: the table.
        index: (N,) labels of the rows; its names say whether they are lines, or files and lines of these.
    """

    source: str
    index: pd.Index[Any]

    def row(self, position: int) -> str:
        """Return what a row is called."""
        label = self.index[position]
        if self.index.names[0] == "file":
            return f"{label[0]} {self.index.names[1]} {label[1]}"
        return f"{'line' if self.index.name == 'line' else 'row'} {label}"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: as in the table.
        values: (N,) of any type.
        origin: where the rows came from.
        missing: texts that stand for no value, beside the empty one.
        decimal: what stands before decimals in numbers that are text.
    """

    name: Hashable
    values: pd.Series[Any]
    origin: Origin
    missing: Collection[str] = ()
    decimal: str = "."

    def ids(self) -> tuple[IntegerArray, npt.NDArray[Any]]:
        """Return ids from 0, and the values that they stand for.

        Returns:
            (N,) ids in the order of the sorted values, and these: int64, or text where some are no whole numbers.

        Raises:
            DataError: an id is missing, some are text and others are not, or two cannot be told apart.
        """
        codes, values = self._distinct()
        self._refuse_missing(codes, values)
        self._refuse_what_cannot_be_told_apart(codes, values)
        names = as_whole_numbers(values)
        if names is None:
            names = np.array([str(value) for value in values], dtype=object)
        vocabulary, rank = np.unique(names, return_inverse=True)
        return rank.astype(np.int64)[codes], vocabulary

    def labels(self) -> Floats:
        """Return (N,) labels, 0 or 1, which may be False and True in the table.

        Raises:
            DataError: a value is neither.
        """
        codes, values = self.distinct_numbers()
        numbers = as_floats(values)
        for position in np.flatnonzero(np.isnan(numbers)):
            numbers[position] = TRUTH.get(str(values[position]).strip().lower(), np.nan)
        labels = spread(numbers, codes, np.nan)
        wrong = (labels != 0) & (labels != 1)
        if wrong.any():
            value = labels[wrong.argmax()]
            if np.isnan(value):
                raise self.error(wrong, "{value} is no label; labels are 0 or 1, or False and True")
            raise self.error(wrong, f"the label is {value:g}; labels are 0 or 1 (is this a rating column?)")
        return labels

    def numbers(self, what: str = "number") -> Floats:
        """Return (N,) numbers.

        Args:
            what: they are called in messages.

        Raises:
            DataError: a value is no finite number.
        """
        codes, values = self.distinct_numbers()
        numbers = spread(as_floats(values), codes, np.nan)
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            comma = re.fullmatch(r"-?\d+,\d+", str(self.values.iloc[int(wrong.argmax())]))
            remedy = " (where the comma stands before decimals, say decimal=',')" if comma else ""
            raise self.error(wrong, f"{{value}} is no {what}{remedy}")
        return numbers

    def weights(self) -> Floats:
        """Return (N,) numbers of at least 0.

        Raises:
            DataError: a value is no such number.
        """
        weights = self.numbers("weight")
        if (weights < 0).any():
            raise self.error(
                weights < 0, "the weight is {value}; weights are at least 0 (weight=False: there are none)"
            )
        return weights

    def error(self, wrong: npt.NDArray[np.bool_], problem: str) -> DataError:
        """Return the error for the rows marked, of which there is at least one.

        Args:
            wrong: (N,).
            problem: "{value}" in it stands for the value in the first of the rows.
        """
        positions = np.flatnonzero(wrong)
        value = self.values.iloc[int(positions[0])]
        shown = repr(value) if isinstance(value, str) else str(value)
        problem = problem.replace("{value}", shown if len(shown) < 80 else f"{shown[:77]}...")
        more = f" (and in {len(positions) - 1} more rows)" if len(positions) > 1 else ""
        place = f"{self.origin.source}, {self.origin.row(int(positions[0]))}, column {self.name!r}"
        return DataError(f"{place}: {problem}{more}")

    def distinct_numbers(self) -> tuple[Codes, npt.NDArray[Any]]:
        """Return for each of N rows the position of its value, -1 where it has none, and the (K,) distinct values.

        Text that is whole numbers comes as numbers. In other text a point stands before decimals; where there was a
        point and should be another character, nothing is left (None).
        """
        codes, values = self._distinct()
        if self.decimal != "." and values.dtype == object:
            values = np.array([self._with_point(value) for value in values], dtype=object)
        return codes, values

    def _with_point(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        return None if "." in value else value.replace(self.decimal, ".")

    def _distinct(self) -> tuple[Codes, npt.NDArray[Any]]:
        try:
            return distinct(self.values)
        except TypeError as error:
            everywhere = np.ones(len(self.values), dtype=bool)
            raise self.error(everywhere, "{value} is neither a number nor text") from error

    def _refuse_missing(self, codes: Codes, values: npt.NDArray[Any]) -> None:
        missing = spread(self._stands_for_none(values), codes, True)
        if missing.any():
            if str(self.values.iloc[int(missing.argmax())]) in self.missing:
                raise self.error(missing, "{value} stands for no value; if it is an id, say missing=[]")
            raise self.error(missing, "the id is empty or NaN")

    def _stands_for_none(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        if values.dtype == object:
            none = {"", *self.missing}
            return np.array([isinstance(value, str) and value in none for value in values], dtype=bool)
        numbers = [text for text in self.missing if any(map(str.isdigit, text))]
        return np.isin(values.astype(str), numbers) if numbers else np.zeros(len(values), dtype=bool)

    def _refuse_what_cannot_be_told_apart(self, codes: Codes, values: npt.NDArray[Any]) -> None:
        if values.dtype.kind == "f":
            large = np.abs(values) >= SPARSE_FLOATS
            if large.any():
                raise self.error(
                    large[codes], "{value} is a float too large to be exact; make ids whole numbers or text"
                )
        if values.dtype != object:
            return
        is_bytes = np.array([isinstance(value, bytes) for value in values])
        if is_bytes.any():
            raise self.error(is_bytes[codes], "{value} is neither a number nor text")
        is_text = np.array([isinstance(value, str) for value in values])
        if is_text.any() and not is_text.all():
            kind = "no text" if is_text[codes[0]] else "text"
            unlike = (is_text != is_text[codes[0]])[codes]
            raise self.error(unlike, f"{{value}} is {kind}, unlike the ids before it; make all of them text")
        known = set(values)
        # An id that was once written as a float: 1.0 beside 1.
        twins = np.array([isinstance(v, str) and v.endswith(".0") and v[:-2] in known for v in values])
        if twins.any():
            raise self.error(twins[codes], "{value} also occurs without '.0'; write ids alike")
