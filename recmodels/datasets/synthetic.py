"""An embedded dataset shaped like MovieLens 100K, made by a fixed recipe: no file and no network needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from recmodels.data.interactions import Split
from recmodels.datasets import DATASETS, Dataset, table

NAME = "synthetic"
N_USERS, N_ITEMS, N_RATINGS = 943, 1682, 100_000
FEWEST_RATINGS, MOST_RATINGS = 20, 737
TASTE_RANK = 6
# Standard deviations of what an opinion is the sum of; their squares sum to about 1.
USER_BIAS, ITEM_BIAS, TASTE, NOISE = 0.40, 0.45, 0.53, 0.60
# The numbers of ratings of 1, 2, 3, 4 and 5 stars: MovieLens 100K's, rounded to hundreds.
STARS = (6_100, 11_400, 27_100, 34_200, 21_200)
# How much more an item is met for being well known, being good, and being to the user's taste.
FAME_SPREAD, PULL_OF_QUALITY, PULL_OF_TASTE = 1.4, 1.2, 1.0
# In seconds: MovieLens 100K's seven months, and how long after the first a user's last rating may come.
FIRST_SECOND, LAST_SECOND, LONGEST_STAY = 874_724_710, 893_286_638, 120 * 86_400

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def ratings(seed: int = 0) -> pd.DataFrame:
    """Make the ratings: 100,000 distinct pairs of 943 users and 1,682 items.

    An opinion is the sum of a user bias, an item bias, a taste of rank 6 and noise; stars are its ranks cut at
    MovieLens 100K's shares, so that 55.4% are 4 or 5. Users differ in how much they rate (20 to 737 ratings, most
    of them few) and items in how well they are known. Ratings are not missing at random: users meet more often what
    is good and what is to their taste, and they meet it earlier. Every item has a rating. Each user rates in
    three bursts, days or months apart, with some ratings in the same second.

    Args:
        seed: another seed makes another dataset of the same shape.

    Returns:
        Columns user, item, rating (1 to 5) and timestamp (seconds), all int64, in random order.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    user_bias = rng.normal(0, USER_BIAS, N_USERS)
    item_bias = rng.normal(0, ITEM_BIAS, N_ITEMS)
    scale = (TASTE**2 / TASTE_RANK) ** 0.25
    taste = rng.normal(0, scale, (N_USERS, TASTE_RANK)) @ rng.normal(0, scale, (TASTE_RANK, N_ITEMS))
    fame = rng.normal(0, FAME_SPREAD, N_ITEMS) + PULL_OF_QUALITY * item_bias
    users, items = _met(rng, fame[None, :] + PULL_OF_TASTE * taste, _ratings_per_user(rng))
    opinion = user_bias[users] + item_bias[items] + taste[users, items] + rng.normal(0, NOISE, N_RATINGS)
    frame = pd.DataFrame({"user": users, "item": items, "rating": _stars(opinion), "timestamp": _times(rng, users)})
    return frame.iloc[rng.permutation(N_RATINGS)].reset_index(drop=True)


def load(
    *,
    seed: int = 0,
    split: str = "leave_one_out",
    positive_from: float = 4,
    validation: float | None = None,
    test: float | None = None,
) -> Split:
    """Make the synthetic dataset and split it.

    Args:
        seed: of the data and of the random split.
        split: "leave_one_out", "by_time" or "at_random".
        positive_from: ratings from here on are positive.
        validation: share of the rows, for by_time and at_random; 0.1 where None.
        test: share of the rows, for by_time and at_random; 0.1 where None.

    Raises:
        DataError: no rating or each of them is positive.
    """
    return table.load(
        ratings(seed),
        positive_from=positive_from,
        split=split,
        validation=validation,
        test=test,
        seed=seed,
        name=NAME if seed == 0 else f"{NAME} (seed {seed})",
    )


def _ratings_per_user(rng: np.random.Generator) -> Integers:
    """Return (N_USERS,) numbers within the limits, long-tailed, with the sum N_RATINGS."""
    wish = rng.lognormal(0, 1.05, N_USERS)
    low, high = 0.0, float(N_RATINGS)
    for _ in range(60):  # bisection on the scale of the wishes; 60 halvings reach the last bit
        middle = (low + high) / 2
        too_many = _granted(wish * middle).sum() > N_RATINGS
        low, high = (low, middle) if too_many else (middle, high)
    numbers = _granted(wish * low)
    # What rounding left over goes to users who have room for one more.
    room = np.flatnonzero(numbers < MOST_RATINGS)
    numbers[room[: N_RATINGS - numbers.sum()]] += 1
    return numbers


def _granted(wish: Floats) -> Integers:
    extra = np.minimum(np.floor(wish), MOST_RATINGS - FEWEST_RATINGS)
    return FEWEST_RATINGS + extra.astype(np.int64)


def _met(rng: np.random.Generator, attraction: Floats, numbers: Integers) -> tuple[Integers, Integers]:
    """Draw each user's items without replacement, with chances exp(attraction).

    The items with the highest attraction plus Gumbel noise are such a draw.

    Args:
        rng: source of chance.
        attraction: (N_USERS, N_ITEMS).
        numbers: (N_USERS,) items to draw.

    Returns:
        (N_RATINGS,) users and items, sorted by user, then in the order of drawing.
    """
    keys = attraction + rng.gumbel(size=attraction.shape)
    # One user chosen by chance meets the item for sure, so that no item stays without a rating.
    keys[rng.integers(0, N_USERS, N_ITEMS), np.arange(N_ITEMS)] = np.inf
    ranked = np.argsort(-keys, axis=1, kind="stable")
    drawn = np.arange(N_ITEMS) < numbers[:, None]
    return np.nonzero(drawn)[0], ranked[drawn]


def _stars(opinion: Floats) -> Integers:
    stars = np.empty(N_RATINGS, dtype=np.int64)
    stars[np.argsort(opinion, kind="stable")] = np.repeat([1, 2, 3, 4, 5], STARS)
    return stars


def _times(rng: np.random.Generator, users: Integers) -> Integers:
    """Return (N_RATINGS,) seconds that rise within each user, who starts at any moment and rates in bursts.

    Args:
        rng: source of chance.
        users: (N_RATINGS,) sorted.
    """
    start = rng.integers(FIRST_SECOND, LAST_SECOND - LONGEST_STAY, N_USERS)
    # The high power makes most bursts follow within days, and a few months later.
    bursts = (rng.random((N_USERS, 3)) ** 6 * LONGEST_STAY).astype(np.int64)
    burst = rng.integers(0, 3, N_RATINGS)
    seconds = start[users] + bursts[users, burst] + rng.integers(0, 1_800, N_RATINGS)
    return seconds[np.lexsort((seconds, users))]


DATASETS.register(
    NAME, Dataset(NAME, load, "made by a recipe, shaped like MovieLens 100K", "part of gploss", "MIT")
)
