"""States of any shape as a text and bytes, without pickle: JSON, numpy arrays, and arrays that only grow."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray

_Place: TypeAlias = tuple[str | int, ...]

# What numpy's reader and look-ups raise where text or bytes are none of `pack`, the documented and the others.
_SENSELESS = (
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    RecursionError,
    ArithmeticError,
    SyntaxError,
    TokenError,
)


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """An array in a state that only ever becomes longer, so that what is new of it can be stored alone.

    Attributes:
        array: (n, ...), of which later states hold the same n rows, and more after them.
    """

    array: NDArray[Any]


class Packed(NamedTuple):
    """A state, ready to be stored.

    Attributes:
        text: JSON, with null where arrays were, the places of the arrays, and the lengths of the grown ones.
        arrays: the arrays one after the other, as npy.
        grown: the grown arrays by place.
    """

    text: str
    arrays: bytes
    grown: dict[str, NDArray[Any]]


def pack(state: Mapping[str, Any]) -> Packed:
    """Take a state apart.

    Args:
        state: JSON values (infinities and NaN allowed), numpy arrays and `Grown` ones, nested in any way.

    Raises:
        ValueError: something in it cannot be stored; the message names its place.
    """
    blob = io.BytesIO()
    places: list[_Place] = []
    grown: dict[str, NDArray[Any]] = {}

    def without_arrays(value: Any, place: _Place) -> Any:
        if isinstance(value, Grown):
            grown[json.dumps(place)] = _plain(value.array, place)
            return None
        if isinstance(value, np.ndarray):
            np.save(blob, _plain(value, place), allow_pickle=False)
            places.append(place)
            return None
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"{_written(place)} has the key {name!r}: keys must be text")
            return {name: without_arrays(item, (*place, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [without_arrays(item, (*place, index)) for index, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(
            f"{_written(place)} is a {type(value).__name__}, which cannot be stored: make it a dict, a list, text, "
            "a number, or a numpy array"
        )

    plain = without_arrays(dict(state), ())
    lengths = {place: len(array) for place, array in grown.items()}
    return Packed(json.dumps({"state": plain, "arrays": places, "grown": lengths}), blob.getvalue(), grown)


def unpack(text: str, arrays: bytes, grown: Mapping[str, Sequence[bytes]]) -> tuple[dict[str, Any], dict[str, int]]:
    """Put a state together again.

    Args:
        text: as `pack` gave it.
        arrays: as `pack` gave it.
        grown: the rows of each grown array, piece by piece, as `npy` gave them.

    Returns:
        The state, and the length of each grown array by place.

    Raises:
        ValueError: the parts are none of `pack`, or do not fit together.
    """
    try:
        record = json.loads(text)
        state: dict[str, Any] = record["state"]
        if not isinstance(state, dict):
            raise ValueError(f"the state is a {type(state).__name__}, not a dict")
        blob = io.BytesIO(arrays)
        for place in record["arrays"]:
            _put(state, place, read_array(blob, allow_pickle=False))
        lengths = {place: int(length) for place, length in record["grown"].items()}
        for place, length in lengths.items():
            rows = np.concatenate([read_array(io.BytesIO(piece), allow_pickle=False) for piece in grown[place]])
            if len(rows) != length:
                raise ValueError(f"{_written(json.loads(place))} has {len(rows)} rows instead of {length}")
            _put(state, json.loads(place), Grown(rows))
        return state, lengths
    except _SENSELESS as error:
        raise ValueError(f"the state makes no sense: {error}") from error


def npy(array: NDArray[Any]) -> bytes:
    """One array as bytes."""
    blob = io.BytesIO()
    np.save(blob, array, allow_pickle=False)
    return blob.getvalue()


def _plain(array: NDArray[Any], place: _Place) -> NDArray[Any]:
    if type(array) is not np.ndarray or array.dtype.hasobject:
        raise ValueError(f"{_written(place)} is an array of a kind that cannot be stored: {array!r}")
    return array


def _put(state: Any, place: list[str | int], value: object) -> None:
    *parents, last = place
    for step in parents:
        state = state[step]
    state[last] = value


def _written(place: _Place | list[str | int]) -> str:
    return "state" + "".join(f"[{step!r}]" for step in place)
