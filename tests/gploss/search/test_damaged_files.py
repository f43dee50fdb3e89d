"""Files that were damaged or made to harm: what is read is what was stored, less what is said to be damaged."""

from __future__ import annotations

import random
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gploss.files.packed import Grown
from gploss.files.rows import sealed
from gploss.language.expression import Expression
from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, EvaluationKey, Status
from tests.gploss.search.runs import make, quiet, searchers

KEY = EvaluationKey({"data": "toy"})
ENTRIES = {
    f"add(pred, {number})": CacheEntry(
        f"add(pred, {number})", f"f{number}", "trained", None, 2, False, {"auc": [0.5, number / 64]}, 0.25, 1.5
    )
    for number in range(40)
}
EVALUATIONS = [
    Evaluation(
        Expression.parse(text), Status.TRAINED, reward=entry.metrics["auc"][1], fingerprint=entry.fingerprint
    )
    for text, entry in ENTRIES.items()
]


def flipped(path: Path, flips: int) -> Iterator[None]:
    """Flip one random bit of the file at a time."""
    content = path.read_bytes()
    rng = random.Random(0)
    for _ in range(flips):
        bit = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        yield
        for side in path.parent.glob(f"{path.name}-*"):
            side.unlink()


def test_a_flipped_bit_of_a_cache_is_never_taken_for_content(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with Cache(path) as cache:
        cache.store(KEY, list(ENTRIES.values()))
    outcomes = {"refused": 0, "left out": 0, "whole": 0}
    for _ in flipped(path, 150):
        try:
            with warnings.catch_warnings(), Cache(path) as cache:
                warnings.simplefilter("ignore")
                listed = list(cache.entries(KEY))
                found = {text: cache.lookup(KEY, text, 2) for text in ENTRIES}
                by_fingerprint = [cache.lookup_fingerprint(KEY, one.fingerprint, 2) for one in ENTRIES.values()]
                damaged = len(cache.damaged)
        except CacheError:
            outcomes["refused"] += 1
            continue
        assert all(entry == ENTRIES[entry.program] for entry in listed)
        assert all(entry is None or entry == ENTRIES[text] for text, entry in found.items())
        assert all(entry in (None, own) for entry, own in zip(by_fingerprint, ENTRIES.values(), strict=True))
        assert len(listed) + damaged >= len(ENTRIES) - 1
        outcomes["left out" if damaged else "whole"] += 1
    assert min(outcomes.values()) > 5, outcomes


def test_a_flipped_bit_of_a_checkpoint_is_never_taken_for_content(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    state = {"rng": 2**70, "weights": np.arange(300.0), "keys": Grown(np.arange(200, dtype=np.uint64))}
    with Checkpoint(path) as checkpoint:
        checkpoint.begin({"seed": 0})
        checkpoint.save(EVALUATIONS, [float(step) for step in range(40)], state)
    outcomes = {"refused": 0, "left out": 0, "whole": 0}
    for _ in flipped(path, 150):
        try:
            with warnings.catch_warnings(), Checkpoint(path) as checkpoint:
                warnings.simplefilter("ignore")
                checkpoint.begin({"seed": 0})
                saved = checkpoint.load()
        except CheckpointError:
            outcomes["refused"] += 1
            continue
        assert saved is not None
        assert saved.state["rng"] == 2**70
        np.testing.assert_array_equal(saved.state["weights"], np.arange(300.0))
        np.testing.assert_array_equal(saved.state["keys"].array, np.arange(200, dtype=np.uint64))
        pairs = list(zip(saved.evaluations, EVALUATIONS, strict=True))
        assert all(evaluation is None or evaluation == own for evaluation, own in pairs)
        outcomes["left out" if None in saved.evaluations else "whole"] += 1
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.parametrize("kind", [Cache, Checkpoint])
@pytest.mark.parametrize("length", [0, 1, 99, 100, 511, 4096, 6000])
def test_a_file_that_was_cut_is_refused(kind: type[Cache] | type[Checkpoint], length: int, tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite"
    kind(path).close()
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises((CacheError, CheckpointError), match=r"file\.sqlite"):
        kind(path)


def header(description: str) -> bytes:
    """An array without content, as npy, whose header says what is asked for."""
    text = description.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


CRAFTED_ARRAYS = {
    "no array": b"",
    "a zip archive": b"PK\x03\x04 and more",
    "a pickle": b"\x80\x04.",
    "a pickle inside": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"cos\nsystem\n.",
    "more than any memory": header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"),
    "more than any number": header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
    "a negative size": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
    "an open bracket": header("{'descr'"),
    "no dtype": header("{'descr': {'names': ['a']}, 'fortran_order': False, 'shape': (3,)}"),
}
CRAFTED_STATES = {
    "no JSON": "{",
    "no state": "[]",
    "a state of another kind": '{"state": 1, "arrays": [], "grown": {}}',
    "no places": '{"state": {}, "arrays": 3, "grown": {}}',
    "places that are not there": '{"state": {}, "arrays": [["a", "b"]], "grown": {}}',
    "an endless length": '{"state": {}, "arrays": [], "grown": {"[]": 1e400}}',
    "a deep text": "[" * 100_000,
    "bytes": b"\xff",
}
WITH_ARRAY = '{"state": {"w": null}, "arrays": [["w"]], "grown": {}}'
CRAFTED = {name: (WITH_ARRAY, array, 0) for name, array in CRAFTED_ARRAYS.items()}
CRAFTED |= {name: (text, header("{'descr': '<f8'}"), 0) for name, text in CRAFTED_STATES.items()}
CRAFTED |= {
    f"{count} evaluations": ('{"state": {}, "arrays": [], "grown": {}}', b"", count) for count in (-5, 10**12)
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_state_with_a_right_checksum_is_refused(name: str, tmp_path: Path) -> None:
    text, arrays, count = CRAFTED[name]
    with Checkpoint(tmp_path / "run.sqlite") as checkpoint:
        checkpoint.begin({"seed": 0})
        with closing(sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)) as connection:
            row = sealed("state", (1, 1, count, text, arrays))
            connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", row)
        with pytest.raises(CheckpointError, match=r"run\.sqlite is damaged, or of another version"):
            checkpoint.load()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, b"\xff"])
def test_crafted_settings_with_a_right_checksum_are_refused(text: str | bytes, tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "run.sqlite") as checkpoint:
        with closing(sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)) as connection:
            connection.execute("INSERT INTO settings VALUES (?, ?, ?)", sealed("settings", (1, text)))
        with pytest.raises(CheckpointError, match=r"run\.sqlite is damaged.*its settings make no sense"):
            checkpoint.begin({"seed": 0})


@searchers
@pytest.mark.parametrize(
    "craft",
    [
        lambda state: state.pop("turn"),
        lambda state: state.update(turn=3),
        lambda state: state["turn"].update(evaluated="all"),
        lambda state: state["turn"].update(proposals=["__import__('os').abort()"]),
        lambda state: state.update(turned_down_before=[]),
        lambda state: state.update(searcher={}),
        lambda state: state.update(searcher=[1]),
    ],
)
def test_a_crafted_state_of_a_searcher_is_refused(
    name: str, craft: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    path = tmp_path / "run.sqlite"
    quiet(make(name), 20, checkpoint=path)
    with Checkpoint(path) as checkpoint:
        saved = checkpoint.load()
        assert saved is not None
        craft(saved.state)
        checkpoint.save([], [], saved.state)
    with pytest.raises(CheckpointError, match=r"run\.sqlite is damaged.*its state makes no sense"):
        quiet(make(name), 40, checkpoint=path)


def test_the_log_of_another_file_changes_nothing(tmp_path: Path) -> None:
    own, other = tmp_path / "own.sqlite", tmp_path / "other.sqlite"
    for path, entries in ((own, list(ENTRIES.values())), (other, list(ENTRIES.values())[:20])):
        with Cache(path) as cache:
            cache.store(KEY, entries)
    with Cache(other) as cache:
        cache.store(KEY, list(ENTRIES.values())[20:25])
        log = other.with_name("other.sqlite-wal").read_bytes()
    own.with_name("own.sqlite-wal").write_bytes(log)
    try:
        with warnings.catch_warnings(), Cache(own) as cache:
            warnings.simplefilter("ignore")
            listed = list(cache.entries(KEY))
    except CacheError:
        return
    assert all(entry == ENTRIES[entry.program] for entry in listed)
