"""FilmTrust: 35,497 ratings from 0.5 to 4 in steps of 0.5, without times (Guo et al., IJCAI 2013)."""

from __future__ import annotations

from recmodels.data.interactions import DataError, Split
from recmodels.datasets import DATA_VARIABLE, DATASETS, Dataset, data_folder, table

NAME = "filmtrust"
FILE = "ratings.tsv"


def load(
    *,
    split: str = "at_random",
    seed: int = 0,
    positive_from: float = 3.5,
    validation: float | None = None,
    test: float | None = None,
) -> Split:
    """Load FilmTrust from the folder GPLOSS_DATA. Of the three pairs that occur twice the last row is kept.

    A copy elsewhere loads with
    ``load_dataset(path, positive_from=3.5, on_duplicates="last", split="at_random", seed=0)``.

    Args:
        split: "at_random", or "leave_one_out" by order of the rows (there are no times).
        seed: of the random split.
        positive_from: ratings from here on are positive.
        validation: share of the rows, for at_random; 0.1 where None.
        test: share of the rows, for at_random; 0.1 where None.

    Raises:
        DataError: the file is not there; the message says how to get it.
    """
    folder = data_folder()
    path = None if folder is None else folder / NAME / FILE
    if path is None or not path.is_file():
        raise DataError(
            "FilmTrust is not here, and it comes without a licence to pass it on: get LibRec's copy (ratings.txt), "
            "separate its columns by tabs, write the header user_id, item_id, rating over them, save it as "
            f"{NAME}/{FILE} and name the folder above in {DATA_VARIABLE}; "
            f"or give the path of your file in place of {NAME!r}"
        )
    return table.load(
        path,
        positive_from=positive_from,
        on_duplicates="last",
        split=split,
        validation=validation,
        test=test,
        seed=seed,
        name=NAME,
    )


DATASETS.register(
    NAME,
    Dataset(
        NAME,
        load,
        "FilmTrust, ratings of films without times",
        "Guo, Zhang, Yorke-Smith (IJCAI 2013): bring a copy",
        "not stated",
    ),
)
