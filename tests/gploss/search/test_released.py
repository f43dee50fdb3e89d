"""Files of each released format: those of this release are read, older ones are refused and left as they are.

`make_files` made those of the newest formats; the older ones were made so by the releases themselves.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gploss.files.packed import Grown
from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss
from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from gploss.search.result import SearchResult
from gploss.tasks.pointwise import POINTWISE

RELEASED = Path(__file__).parent / "released"

KEY = EvaluationKey({"data": "toy", "model": "mf"})
ENTRIES = [
    CacheEntry("neg(pred)", "0f", "trained", None, 2, False, {"auc": [0.5, 0.75]}, 0.25, 1.5),
    CacheEntry("clamped(inv(pred))", "1f", "diverged", "non-finite", 3, True, {"auc": [0.5, math.inf]}, None, 0.5),
]
EVALUATIONS = [
    Evaluation(Expression.parse("neg(pred)"), Status.TRAINED, None, 0.75, {"auc": [0.5, 0.75]}, "0f", 0.25),
    Evaluation(Expression.parse("mul(0.25, label)"), Status.REJECTED, "zero gradient"),
    Evaluation(Expression.parse("neg(neg(pred))"), Status.DUPLICATE, reward=0.75, duplicate_of="neg(pred)"),
]
STATE: dict[str, Any] = {"rng": 2**70, "nothing": None, "weights": np.arange(6.0).reshape(2, 3)}
KEYS = np.array([2**64 - 1, 7, 0], np.uint64)
RESULT = SearchResult(
    searcher="random",
    seed=3,
    stopped="budget",
    metric="auc",
    higher_is_better=True,
    counts={"proposals": 3, "trained": 1},
    settings={"searcher": "random", "evaluator": {"data": "toy"}},
    records=tuple(EVALUATIONS),
    elapsed=(0.5, 0.5, 1.25),
)


def make_files(folder: Path) -> None:
    """Write a file of each kind in its newest format."""
    with Cache(folder / "cache-2.sqlite") as cache:
        cache.store(KEY, ENTRIES)
    with Checkpoint(folder / "checkpoint-2.sqlite") as checkpoint:
        checkpoint.begin({"seed": 3})
        checkpoint.save(EVALUATIONS[:1], [0.5], {**STATE, "keys": Grown(KEYS[:2])})
        checkpoint.save(EVALUATIONS[1:], [0.5, 1.25], {**STATE, "keys": Grown(KEYS)})
    RESULT.save(folder / "result-2.json")


def copied(name: str, folder: Path) -> Path:
    (folder / name).write_bytes((RELEASED / name).read_bytes())
    return folder / name


def test_the_cache_of_this_release_is_read(tmp_path: Path) -> None:
    with Cache(copied("cache-2.sqlite", tmp_path)) as cache:
        assert list(cache.entries(KEY)) == ENTRIES
        assert cache.lookup_fingerprint(KEY, "0f", 2) == ENTRIES[0]


def test_the_checkpoint_of_this_release_is_read(tmp_path: Path) -> None:
    with Checkpoint(copied("checkpoint-2.sqlite", tmp_path)) as checkpoint:
        checkpoint.begin({"seed": 3})
        saved = checkpoint.load()
    assert saved is not None
    assert (saved.evaluations, saved.elapsed) == (EVALUATIONS, [0.5, 0.5, 1.25])
    keys, weights = saved.state.pop("keys"), saved.state.pop("weights")
    assert saved.state == {"rng": 2**70, "nothing": None}
    np.testing.assert_array_equal(weights, STATE["weights"], strict=True)
    np.testing.assert_array_equal(keys.array, KEYS, strict=True)


@pytest.mark.parametrize("version", [1, 2])
def test_results_of_each_release_are_read(version: int) -> None:
    assert SearchResult.load(RELEASED / f"result-{version}.json") == RESULT


def test_the_loss_of_this_release_is_read(tmp_path: Path) -> None:
    loss = ExpressionLoss.load(RELEASED / "loss-1.json")
    assert (str(loss.expression), loss.scale, loss.task) == ("square(add(label, neg(pred)))", 0.25, POINTWISE)
    loss.save(tmp_path / "loss.json")
    assert (tmp_path / "loss.json").read_bytes() == (RELEASED / "loss-1.json").read_bytes()


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [(Cache, "cache-1.sqlite", CacheError), (Checkpoint, "checkpoint-1.sqlite", CheckpointError)],
)
def test_files_of_earlier_releases_are_refused(
    kind: type[Cache] | type[Checkpoint], name: str, error: type[OSError], tmp_path: Path
) -> None:
    path = copied(name, tmp_path)
    with pytest.raises(error, match=r"has the old format 1 \(this gploss reads format 2\): move it away"):
        kind(path)
    assert path.read_bytes() == (RELEASED / name).read_bytes()
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("kind", "name", "mark"), [(Cache, "cache-2.sqlite", b"gpLC"), (Checkpoint, "checkpoint-2.sqlite", b"gpLR")]
)
def test_new_files_are_marked_as_released_ones_are(
    kind: type[Cache] | type[Checkpoint], name: str, mark: bytes, tmp_path: Path
) -> None:
    """SQLite keeps the mark of the kind and the version of the format in a file's header."""
    kind(tmp_path / "new.sqlite").close()
    for path in (tmp_path / "new.sqlite", RELEASED / name):
        header = path.read_bytes()[:100]
        assert (header[68:72], int.from_bytes(header[60:64])) == (mark, 2)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 1", "has the old format 1"),
        ("PRAGMA user_version = 3", r"has format 3, made by a newer gploss \(this one reads format 2\)"),
        ("PRAGMA application_id = 1734396996", "is a SQLite file of another kind"),
        ("PRAGMA application_id = 0", "is a SQLite file of another kind"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [(Cache, "cache-2.sqlite", CacheError), (Checkpoint, "checkpoint-2.sqlite", CheckpointError)],
)
def test_another_mark_or_version_is_refused(
    kind: type[Cache] | type[Checkpoint],
    name: str,
    error: type[OSError],
    statement: str,
    message: str,
    tmp_path: Path,
) -> None:
    path = copied(name, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(error, match=message):
        kind(path)
