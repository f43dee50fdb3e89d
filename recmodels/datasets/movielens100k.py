"""MovieLens 100K: 100,000 ratings from 1 to 5 by 943 users of 1,682 films, with times (GroupLens, 1998).

Its licence forbids passing the data on, so each user downloads them from GroupLens.
"""

from __future__ import annotations

from pathlib import Path

from gploss.compute.cpu import cache_folder
from recmodels.data.download import fetch
from recmodels.data.interactions import DataError, Split
from recmodels.datasets import DATA_VARIABLE, DATASETS, Dataset, data_folder, table

NAME = "ml-100k"
URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
CHECKSUM = "md5:0e33842e24a9c977be4e0107933c0723"
PUBLISHED_SPLIT = "ml100k01-1-5"


def load(
    *,
    split: str | None = None,
    positive_from: float = 4,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
) -> Split:
    """Load MovieLens 100K from the folder GPLOSS_DATA, or download it where that variable is not set.

    Without a ``split``, the one that AutoLossGen's authors published (folder ml100k01-1-5, labels 1 from 4 stars
    on) is taken where GPLOSS_DATA holds it, and leave-one-out by the same rule elsewhere. The two differ in ties in
    time: 1,176 of the 100,000 rows lie in another part. The split's name says which it is.

    Args:
        split: "leave_one_out", "by_time" or "at_random"; None as above.
        positive_from: ratings from here on are positive; other values than 4 need the ratings.
        validation: share of the rows, for by_time and at_random; 0.1 where None.
        test: share of the rows, for by_time and at_random; 0.1 where None.
        seed: for at_random.

    Raises:
        DataError: GPLOSS_DATA is set and holds neither folder.
        DownloadError: the download failed.
    """
    folder = data_folder()
    as_published = (split, positive_from, validation, test) == (None, 4, None, None)
    if folder is not None and as_published and (folder / PUBLISHED_SPLIT).is_dir():
        return table.load(folder / PUBLISHED_SPLIT)
    return table.load(
        _ratings(folder),
        split=split,
        positive_from=positive_from,
        validation=validation,
        test=test,
        seed=seed,
        name=NAME,
    )


def _ratings(folder: Path | None) -> Path:
    """Return where the ratings are, after a download if that is allowed and needed."""
    if folder is None:
        return fetch(URL, CHECKSUM, cache_folder())
    if not (folder / NAME).is_dir():
        raise DataError(
            f"{folder} (from {DATA_VARIABLE}) has no folder {NAME}; put u.data or ml-100k.inter there, "
            f"or unset {DATA_VARIABLE} to download it from GroupLens"
        )
    return folder / NAME


DATASETS.register(
    NAME,
    Dataset(
        NAME,
        load,
        "MovieLens 100K, ratings of films with times",
        "GroupLens: downloaded",
        "no redistribution; commercial use by permission",
    ),
)
