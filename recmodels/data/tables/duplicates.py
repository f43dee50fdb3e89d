"""(user, item) pairs that occur more than once in a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmodels.data.interactions import DataError, IntegerArray
from recmodels.data.tables.columns import Origin, Vocabulary


@dataclass(frozen=True)
class Pairs:
    """The pairs of a table's rows.

    Attributes:
        numbers: (N,) one number for each pair, user * n_items + item.
        ids: what the ids stand for.
        repeated: (R,) numbers that occur more than once, sorted.
    """

    numbers: IntegerArray
    ids: Vocabulary
    repeated: IntegerArray

    @classmethod
    def of(cls, users: IntegerArray, items: IntegerArray, ids: Vocabulary) -> Pairs:
        """Number the pairs of (N,) users and items, and find those that occur more than once."""
        numbers = users * len(ids.items) + items
        ordered = np.sort(numbers)
        return cls(numbers, ids, np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))

    def last_rows(self, times: IntegerArray | None) -> npt.NDArray[np.bool_]:
        """Return (N,) which rows are their pair's last in time, or in the table where times are equal or None."""
        rows = np.flatnonzero(self._is_repeated())
        numbers = self.numbers[rows]
        order = np.argsort(numbers, kind="stable") if times is None else np.lexsort((times[rows], numbers))
        followed = numbers[order][:-1] == numbers[order][1:]
        last = np.ones(len(self.numbers), dtype=bool)
        last[rows[order[:-1][followed]]] = False
        return last

    def error(self, origin: Origin) -> DataError:
        """Return the error that names the pairs that come first, and their rows."""
        rows = np.flatnonzero(self._is_repeated())
        _, first = np.unique(self.numbers[rows], return_index=True)
        examples = "; ".join(self._described(rows[position], rows, origin) for position in np.sort(first)[:3])
        many = len(self.repeated)
        number = "1 (user, item) pair occurs" if many == 1 else f"{many} (user, item) pairs occur"
        in_parts = origin.index.names[0] == "file"
        remedy = "Keep one row of each" if in_parts else "Give on_duplicates='last' to keep the last row of each"
        return DataError(
            f"{origin.source}: {number} more than once: {examples}{'; ...' if many > 3 else ''}. {remedy}"
        )

    def _is_repeated(self) -> npt.NDArray[np.bool_]:
        found = pc.is_in(pa.array(self.numbers), value_set=pa.array(self.repeated))
        return np.asarray(found, dtype=bool)

    def _described(self, row: np.int64, rows: IntegerArray, origin: Origin) -> str:
        user, item = divmod(int(self.numbers[row]), len(self.ids.items))
        twins = rows[self.numbers[rows] == self.numbers[row]][:3]
        where = " and ".join(origin.row(int(twin)) for twin in twins)
        return f"user {self.ids.users[user]}, item {self.ids.items[item]} at {where}"
