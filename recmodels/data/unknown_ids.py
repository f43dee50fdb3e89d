"""Validation and test parts whose ids train does not know, most likely because they are written in another way."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from recmodels.data.interactions import DataError, IntegerArray, Split
from recmodels.data.tables.columns import Origin

WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
REMEDY = "write ids alike in all parts, or say on_unknown='keep' if these are new"


def refuse_unknown_users(split: Split) -> None:
    """Refuse a part none of whose users occurs in train: a model could only guess.

    Raises:
        DataError: there is such a part.
    """
    known = np.zeros(split.n_users, dtype=bool)
    known[split.train.users] = True
    for part, rows in split.parts().items():
        if not known[rows.users].any():
            raise DataError(f"{split.name}: none of the users of {part} occurs in train; {REMEDY}")


def refuse_ids_of_another_kind(
    role: str, ids: IntegerArray, own: npt.NDArray[Any], part: npt.NDArray[np.integer[Any]], origin: Origin
) -> None:
    """Refuse parts in which ids are text where train's are numbers, or numbers where train's are text.

    Args:
        role: "user" or "item".
        ids: (N,) of all rows.
        own: (K,) what the ids stand for.
        part: (N,) number of each row's part; 0 is train.
        origin: of the rows.

    Raises:
        DataError: there is such a part.
    """
    if own.dtype != object:
        return
    is_number = np.array([WHOLE_NUMBER.fullmatch(name) is not None for name in own])[ids]
    train = is_number[part == 0]
    for number in np.unique(part):
        there = part == number
        if train.all():
            wrong, kinds = there & ~is_number, ("text", "a whole number")
        elif not train.any() and is_number[there].all():
            wrong, kinds = there, ("a whole number", "text")
        else:
            continue
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{origin.source}, {origin.row(row)}: {role} {own[ids[row]]!r} is {kinds[0]}, and in train each is "
                f"{kinds[1]}; {REMEDY}"
            )
