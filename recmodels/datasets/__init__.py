"""Datasets by name, and any table by its path: one module a dataset, found by discovery."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gploss.arguments import shown
from gploss.registry import Registry, discover
from recmodels.data.interactions import DataError, Split

DATA_VARIABLE = "GPLOSS_DATA"

#: The dataset that reads any table: it is given by its path, not by this name.
TABLE = "table"


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be asked for by name.

    Attributes:
        name: as users type it.
        load: makes the split; its keyword arguments are the options that users may give.
        summary: one line for lists of datasets.
        source: whose it is, and where it comes from.
        licence: what may be done with it.
    """

    name: str
    load: Callable[..., Split]
    summary: str
    source: str
    licence: str


DATASETS: Registry[Dataset] = Registry("dataset", module=__name__)


def load_dataset(source: str | Path | pd.DataFrame, **options: Any) -> Split:
    """Return a dataset in three parts.

    Args:
        source: a name ("synthetic", "ml-100k", "filmtrust"), the path of a table or of a folder, or a data frame.
        **options: what the loader takes; for a path or a data frame: user, item, label, rating, time, weight (names
            of columns), positive_from, on_duplicates, on_unknown, split ("leave_one_out", "by_time", "at_random"),
            validation, test (shares), seed, and for files columns, header, separator, encoding, quotes, missing,
            decimal. See the load functions in the modules of this package.

    Raises:
        LookupError: neither a dataset of that name nor a file or folder.
        TypeError: an option that this dataset does not take.
        DataError: the data cannot be used; the message names file, line and column.
        DownloadError: the data are not here and cannot be downloaded.

    Example:
        >>> split = load_dataset("synthetic", seed=0)
        >>> split.n_users, split.n_items
        (943, 1682)
    """
    dataset = find_dataset(source)
    if not isinstance(source, str) or source not in DATASETS:
        options = {"source": source, **options}
    _check_options(dataset, options)
    return dataset.load(**options)


def find_dataset(source: str | Path | pd.DataFrame) -> Dataset:
    """Return what loads a source; nothing is read yet.

    Raises:
        LookupError: neither a dataset of that name nor a file or folder.
        TypeError: nothing that data could come from.
    """
    discover(__name__, DATASETS)
    if not isinstance(source, str | os.PathLike | pd.DataFrame):
        raise TypeError(f"source must be a name, a path or a pandas DataFrame, got {shown(source)}")
    if isinstance(source, str) and source in DATASETS:
        return DATASETS[source]
    if isinstance(source, pd.DataFrame) or Path(source).exists():
        return DATASETS[TABLE]
    raise LookupError(f"no file, folder or dataset is named {str(source)!r}; datasets: {', '.join(DATASETS)}")


def data_folder() -> Path | None:
    """Return the folder that the environment variable GPLOSS_DATA names, or None where it is not set.

    Raises:
        DataError: it names no folder.
    """
    name = os.environ.get(DATA_VARIABLE)
    if not name:
        return None
    if not Path(name).is_dir():
        raise DataError(f"the environment variable {DATA_VARIABLE} names {name!r}, which is no folder")
    return Path(name)


def _check_options(dataset: Dataset, options: dict[str, Any]) -> None:
    parameters = inspect.signature(dataset.load).parameters
    unknown = [name for name in options if name not in parameters]
    if unknown:
        raise TypeError(
            f"dataset {dataset.name!r} does not take {', '.join(unknown)}; it takes: {', '.join(parameters)}"
        )
    missing = [
        name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in options
    ]
    if missing:
        raise TypeError(f"dataset {dataset.name!r} needs {', '.join(missing)}")
