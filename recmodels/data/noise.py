"""Wrong labels and negatives that nobody rejected, put into the parts of a split after it was drawn.

Losses differ most where data are not clean, so a comparison may ask for noise. It goes into the train part; what is
validated on stays clean unless noise is asked for there too, and test always does. Whoever draws validation parts
anew (`recmodels.data.splits.repeated_splits`, `rolling_splits`) draws them from the clean split that a `NoisySplit`
remembers, and puts the noise in afterwards: otherwise wrong labels of train would be validated on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Final, Literal

import numpy as np

from gploss.arguments import instance, whole_number
from recmodels.data.interactions import DataError, Interactions, Split

_FORMS: Final = (
    "flip=0.2 for all labels, positive=0.2 or negative=0.2 for those of one kind, or positive=0.1,negative=0.2"
)


@dataclass(frozen=True)
class Flips:
    """Which shares of the labels are turned over; rows are chosen by chance, so many that the shares hold.

    Attributes:
        positive: share of the positives that become negative, from 0 to below 1.
        negative: share of the negatives that become positive.

    Raises:
        DataError: a share is outside of [0, 1).

    Example:
        >>> Flips.parse("flip=0.2") == Flips(positive=0.2, negative=0.2)
        True
    """

    positive: float = 0.0
    negative: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("positive", self.positive), ("negative", self.negative)):
            instance(f"the noise rate {name}", share, Real, "a number")
            if not 0 <= share < 1:
                raise DataError(f"the noise rate {name}={share:g} is outside of [0, 1); write a share such as 0.2")

    @staticmethod
    def parse(text: str) -> Flips:
        """Read what `str` writes.

        Raises:
            DataError: the text has another form, or a share is outside of [0, 1).
        """
        shares: dict[str, float] = {}
        instance("text", text, str, f"a text such as {_FORMS}")
        for part in text.split(","):
            name, _, number = (piece.strip() for piece in part.partition("="))
            try:
                share = float(number)
            except ValueError:
                share = math.nan
            if name not in ("flip", "positive", "negative") or name in shares or math.isnan(share):
                raise DataError(f"the noise {text!r} is not understood at {part.strip()!r}; write {_FORMS}")
            shares[name] = share
        if "flip" not in shares:
            return Flips(**shares)
        if len(shares) > 1:
            raise DataError(f"the noise {text!r} names some labels twice; write {_FORMS}")
        return Flips(shares["flip"], shares["flip"])

    def __str__(self) -> str:
        if self.positive == self.negative:
            return f"flip={self.positive:g}"
        shares = {"positive": self.positive, "negative": self.negative}
        return ",".join(f"{name}={share:g}" for name, share in shares.items() if share)

    def __bool__(self) -> bool:
        return self != Flips()

    def applied_to(self, rows: Interactions, rng: np.random.Generator) -> Interactions:
        """Return the rows with some labels turned over."""
        if not self:
            return rows
        labels = rows.labels.copy()
        for label, share in ((1, self.positive), (0, self.negative)):
            own = np.flatnonzero(rows.labels == label)
            labels[rng.choice(own, round(share * len(own)), replace=False)] = 1 - label
        return replace(rows, labels=labels)


@dataclass(frozen=True)
class Noise:
    """What is wrong with the data that losses are trained on.

    Attributes:
        train: labels of train that are turned over.
        negatives: "observed", or "unobserved": each negative of train becomes an item that its user has not met,
            see `with_unobserved_negatives`. Labels are turned over after that.
        validation: labels of validation that are turned over.
        seed: the same seed gives the same noise.

    Raises:
        DataError: there is no such kind of negatives.

    Example:
        >>> print(Noise(Flips.parse("negative=0.3"), seed=1))
        train noise negative=0.3 (seed 1)
    """

    train: Flips = Flips()
    negatives: Literal["observed", "unobserved"] = "observed"
    validation: Flips = Flips()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            instance(name, getattr(self, name), Flips, 'Flips, such as Flips.parse("flip=0.2")')
        object.__setattr__(self, "seed", whole_number("seed", self.seed, least=0))
        if self.negatives not in ("observed", "unobserved"):
            raise DataError(f"negatives are 'observed' or 'unobserved', and not {self.negatives!r}")

    def __str__(self) -> str:
        kinds = []
        if self.negatives == "unobserved":
            kinds.append("negatives unobserved")
        if self.train:
            kinds.append(f"train noise {self.train}")
        if self.validation:
            kinds.append(f"validation noise {self.validation}")
        return f"{', '.join(kinds)} (seed {self.seed})" if kinds else "no noise"

    def applied_to(self, split: Split) -> Split:
        """Return a split with this noise, which is part of its name and of its content; test is as it was.

        Args:
            split: clean; it is returned itself where there is no noise.

        Raises:
            DataError: the split has noise already, a part is left without a class that it needs, or a user has
                met too many items.
        """
        if isinstance(instance("split", split, Split, "a Split"), NoisySplit):
            raise DataError(f"{split.name}: this split has noise already; ask for all of it at once, on clean data")
        if self == Noise(seed=self.seed):
            return split
        train = split.train
        if self.negatives == "unobserved":
            train = with_unobserved_negatives(train, self._rng(0))
        return NoisySplit(
            f"{split.name}, {self}",
            train=self.train.applied_to(train, self._rng(1)),
            validation=self.validation.applied_to(split.validation, self._rng(2)),
            test=split.test,
            user_ids=split.user_ids,
            item_ids=split.item_ids,
            clean=split,
            noise=self,
        )

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, purpose]))


@dataclass(frozen=True)
class NoisySplit(Split):
    """A split with noise in it.

    Attributes:
        clean: what it was made of.
        noise: what was done to it.
    """

    clean: Split
    noise: Noise

    def describe(self) -> dict[str, Any]:
        """Return figures about the split, the noise and the clean split's hash among them, as JSON values."""
        return super().describe() | {"noise": str(self.noise), "clean": self.clean.content_hash}


def with_unobserved_negatives(rows: Interactions, rng: np.random.Generator) -> Interactions:
    """Replace the item of each negative row by one that its user has not met, as where only likes are recorded.

    A user's new items are drawn without replacement, each as likely as the other, out of those that the user has
    not met in these rows, neither liked nor disliked. Nothing else is looked at: leaving out what the user likes in
    validation or test would tell the model what it is to be asked. So a few of the new negatives are liked there,
    as it is with data of this kind.

    Args:
        rows: what models are fitted to.
        rng: where the items are drawn from.

    Raises:
        DataError: a user has more negatives than items that were not met.
    """
    items = rows.items.copy()
    order = np.argsort(rows.users, kind="stable")
    ends = np.cumsum(np.bincount(rows.users, minlength=rows.n_users))
    for user, own in enumerate(np.split(order, ends[:-1])):
        negative = own[rows.labels[own] == 0]
        if len(negative):
            unmet = np.setdiff1d(np.arange(rows.n_items), rows.items[own])
            if len(unmet) < len(negative):
                raise DataError(
                    f"user {user} has {len(negative)} negatives and {len(unmet)} of {rows.n_items} items left that "
                    "were not met: too few for unobserved negatives; leave such users out"
                )
            items[negative] = rng.choice(unmet, len(negative), replace=False)
    return replace(rows, items=items)
