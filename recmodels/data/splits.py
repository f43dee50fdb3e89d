"""Ways to split interactions into train, validation and test; every row goes to exactly one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import numpy as np
import numpy.typing as npt

from gploss.arguments import instance, real_number, shown, whole_number
from recmodels.data.interactions import DataError, IntegerArray, Interactions, Split
from recmodels.data.noise import NoisySplit

FEWEST_INTERACTIONS = 5
SHARE = 0.1  # of the rows, for validation and for test
TRAIN, VALIDATION, TEST = 0, 1, 2

PartOfRow = npt.NDArray[np.int8]


def leave_one_out(interactions: Interactions, *, name: str = "interactions") -> Split:
    """Split as AutoLossGen's data were: each user's last two positives end the history, in time order.

    Test gets a user's last positive and all rows after it, validation the second last positive and the rows
    from it to there, train everything before. A user with one positive has no validation rows, a user without
    positives only train rows; all rows of users with fewer than 5 interactions are train rows. Ties in time
    keep the order of the rows, which also stands for time where there are no timestamps.

    Parts keep the order of the rows.

    The published split of MovieLens 100K (94,638 / 2,334 / 3,028 rows) follows this rule exactly; its authors
    broke ties in time by an unstable sort, so that the original file's order gives 94,626 / 2,363 / 3,011.

    Args:
        interactions: what to split.
        name: what is split; the result's name is this and the way of splitting.

    Raises:
        DataError: a part is empty or lacks a class.

    Source:
        AutoLossGen (SIGIR 2022, arXiv 2204.13160), as its published data show.
    """
    users = interactions.users
    rows_of_user = np.bincount(users, minlength=interactions.n_users)
    positives = np.flatnonzero((interactions.labels > 0) & (rows_of_user[users] >= FEWEST_INTERACTIONS))
    last = _last_of_users(interactions, positives)
    second_last = _last_of_users(interactions, positives[last[users[positives]] != positives])
    part = np.full(len(interactions), TRAIN, dtype=np.int8)
    part[_from_there_on(interactions, second_last)] = VALIDATION
    part[_from_there_on(interactions, last)] = TEST
    return _split(f"{name}, leave one out", interactions, part)


def by_time(
    interactions: Interactions, validation: float = 0.1, test: float = 0.1, *, name: str = "interactions"
) -> Split:
    """Split at two moments: the last rows are test, those before them validation, the rest train.

    Ties in time keep the order of the rows; parts keep the order of the rows.

    Args:
        interactions: what to split; it needs timestamps.
        validation: share of the rows, rounded to whole rows.
        test: share of the rows, rounded to whole rows.
        name: what is split; the result's name is this and the way of splitting.

    Raises:
        DataError: no timestamps, shares that do not fit, or a part that is empty or lacks a class.
    """
    if interactions.timestamps is None:
        raise DataError(f"{name}: a split by time needs timestamps; name their column, or split at random")
    order = np.argsort(interactions.timestamps, kind="stable")
    part = _cut(order, validation, test, name)
    return _split(f"{name}, by time ({validation:g}, {test:g})", interactions, part)


def at_random(
    interactions: Interactions,
    validation: float = 0.1,
    test: float = 0.1,
    *,
    seed: int,
    name: str = "interactions",
) -> Split:
    """Split by chance, every row alike; parts keep the order of the rows.

    Args:
        interactions: what to split.
        validation: share of the rows, rounded to whole rows.
        test: share of the rows, rounded to whole rows.
        seed: the same seed gives the same split.
        name: what is split; the result's name is this and the way of splitting.

    Raises:
        DataError: shares that do not fit, or a part that is empty or lacks a class.
    """
    seed = whole_number("seed", seed, least=0)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(interactions))
    part = _cut(order, validation, test, name)
    return _split(f"{name}, at random ({validation:g}, {test:g}, seed {seed})", interactions, part)


def repeated_splits(split: Split, count: int, *, share: float = 0.1, seed: int) -> list[Split]:
    """Return a split and others with the same test part, whose train and validation parts are drawn anew.

    One validation part is small, and a search that looks at it a thousand times learns its luck.

    Args:
        split: the first one; parts are drawn from its clean rows, and its noise goes into each of them afterwards.
        count: how many there are with it.
        share: of the rows of train and validation, which becomes validation in the others.
        seed: the same seed gives the same splits.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a count below 1.
        DataError: a share that is not between 0 and 1, or a part that is empty or lacks a class.
    """
    instance("split", split, Split, "a Split")
    count, share = whole_number("count", count, least=1), real_number("share", share)
    seed = whole_number("seed", seed, least=0)
    if not 0 < share < 1:
        raise DataError(f"{split.name}: {count} splits with {share:g} for validation cannot be drawn")
    if isinstance(split, NoisySplit):
        clean = repeated_splits(split.clean, count, share=share, seed=seed)
        return [split.noise.applied_to(drawn) for drawn in clean]
    rows = split.train.followed_by(split.validation)
    splits = [split]
    for number in range(1, count):
        is_validation = np.random.Generator(np.random.PCG64([seed, number])).random(len(rows)) < share
        name = f"{split.name}, validation drawn anew ({share:g}, seed {seed}, {number})"
        train, validation = rows.take(~is_validation), rows.take(is_validation)
        splits.append(replace(split, name=name, train=train, validation=validation))
    return splits


def rolling_splits(split: Split, count: int) -> list[Split]:
    """Return a split and others with the same test part, each of which validates on what came before in time.

    Where test holds every user's last rows, a validation part drawn at random is not like it; these are. The second
    split gives up the first one's validation part, and takes the last positive of each user in what is left, with
    the rows after it, as `leave_one_out` does; and so on.

    Args:
        split: the first one; in its train part each user's rows must be in time order, or have timestamps. Noise
            is dealt with as by `repeated_splits`.
        count: how many there are with it.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a count below 1.
        DataError: too little data for so many.
    """
    instance("split", split, Split, "a Split")
    count = whole_number("count", count, least=1)
    if isinstance(split, NoisySplit):
        return [split.noise.applied_to(drawn) for drawn in rolling_splits(split.clean, count)]
    splits, rows = [split], split.train
    for number in range(1, count):
        part = leave_one_out(rows)
        rows = part.train.followed_by(part.validation)
        name = f"{split.name}, {number} step(s) back in time"
        splits.append(replace(split, name=name, train=rows, validation=part.test))
    return splits


SPLITS = ("leave_one_out", "by_time", "at_random")


def split_by_name(
    interactions: Interactions,
    split: str = "leave_one_out",
    *,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
    name: str = "interactions",
) -> Split:
    """Split in one of the ways of this module, chosen by its name.

    Args:
        interactions: what to split.
        split: "leave_one_out", "by_time" or "at_random".
        validation: share of the rows, for by_time and at_random; 0.1 where None.
        test: share of the rows, for by_time and at_random; 0.1 where None.
        seed: for at_random.
        name: what is split; the result's name is this and the way of splitting.

    Raises:
        LookupError: there is no such way to split.
        DataError: the data cannot be split so.
    """
    shares = [SHARE if share is None else share for share in (validation, test)]
    ways: dict[str, Callable[[], Split]] = {
        "leave_one_out": lambda: leave_one_out(interactions, name=name),
        "by_time": lambda: by_time(interactions, *shares, name=name),
        "at_random": lambda: at_random(interactions, *shares, seed=seed, name=name),
    }
    if split not in ways:
        raise LookupError(f"no split is named {split!r}; choose from: {', '.join(SPLITS)}")
    if split == "leave_one_out" and (validation is not None or test is not None):
        raise DataError(
            f"{name}: validation and test are shares for by_time and at_random; leave_one_out has a rule of its own"
        )
    return ways[split]()


def _last_of_users(interactions: Interactions, rows: IntegerArray) -> IntegerArray:
    """Return for each user the last of some rows in time, of equal times the last of the table; -1 where none is.

    Without sorting, which would take most of the time of reading a large table.
    """
    users = interactions.users[rows]
    if interactions.timestamps is not None:
        times = interactions.timestamps[rows]
        latest = np.full(interactions.n_users, np.iinfo(np.int64).min)
        np.maximum.at(latest, users, times)
        is_latest = times == latest[users]
        rows, users = rows[is_latest], users[is_latest]
    last = np.full(interactions.n_users, -1)
    last[users] = rows  # of several assignments to one place, the last one counts
    return last


def _from_there_on(interactions: Interactions, rows_of_users: IntegerArray) -> npt.NDArray[np.bool_]:
    """Return (N,) which rows are a user's given row, or follow it in time; (n_users,) rows, -1 for none."""
    start = rows_of_users[interactions.users]
    follows = np.arange(len(interactions)) >= start
    if interactions.timestamps is not None:
        times, begin = interactions.timestamps, interactions.timestamps[start]
        follows = (times > begin) | ((times == begin) & follows)
    return follows & (start >= 0)


def _cut(order: IntegerArray, validation: float, test: float, name: str) -> PartOfRow:
    """Assign the end of the order to test, what comes before it to validation, the rest to train."""
    for share, value in (("validation", validation), ("test", test)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{share} must be a share of the rows, such as 0.1, got {shown(value)}")
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(
            f"{name}: the shares validation={validation:g} and test={test:g} do not fit; "
            "each must be above 0, and their sum below 1"
        )
    n_test, n_validation = round(len(order) * test), round(len(order) * validation)
    part = np.full(len(order), TRAIN, dtype=np.int8)
    first_test = len(order) - n_test
    part[order[first_test:]] = TEST
    part[order[max(first_test - n_validation, 0) : first_test]] = VALIDATION
    return part


def _split(name: str, interactions: Interactions, part: PartOfRow) -> Split:
    return Split(
        name,
        train=interactions.take(np.flatnonzero(part == TRAIN)),
        validation=interactions.take(np.flatnonzero(part == VALIDATION)),
        test=interactions.take(np.flatnonzero(part == TEST)),
    )
