"""The distinct values of a column, so that each is looked at once, and numbers made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recmodels.data.interactions import IntegerArray
from recmodels.data.tables.arrow_memory import POOL

Values = npt.NDArray[Any]
Codes = npt.NDArray[np.signedinteger[Any]]
Floats = npt.NDArray[np.float64]


def distinct(column: pd.Series[Any]) -> tuple[Codes, Values]:
    """Return for each of N rows the position of its value, -1 where it has none, and the (K,) values.

    Texts that are whole numbers without leading zeros, signs or spaces come as int64 if all of them are.

    Raises:
        TypeError: values are lists or the like.
    """
    texts = arrow_texts(column)
    if texts is None:
        try:
            codes, found = pd.factorize(column)
        except NotImplementedError as error:
            raise TypeError(str(error)) from error
        values = np.asarray(found)
        return codes, _plain(values) if values.dtype == object else values
    numbers = whole_numbers(texts)
    if numbers is not None:
        return _distinct_numbers(numbers)
    # As pd.factorize, which takes four times the memory. All chunks get one dictionary, that of all texts.
    encoded = pc.dictionary_encode(texts, memory_pool=POOL)
    codes = np.concatenate([np.asarray(pc.fill_null(chunk.indices, -1)) for chunk in encoded.chunks])
    return codes, encoded.chunk(0).dictionary.to_numpy(zero_copy_only=False)


def _distinct_numbers(numbers: IntegerArray) -> tuple[Codes, Values]:
    """Do what `distinct` does, to (N,) numbers, which are lost."""
    low, high = int(numbers.min()), int(numbers.max())
    if high - low > 4 * len(numbers):
        return pd.factorize(numbers)
    # Ids lie close together: a table of those that occur takes less memory and time than hashing.
    numbers -= low
    occurs = np.zeros(high - low + 1, dtype=bool)
    occurs[numbers] = True
    return (np.cumsum(occurs) - 1)[numbers], np.flatnonzero(occurs) + low


def arrow_texts(column: pd.Series[Any]) -> Any:
    """Return a column's (N,) values as Arrow's text, in chunks, or None where their type is not text."""
    if not isinstance(column.dtype, pd.ArrowDtype | pd.StringDtype):
        return None
    texts = pa.array(column)
    texts = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    return texts if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type) else None


def spread(values: Values, codes: Codes, none: float | bool) -> Values:
    """Return (N,) values: of the (K,) given the one at each code, and ``none`` for the code -1."""
    return np.append(values, none)[codes]


def as_floats(values: Values) -> Floats:
    """Return (K,) numbers or texts of numbers as floats, NaN where they are none."""
    if values.dtype in (np.float16, np.float32):  # 4.1 in 32 bits is below 4.1 in 64
        return values.astype(str).astype(np.float64)
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype != object:
        return np.full(len(values), np.nan)
    return np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)


def as_whole_numbers(values: Values) -> IntegerArray | None:
    """Return (K,) values as int64, or None where some are none or too large."""
    if values.dtype.kind == "f":
        fits = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
        return values.astype(np.int64) if fits.all() else None
    if values.dtype.kind in "iu":
        return values.astype(np.int64) if (values <= np.iinfo(np.int64).max).all() else None
    return None


def _plain(objects: Values) -> Values:
    """Return (K,) objects as numbers where all are that, or texts of whole numbers, and else as they are."""
    are_text = {isinstance(value, str) for value in objects}
    if are_text == {True}:
        try:
            numbers = whole_numbers(pa.chunked_array([pa.array(objects, pa.string())]))
        except UnicodeEncodeError:
            numbers = None
        return objects if numbers is None else numbers
    if are_text == {False}:
        converted = np.array(objects.tolist())
        return converted if converted.dtype.kind in "biuf" and converted.ndim == 1 else objects
    return objects


def whole_numbers(texts: Any) -> IntegerArray | None:
    """Return (N,) texts as int64 if each is written as Python writes a whole number."""
    numbers, begin = np.empty(len(texts), dtype=np.int64), 0
    for chunk in texts.chunks:
        try:
            whole = pc.cast(chunk, pa.int64(), memory_pool=POOL)
        except pa.ArrowInvalid:
            return None
        if whole.null_count or not _is_written_so(chunk, whole):
            return None
        numbers[begin : begin + len(chunk)] = whole
        begin += len(chunk)
    return numbers


def _is_written_so(texts: Any, numbers: Any) -> bool:
    """Tell whether texts, from which Arrow made whole numbers, are what Python writes for these.

    Arrow also takes zeros in front, and 0x1F, which for numbers of up to 13 digits are longer than need be.
    """
    values = np.asarray(numbers)
    largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
    if largest >= 10**13:
        return bool(pc.cast(numbers, texts.type, memory_pool=POOL).equals(texts))
    digits = 1 + (values < 0).astype(np.int32)
    magnitudes = np.abs(values)
    for length in range(1, len(str(largest))):
        digits += magnitudes >= 10**length
    lengths = pc.binary_length(texts, memory_pool=POOL)
    return bool((np.asarray(lengths) == digits).all())
