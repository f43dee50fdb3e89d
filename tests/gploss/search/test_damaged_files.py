"""Single bits of files flipped: what is read is what was stored, less what is said to be damaged."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gploss.files.packed import Grown
from gploss.language.expression import Expression
from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, EvaluationKey, Status

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
