"""Damaged files of each kind that gploss reads: refused as documented, or read, those with checksums rightly."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from experiments.command.configuration import ConfigurationError, read_file
from experiments.command.folder import FolderError, Record
from experiments.compare_searchers import Compare
from gploss.files.packed import Grown
from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss
from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from gploss.search.result import ResultError, SearchResult
from recmodels.data.interactions import DataError
from recmodels.datasets.table import load
from tests.torture.damage import damaged
from tests.torture.guard import Wrong, watched

KEY: Final = EvaluationKey({"data": "toy"})
ENTRIES: Final = {
    f"add(pred, {number})": CacheEntry(
        f"add(pred, {number})", f"f{number}", "trained", None, 2, False, {"auc": [0.5, number / 64]}, 0.25, 1.5
    )
    for number in range(40)
}
EVALUATIONS: Final = [
    Evaluation(Expression.parse(text), Status.TRAINED, reward=one.metrics["auc"][1], fingerprint=one.fingerprint)
    for text, one in ENTRIES.items()
]
STATE: Final = {"rng": 2**70, "weights": np.arange(300.0), "keys": Grown(np.arange(200, dtype=np.uint64))}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the file.
        make: writes a sound one.
        read: reads it as a user's program does; raises `Wrong` where it sees what was never written.
        refusals: what it may raise.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...]


def ratings() -> pd.DataFrame:
    """A small table."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(30 * 20, size=300, replace=False), 20)
    names = np.array([f"u{number}" for number in range(30)])
    stars, times = rng.integers(1, 6, 300), rng.integers(10**9, 10**9 + 10**6, 300)
    return pd.DataFrame({"user": names[users], "item": items, "rating": stars, "timestamp": times})


def make_cache(path: Path) -> None:
    """Write a cache."""
    with Cache(path) as cache:
        cache.store(KEY, list(ENTRIES.values()))


def read_cache(path: Path) -> None:
    """Read a cache in every way, and write to it."""
    with Cache(path) as cache:
        found = [*cache.entries(KEY), *(cache.lookup(KEY, text, 2) for text in ENTRIES)]
        if any(entry is not None and ENTRIES.get(entry.program) != entry for entry in found):
            raise Wrong("another entry is served")
        cache.store(KEY, [CacheEntry("neg(pred)", "ff", "trained", None, 1, False, {"auc": [0.5]})])


def make_checkpoint(path: Path) -> None:
    """Write a checkpoint."""
    with Checkpoint(path) as checkpoint:
        checkpoint.begin({"seed": 0})
        checkpoint.save(EVALUATIONS, [float(step) for step in range(len(EVALUATIONS))], STATE)


def read_checkpoint(path: Path) -> None:
    """Read a checkpoint, and write to it."""
    with Checkpoint(path) as checkpoint:
        checkpoint.begin({"seed": 0})
        saved = checkpoint.load()
        if saved is None:
            raise Wrong("all is forgotten")
        same = [one in (None, own) for one, own in zip(saved.evaluations, EVALUATIONS, strict=True)]
        if not all(same) or not np.array_equal(saved.state["weights"], STATE["weights"]):
            raise Wrong("other evaluations or another state")
        checkpoint.save(EVALUATIONS[:1], [41.0], saved.state)


def make_result(path: Path) -> None:
    """Write a result."""
    counts, times = {"proposals": 40, "trained": 40}, tuple(map(float, range(40)))
    SearchResult(
        "random", 3, "budget", "auc", True, counts, {"evaluator": {"data": "toy"}}, tuple(EVALUATIONS), times
    ).save(path)


def read_result(path: Path) -> None:
    """Read a result."""
    if SearchResult.load(path).records != tuple(EVALUATIONS):
        raise Wrong("other evaluations")


def make_record(path: Path) -> None:
    """Write a run's record."""
    Record("compare", "compare", {"budget": 3, "out": "results"}, files=["cache.sqlite"]).write(path.parent)


def zipped(content: bytes) -> bytes:
    """Return a .zip that holds a table."""
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", content)
    return blob.getvalue()


def table(name: str, pack: Callable[[bytes], bytes]) -> Kind:
    """A kind of table that is packed text."""
    text = ratings().to_csv(index=False).encode()
    return Kind(name, lambda path: path.write_bytes(pack(text)) and None, load, (DataError,))


KINDS: Final = {
    "caches": Kind("cache.sqlite", make_cache, read_cache, (CacheError,)),
    "checkpoints": Kind("run.sqlite", make_checkpoint, read_checkpoint, (CheckpointError,)),
    "search results": Kind("result.json", make_result, read_result, (ResultError,)),
    "saved losses": Kind(
        "loss.json",
        lambda path: ExpressionLoss(Expression.parse("square(label - pred)")).save(path),
        ExpressionLoss.load,
        (ValueError,),
    ),
    "configurations": Kind(
        "compare.toml",
        lambda path: path.write_text(Compare().as_toml()) and None,
        lambda path: Compare.of(*read_file(path)),
        (ConfigurationError,),
    ),
    "records of runs": Kind("run.json", make_record, lambda path: Record.of(path.parent), (FolderError,)),
    "tables, .csv": table("ratings.csv", bytes),
    "tables, .csv.gz": table("ratings.csv.gz", gzip.compress),
    "tables, .csv.bz2": table("ratings.csv.bz2", bz2.compress),
    "tables, .zip": table("ratings.zip", zipped),
    "tables, .parquet": Kind("ratings.parquet", lambda path: ratings().to_parquet(path), load, (DataError,)),
    "tables, .arrow": Kind(
        "ratings.arrow",
        lambda path: feather.write_feather(pa.Table.from_pandas(ratings()), path, compression="uncompressed"),
        load,
        (DataError,),
    ),
}


def trial_of(kind: Kind, folder: Path) -> Callable[[int], str]:
    """Return the trial of a kind: a file damaged by a seed is read.

    Args:
        kind: of file.
        folder: for its files; those of each process are in one of their own.
    """
    sound = folder / "sound" / kind.name
    sound.parent.mkdir(parents=True, exist_ok=True)
    kind.make(sound)
    content = sound.read_bytes()

    def trial(seed: int) -> str:
        path = folder / str(os.getpid()) / kind.name
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(damaged(content, seed))
        try:
            with warnings.catch_warnings(), watched():
                warnings.simplefilter("ignore")
                kind.read(path)
        except kind.refusals as error:
            if len(str(error)) > 10_000:
                raise Wrong(f"an error of {len(str(error))} characters") from error
            return "refused"
        finally:
            made = {one.name.removesuffix("-wal").removesuffix("-shm") for one in path.parent.iterdir()} - {
                kind.name
            }
        if made:
            raise Wrong(f"makes {sorted(made)[:3]}")
        return "read"

    return trial
