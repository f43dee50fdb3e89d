"""Frozen containers for what the models learn from: interactions, and a split of them in three parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

IntegerArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Column = TypeVar("Column", bound=npt.NDArray[Any])

NUMBERED: Any = None  # ids that are called by their numbers


class DataError(ValueError):
    """Data that cannot be used as it is; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who met which item, and whether they liked it.

    The arrays are copied (but for those that are read-only), checked and made read-only, so that the content hash
    stays true. Two objects are equal when their content is.

    Attributes:
        users: (N,) int64, ids from 0 to n_users - 1.
        items: (N,) int64, ids from 0 to n_items - 1.
        labels: (N,) float32, 1 for a positive interaction and 0 for a negative one.
        n_users: size of the user table; ids that no row uses are fine.
        n_items: size of the item table; ids that no row uses are fine.
        timestamps: (N,) int64, of which only the order matters, or None when it is unknown.
        weights: (N,) float32, how much each row counts in training, or None where all count alike.

    Raises:
        DataError: shapes or types do not match, an id is out of range, a label is neither 0 nor 1, or a weight is
            negative or not finite.

    Example:
        >>> data = Interactions(np.array([0, 0, 1]), np.array([0, 2, 2]), np.array([1, 0, 1]), 2, 3)
        >>> len(data), len(data.take(np.array([2])))
        (3, 1)
    """

    users: IntegerArray
    items: IntegerArray
    labels: FloatArray
    n_users: int
    n_items: int
    timestamps: IntegerArray | None = None
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        users = _frozen_ids("users", self.users, self.n_users)
        items = _frozen_ids("items", self.items, self.n_items)
        labels = _frozen_labels(self.labels)
        timestamps = None if self.timestamps is None else _frozen_integers("timestamps", self.timestamps)
        weights = None if self.weights is None else _frozen_weights(self.weights)
        columns: dict[str, npt.NDArray[Any] | None]
        columns = {"users": users, "items": items, "labels": labels, "timestamps": timestamps, "weights": weights}
        for name, column in columns.items():
            if column is not None and len(column) != len(users):
                raise DataError(f"{name} has {len(column)} entries, but users has {len(users)}")
        for name, value in (*columns.items(), ("n_users", int(self.n_users)), ("n_items", int(self.n_items))):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.users)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interactions):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def take(self, rows: npt.NDArray[Any]) -> Interactions:
        """Return some of the rows, in the order asked for; the id tables keep their sizes.

        Args:
            rows: (M,) positions, or (N,) booleans.
        """
        return Interactions(
            read_only(self.users[rows]),
            read_only(self.items[rows]),
            read_only(self.labels[rows]),
            self.n_users,
            self.n_items,
            None if self.timestamps is None else read_only(self.timestamps[rows]),
            None if self.weights is None else read_only(self.weights[rows]),
        )

    def followed_by(self, other: Interactions) -> Interactions:
        """Return the rows of both, over the same id tables; timestamps stay where both have them.

        Raises:
            DataError: the id tables differ in size, or one has weights and the other has none.
        """
        if (self.n_users, self.n_items) != (other.n_users, other.n_items):
            raise DataError(
                f"rows over {self.n_users} users and {self.n_items} items cannot be joined with rows over "
                f"{other.n_users} and {other.n_items}"
            )
        if (self.weights is None) != (other.weights is None):
            raise DataError("rows with weights cannot be joined with rows without; give both of them weights")
        timestamps = weights = None
        if self.weights is not None and other.weights is not None:
            weights = np.concatenate([self.weights, other.weights])
        if self.timestamps is not None and other.timestamps is not None:
            timestamps = np.concatenate([self.timestamps, other.timestamps])
        return Interactions(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.items, other.items]),
            np.concatenate([self.labels, other.labels]),
            self.n_users,
            self.n_items,
            timestamps,
            weights,
        )

    @property
    def positive_share(self) -> float:
        """Share of rows with label 1; NaN when there are no rows."""
        return float(self.labels.mean(dtype=np.float64)) if len(self) else float("nan")

    @cached_property
    def content_hash(self) -> str:
        """Hash of everything in here, row order included: 32 hexadecimal digits, alike on every platform."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"interactions/1 {len(self)} {self.n_users} {self.n_items}".encode())
        digest.update(self.users.astype("<i8").tobytes())
        digest.update(self.items.astype("<i8").tobytes())
        digest.update(self.labels.astype("<f4").tobytes())
        if self.timestamps is not None:
            digest.update(b"timestamps")
            digest.update(self.timestamps.astype("<i8").tobytes())
        if self.weights is not None:
            digest.update(b"weights")
            digest.update(self.weights.astype("<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """One dataset in three parts over the same users and items.

    Attributes:
        name: what was split and how; for people, not part of the content hash.
        train: what models are fitted to.
        validation: what the search's rewards and early stopping look at.
        test: what only a confirmation looks at.
        user_ids: (n_users,) what the table calls each user: int64 or text, sorted. Not part of equality or of the
            content hash; where None is given, the numbers themselves.
        item_ids: (n_items,) what the table calls each item, likewise.

    Raises:
        DataError: a part is empty, the parts differ in their numbers of users or items, some have weights and some
            have none, those of train are all 0, or validation or test lacks positives or negatives (AUC is
            undefined there).
    """

    name: str
    train: Interactions
    validation: Interactions
    test: Interactions
    user_ids: npt.NDArray[Any] = field(default=NUMBERED, compare=False, repr=False, kw_only=True)
    item_ids: npt.NDArray[Any] = field(default=NUMBERED, compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_ids", _frozen_names("user_ids", self.user_ids, self.n_users))
        object.__setattr__(self, "item_ids", _frozen_names("item_ids", self.item_ids, self.n_items))
        for part, rows in self.parts().items():
            if len(rows) == 0:
                raise DataError(f"{self.name}: the {part} part is empty; there is too little data for this split")
            if (rows.n_users, rows.n_items) != (self.n_users, self.n_items):
                raise DataError(
                    f"{self.name}: {part} has {rows.n_users} users and {rows.n_items} items, "
                    f"train has {self.n_users} and {self.n_items}; all parts need the same id tables"
                )
            if (rows.weights is None) != (self.train.weights is None):
                raise DataError(f"{self.name}: train and {part} must both have weights, or none of them")
        if self.train.weights is not None and not self.train.weights.any():
            raise DataError(f"{self.name}: the weights of the train part are all 0; nothing can be learnt from it")
        for part, rows in (("validation", self.validation), ("test", self.test)):
            positives = int(rows.labels.sum())
            if positives in (0, len(rows)):
                lacking = "positive" if positives == 0 else "negative"
                raise DataError(
                    f"{self.name}: the {part} part ({len(rows)} rows) holds no {lacking} row, so its AUC is "
                    "undefined; use more data, another split, or another threshold for positives"
                )

    @property
    def n_users(self) -> int:
        """Size of the user table that all parts share."""
        return self.train.n_users

    @property
    def n_items(self) -> int:
        """Size of the item table that all parts share."""
        return self.train.n_items

    def user_number(self, user_id: str | int) -> int:
        """Return the number by which models know a user.

        Raises:
            LookupError: the table has no such user.

        Example:
            >>> rows = Interactions(np.array([0, 1]), np.array([0, 0]), np.array([1, 0]), 2, 1)
            >>> split = Split("two users", rows, rows, rows, user_ids=np.array(["alice", "bob"]))
            >>> split.user_number("bob"), split.user_ids[1]
            (1, 'bob')
        """
        return _number_of("user", user_id, self.user_ids)

    def item_number(self, item_id: str | int) -> int:
        """Return the number by which models know an item.

        Raises:
            LookupError: the table has no such item.
        """
        return _number_of("item", item_id, self.item_ids)

    def parts(self) -> dict[str, Interactions]:
        """Return the three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def content_hash(self) -> str:
        """Hash of the three parts, their order included: 32 hexadecimal digits."""
        text = "split/1 " + " ".join(part.content_hash for part in self.parts().values())
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return figures about the split, as JSON values.

        Users and items that never occur in train keep their ids: a model can only guess at them. They are
        counted for each part as ``users_not_in_train`` and ``items_not_in_train`` (distinct ids) and
        ``rows_not_in_train`` (rows with such a user or item).
        """
        known_users = np.isin(np.arange(self.n_users), self.train.users)
        known_items = np.isin(np.arange(self.n_items), self.train.items)
        figures: dict[str, Any] = {
            "name": self.name,
            "content_hash": self.content_hash,
            "n_users": self.n_users,
            "n_items": self.n_items,
        }
        for part, rows in self.parts().items():
            new_user, new_item = ~known_users[rows.users], ~known_items[rows.items]
            figures[part] = {
                "rows": len(rows),
                "positive_share": rows.positive_share,
                "users": len(np.unique(rows.users)),
                "items": len(np.unique(rows.items)),
                "users_not_in_train": len(np.unique(rows.users[new_user])),
                "items_not_in_train": len(np.unique(rows.items[new_item])),
                "rows_not_in_train": int((new_user | new_item).sum()),
            }
        return figures


def _same(first: object, second: object) -> bool:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return type(first) is type(second) and first == second


def _column(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1:
        raise DataError(f"{name} has the shape {column.shape}; one dimension is needed")
    return column


def read_only(column: Column) -> Column:
    """Return an array after making it read-only: `Interactions` keeps it then, and makes no copy."""
    column.setflags(write=False)
    return column


def _frozen(column: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    alone = column.base is None and not column.flags.writeable
    return column if alone and column.dtype == dtype else read_only(np.array(column, dtype=dtype))


def _frozen_integers(name: str, values: npt.ArrayLike) -> IntegerArray:
    column = _column(name, values)
    if column.size and not np.issubdtype(column.dtype, np.integer):
        raise DataError(f"{name} has the type {column.dtype}; whole numbers are needed")
    return _frozen(column, np.int64)


def _frozen_names(name: str, values: npt.ArrayLike | None, size: int) -> npt.NDArray[Any]:
    names = np.arange(size) if values is None else np.array(_column(name, values))
    if len(names) != size:
        raise DataError(f"{name} has {len(names)} entries; one for each of {size} is needed")
    names.setflags(write=False)
    return names


def _number_of(kind: str, own_id: str | int, own_ids: npt.NDArray[Any]) -> int:
    # An id that was typed is text, whatever it is in the table.
    found = np.flatnonzero((own_ids if own_ids.dtype == object else own_ids.astype(str)) == str(own_id))
    if not len(found):
        examples = ", ".join(repr(name) for name in own_ids[:3].tolist())
        raise LookupError(f"there is no {kind} {own_id!r}; {kind}s are called {examples}, ...")
    return int(found[0])


def _frozen_ids(name: str, values: npt.ArrayLike, size: int) -> IntegerArray:
    if size < 1:
        raise DataError(f"n_{name} is {size}; at least 1 is needed")
    ids = _frozen_integers(name, values)
    outside = np.flatnonzero((ids < 0) | (ids >= size))
    if len(outside):
        row = int(outside[0])
        raise DataError(f"{name}[{row}] is {ids[row]}; ids lie from 0 to n_{name} - 1 = {size - 1}")
    return ids


def _frozen_labels(values: npt.ArrayLike) -> FloatArray:
    column = _column("labels", values)
    wrong = np.flatnonzero(~np.isin(column, (0, 1)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"labels[{row}] is {column[row]}; a label is 0 or 1")
    return _frozen(column, np.float32)


def _frozen_weights(values: npt.ArrayLike) -> FloatArray:
    column = _column("weights", values)
    if column.dtype.kind not in "biuf":
        raise DataError(f"weights has the type {column.dtype}; numbers are needed")
    wrong = np.flatnonzero(~(np.isfinite(column) & (column >= 0)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"weights[{row}] is {column[row]}; a weight is a finite number of at least 0")
    return _frozen(column, np.float32)
