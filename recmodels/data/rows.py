"""Examples as columns: what a model sees of them, and what a loss is given beside what the model returns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gploss.arguments import instance, whole_number
from recmodels.data.interactions import DataError, FloatArray, IntegerArray


class Schema(Mapping[str, int]):
    """The columns that a model sees: ids, and for each column how many there are.

    Args:
        sizes: number of ids by column.

    Raises:
        DataError: there is no column, or one without ids.

    Example:
        >>> schema = Schema({"user": 943, "item": 1682})
        >>> schema["item"], list(schema)
        (1682, ['user', 'item'])
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        if not instance("sizes", sizes, Mapping, "a dictionary of numbers by column"):
            raise DataError("a schema needs at least one column")
        for name, size in sizes.items():
            if whole_number(f"the number of ids of column {name!r}", size, least=0) < 1:
                raise DataError(f"column {name!r} has {size} ids; at least 1 is needed")
        self._sizes = {name: int(size) for name, size in sizes.items()}

    def __getitem__(self, name: str) -> int:
        if name not in self._sizes:
            raise LookupError(f"there is no column {name!r}; the columns are {', '.join(self._sizes)}")
        return self._sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def __hash__(self) -> int:
        return hash(frozenset(self._sizes.items()))

    def __repr__(self) -> str:
        return f"Schema({self._sizes!r})"


@dataclass(frozen=True, eq=False)
class Rows:
    """N examples.

    Arrays that can be written to are copied, and all are made read-only, so that the content hash stays true.

    Attributes:
        schema: the columns of `features`.
        features: (N,) int64 ids by column, from 0 to the column's size - 1.
        inputs: (N,) float32 by name: the inputs of a task that come from the data.
        weights: (N,) float32, what each example's loss is multiplied with in training; None stands for 1.

    Raises:
        DataError: columns that differ in length or from the schema, ids out of range, numbers that are not finite.
    """

    schema: Schema
    features: Mapping[str, IntegerArray]
    inputs: Mapping[str, FloatArray] = field(default_factory=dict)
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        if list(self.features) != list(self.schema):
            raise DataError(f"the columns are {', '.join(self.features)}; the schema has {', '.join(self.schema)}")
        features = {name: _ids(name, ids, self.schema[name]) for name, ids in self.features.items()}
        inputs = {name: _numbers(name, column) for name, column in self.inputs.items()}
        weights = None if self.weights is None else _numbers("weights", self.weights)
        first, count = next((name, len(ids)) for name, ids in features.items())
        columns: dict[str, npt.NDArray[Any]] = {**features, **inputs}
        if weights is not None:
            columns["weights"] = weights
        for name, column in columns.items():
            if len(column) != count:
                raise DataError(f"{name} has {len(column)} entries, but {first} has {count}")
        for name, value in (("features", features), ("inputs", inputs), ("weights", weights)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))

    def take(self, rows: npt.NDArray[Any]) -> Rows:
        """Return some of the examples, in the order asked for.

        Args:
            rows: (M,) positions, or (N,) booleans.
        """

        def taken(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
            part: npt.NDArray[Any] = column[rows]
            part.setflags(write=False)
            return part

        part = object.__new__(Rows)  # there is nothing to check in a part of columns that were checked
        columns = {
            "schema": self.schema,
            "features": {name: taken(ids) for name, ids in self.features.items()},
            "inputs": {name: taken(column) for name, column in self.inputs.items()},
            "weights": None if self.weights is None else taken(self.weights),
        }
        part.__dict__.update(columns)
        return part

    @cached_property
    def content_hash(self) -> str:
        """Hash of everything in here, the order of the examples included: 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"rows/1 {len(self)} {dict(self.schema)}".encode())
        for ids in self.features.values():
            digest.update(ids.astype("<i8").tobytes())
        for name in sorted(self.inputs):
            digest.update(f"input {name}".encode())
            digest.update(self.inputs[name].astype("<f4").tobytes())
        if self.weights is not None:
            digest.update(b"weights")
            digest.update(self.weights.astype("<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Batches:
    """An epoch.

    Attributes:
        rows: examples in the order of training.
        bounds: (batches + 1,) int64, where batches begin and end.

    Raises:
        DataError: the bounds do not cover the rows.
    """

    rows: Rows
    bounds: IntegerArray

    def __post_init__(self) -> None:
        bounds = self.bounds
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(self.rows) or (np.diff(bounds) < 1).any():
            raise DataError(f"batches from 0 to {len(self.rows)} are needed, one after the other; bounds: {bounds}")

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def slices(self) -> list[slice]:
        """The rows of each batch."""
        return [slice(first, last) for first, last in pairwise(self.bounds.tolist())]


def _ids(name: str, values: npt.ArrayLike, size: int) -> IntegerArray:
    column = np.asarray(values)
    if column.ndim != 1 or (column.size and not np.issubdtype(column.dtype, np.integer)):
        raise DataError(f"{name} must be (N,) whole numbers, not {column.dtype} of shape {column.shape}")
    outside = np.flatnonzero((column < 0) | (column >= size))
    if len(outside):
        row = int(outside[0])
        raise DataError(f"{name}[{row}] is {column[row]}; ids lie from 0 to {size - 1}")
    return _frozen(column, np.int64)


def _numbers(name: str, values: npt.ArrayLike) -> FloatArray:
    column = np.asarray(values)
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise DataError(f"{name} must be (N,) numbers, not {column.dtype} of shape {column.shape}")
    wrong = np.flatnonzero(~np.isfinite(column))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{name}[{row}] is {column[row]}; finite numbers are needed")
    return _frozen(column, np.float32)


def _frozen(column: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return the column as it is, where it is of the type and nobody can write to it, or else a copy."""
    if column.dtype == dtype and not column.flags.writeable and column.flags.c_contiguous:
        return column
    frozen = np.array(column, dtype=dtype)
    frozen.setflags(write=False)
    return frozen
