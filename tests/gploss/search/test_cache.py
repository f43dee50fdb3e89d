from __future__ import annotations

import math
import os
import pickle
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.search.cache import Cache, CacheEntry, CacheError
from gploss.search.evaluation import EvaluationKey

KEY = EvaluationKey({"data": "toy", "model": "mf"})
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def entry(program: str = "neg(pred)", epochs: int = 2, **fields: Any) -> CacheEntry:
    values: dict[str, Any] = {
        "fingerprint": "f0",
        "status": "trained",
        "reason": None,
        "complete": False,
        "metrics": {"auc": [0.5] * epochs},
        "scale": 0.25,
        "seconds": 1.5,
    }
    return CacheEntry(program, epochs=epochs, **{**values, **fields})


programs = st.sampled_from(["pred", "neg(pred)", "add(pred, label)"])
numbers = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def entries(draw: st.DrawFn) -> CacheEntry:
    epochs = draw(st.integers(1, 4))
    complete = draw(st.booleans())
    length = draw(st.integers(0, epochs)) if complete else epochs
    return CacheEntry(
        program=draw(programs),
        fingerprint=draw(st.sampled_from("ab")),
        status=draw(st.sampled_from(["trained", "diverged"])),
        reason=draw(st.none() | st.text()),
        epochs=epochs,
        complete=complete,
        metrics=draw(st.dictionaries(st.text(), st.lists(numbers, min_size=length, max_size=length), max_size=2)),
        scale=draw(st.none() | st.floats(min_value=1e-300, allow_infinity=False)),
        seconds=draw(st.floats(0, 1e9)),
    )


@given(entries())
def test_an_entry_comes_back_as_it_was(stored: CacheEntry) -> None:
    with Cache(":memory:") as cache:
        cache.store(KEY, [stored])
        found = cache.lookup(KEY, stored.program, 1)
        # repr tells -0.0 from 0.0, and finds NaN equal to NaN.
        assert repr(found) == repr(stored)
        assert repr(list(cache.entries(KEY))) == repr([stored])


fields = st.fixed_dictionaries(
    {"data": st.sampled_from("ab"), "rate": st.sampled_from([0.1, 0.1 + 1e-17, 1, 1.0, True, None])},
    optional={"seed": st.integers(0, 1)},
)


@settings(max_examples=50)
@given(st.lists(st.tuples(fields, entries()), max_size=12), fields, programs, st.integers(1, 5))
def test_a_cache_is_a_dict_by_key_and_program(
    stored: list[tuple[dict[str, Any], CacheEntry]], asked: dict[str, Any], program: str, epochs: int
) -> None:
    model: dict[tuple[str, str], CacheEntry] = {}
    with Cache(":memory:") as cache:
        for fields_of_entry, new in stored:
            key = EvaluationKey(fields_of_entry)
            cache.store(key, [new])
            old = model.get((key.canonical_json, new.program))
            if old is None or (not old.complete and (new.complete or new.epochs > old.epochs)):
                model[key.canonical_json, new.program] = new
        key = EvaluationKey(asked)
        of_key = [value for (canonical, _), value in model.items() if canonical == key.canonical_json]
        expected = model.get((key.canonical_json, program))
        if expected is not None and not expected.serves(epochs):
            expected = None
        assert repr(cache.lookup(key, program, epochs)) == repr(expected)
        # A dict keeps the place of what is replaced in it, as the cache does.
        assert repr(list(cache.entries(key))) == repr(of_key)
        for fingerprint in "ab":
            serving = [one for one in of_key if one.fingerprint == fingerprint and one.serves(epochs)]
            found = cache.lookup_fingerprint(key, fingerprint, epochs)
            assert repr(found) == repr(serving[0] if serving else None)


def test_a_complete_entry_serves_any_number_of_epochs() -> None:
    with Cache(":memory:") as cache:
        cache.store(KEY, [entry("a", 5), entry("b", 5, complete=True, metrics={"auc": [0.5] * 3})])
        assert cache.lookup(KEY, "a", 5) is not None
        assert cache.lookup(KEY, "a", 6) is None
        assert cache.lookup(KEY, "b", 600) is not None


def test_an_entry_is_cut_to_what_a_shorter_run_would_have_given() -> None:
    whole = entry(epochs=3, metrics={"auc": [0.1, 0.2, 0.3], "rmse": [3.0, 2.0, 1.0]})
    assert whole.truncated(3) is whole
    assert whole.truncated(2) == entry(epochs=2, metrics={"auc": [0.1, 0.2], "rmse": [3.0, 2.0]})
    with pytest.raises(ValueError, match="3 epochs cannot serve 4"):
        whole.truncated(4)
    diverged = entry(epochs=9, status="diverged", reason="nan", complete=True, metrics={"auc": [0.1, 0.2]})
    assert diverged.truncated(2) == entry(epochs=2, metrics={"auc": [0.1, 0.2]})
    assert diverged.truncated(20) is diverged
    early = diverged.truncated(3)
    assert (early.status, early.reason, early.complete, early.epochs) == ("diverged", "nan", True, 3)


def test_what_an_entry_leaves_unsaid_and_where_its_limits_are() -> None:
    bare = CacheEntry("neg(pred)", "0f", "trained", None, 1, False)
    assert (bare.metrics, bare.scale, bare.seconds) == ({}, None, 0.0)
    assert bare.serves(1) and not bare.serves(2) and bare.truncated(1) is bare
    with pytest.raises(ValueError, match="cannot serve 0"):
        entry(epochs=2).truncated(0)
    whole = entry(epochs=3, complete=True, metrics={"auc": [0.1, 0.2, 0.3]})
    cut = whole.truncated(2)  # it went on after that
    assert (cut.complete, cut.status, cut.epochs, cut.metrics) == (False, "trained", 2, {"auc": [0.1, 0.2]})
    assert entry(epochs=3, complete=True, metrics={}).truncated(2).complete


def test_of_two_runs_that_say_the_same_the_first_stays() -> None:
    first, second = (entry("a", 2, metrics={"auc": [0.1, value]}) for value in (0.2, 0.3))
    longer = entry("a", 3, metrics={"auc": [0.1, 0.2, 0.3]})
    ended = entry("a", 1, complete=True, metrics={"auc": [0.5]})
    assert not second.outdoes(first) and longer.outdoes(first) and not first.outdoes(longer)
    assert ended.outdoes(longer) and not longer.outdoes(ended) and not ended.outdoes(ended)
    with Cache(":memory:") as cache:
        for stored, kept in ((first, first), (second, first), (longer, longer), (ended, ended), (longer, ended)):
            cache.store(KEY, [stored])
            assert cache.lookup(KEY, "a", 1) == kept


def test_more_entries_than_a_page_are_all_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gploss.search.cache._PAGE", 3)
    names = [f"p{number}" for number in range(9)]
    with Cache(":memory:") as cache:
        cache.store(KEY, [entry(name) for name in reversed(names)])
        assert [one.program for one in cache.entries(KEY)] == names[::-1]
        assert list(cache.entries(EvaluationKey({}))) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "rejected"}, "only trained and diverged"),
        ({"epochs": 0, "metrics": {}}, "at least 1 epoch"),
        ({"program": ""}, "text of its program"),
        ({"seconds": math.nan}, "seconds must be finite"),
        ({"epochs": 3, "metrics": {"auc": [0.5]}}, "not complete has 1 values of 'auc'"),
        ({"complete": True, "metrics": {"auc": [0.5] * 3}}, "complete has 3 values of 'auc'"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entry(**fields)


def test_a_hash_collision_is_an_error() -> None:
    other = EvaluationKey({"data": "other"})
    object.__setattr__(other, "hash", KEY.hash)
    with Cache(":memory:") as cache:
        cache.store(KEY, [entry()])
        for use in (
            lambda: cache.lookup(other, "neg(pred)", 1),
            lambda: cache.lookup_fingerprint(other, "f0", 1),
            lambda: list(cache.entries(other)),
            lambda: cache.store(other, [entry()]),
        ):
            with pytest.raises(CacheError, match="another key with the hash"):
                use()


def spoil(path: Path, statement: str) -> None:
    """Change a file behind the back of whoever has it open."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        """UPDATE entries SET metrics = '{"auc": [0.5' WHERE program = 'b'""",
        "UPDATE entries SET metrics = replace(metrics, '5', '7') WHERE program = 'b'",
        "UPDATE entries SET metrics = CAST(x'ff' || metrics AS TEXT) WHERE program = 'b'",
        "UPDATE entries SET seconds = seconds + 1 WHERE program = 'b'",
        "UPDATE entries SET epochs = 2.5 WHERE program = 'b'",
        "UPDATE entries SET fingerprint = 'of b' WHERE program = 'a'",
        "UPDATE entries SET checksum = 'ff' WHERE program = 'b'",
    ],
)
def test_a_damaged_entry_is_named_left_out_and_replaced(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cache.db"
    name = "a" if "'a'" in damage else "b"
    rest = [one for one in "abc" if one != name]
    with Cache(path) as cache:
        cache.store(KEY, [entry(one, fingerprint=f"of {one}") for one in "abc"])
        spoil(path, damage)
        with pytest.warns(UserWarning, match=rf"cache\.db holds a damaged entry of '{name}': .*\(1 so far\)"):
            assert [one.program for one in cache.entries(KEY)] == rest
        assert cache.damaged == {name}
        assert cache.lookup(KEY, name, 1) is None
        assert cache.lookup(KEY, rest[0], 1) is not None
        cache.store(KEY, [entry(name, epochs=1), entry(rest[0], epochs=1)])
        assert cache.lookup(KEY, name, 1) == entry(name, epochs=1)
        assert cache.lookup(KEY, rest[0], 2) is not None, "a shorter run must not replace a longer one"
        assert len(list(cache.entries(KEY))) == 3


def test_a_damaged_entry_does_not_hide_another_with_its_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with Cache(path) as cache:
        cache.store(KEY, [entry("a"), entry("b")])
        spoil(path, "UPDATE entries SET seconds = 99 WHERE program = 'a'")
        with pytest.warns(UserWarning, match="damaged entry of 'a'"):
            assert cache.lookup_fingerprint(KEY, "f0", 2) == entry("b")


def test_a_damaged_text_of_a_key_costs_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with Cache(path) as cache:
        cache.store(KEY, [entry()])
        spoil(path, "UPDATE keys SET canonical = replace(canonical, 'toy', 'tox')")
        assert cache.lookup(KEY, "neg(pred)", 2) == entry()
        cache.store(KEY, [entry("pred")])
        assert [one.program for one in cache.entries(KEY)] == ["neg(pred)", "pred"]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT canonical FROM keys").fetchall() == [(KEY.canonical_json,)]
    connection.close()


def test_a_file_that_is_no_cache_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,label\n")
    with pytest.raises(CacheError, match=r"evaluation cache .*ratings\.csv is not a SQLite file"):
        Cache(path)
    assert path.read_text() == "user,item,label\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_loses_only_what_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.db"
    first = [entry(f"first{number}") for number in range(20)]
    with Cache(path) as cache:
        cache.store(KEY, first)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect_small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_small)
    with Cache(path) as cache:
        with pytest.raises(CacheError, match=r"cache\.db cannot grow, the disk is full: free some space"):
            cache.store(KEY, [entry(f"second{number}" * 20) for number in range(1000)])
        assert list(cache.entries(KEY)) == first
        cache.store(KEY, [entry("still works")])
        assert cache.lookup(KEY, "still works", 1) is not None


def test_a_pickled_cache_opens_the_same_file(tmp_path: Path) -> None:
    with Cache(tmp_path / "cache.db") as cache:
        cache.store(KEY, [entry()])
        with pickle.loads(pickle.dumps(cache)) as other:  # noqa: S301
            assert other.path == cache.path
            assert other.lookup(KEY, "neg(pred)", 2) == entry()


SCRIPT = """
import os, random, signal, sys, time, traceback
from gploss.search.cache import Cache, CacheEntry
from gploss.search.evaluation import EvaluationKey

path, seed = sys.argv[1], int(sys.argv[2])
key = EvaluationKey({"data": "toy", "model": "mf"})

def write(cache, writer, batches, size):
    for batch in batches:
        cache.store(key, [
            CacheEntry(f"w{writer}b{batch}r{row}", f"{writer}.{batch}", "trained", None, 1, False, {"auc": [0.5]})
            for row in range(size)
        ])

def fork(work):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child
"""

FOUR_WRITERS = """
cache = Cache(path)
cache.lookup(key, "opened before the fork", 1)

def write_and_reopen(writer):
    for batch in range(20):
        with Cache(path) as own:
            write(own, writer, [batch], 10)

children = [fork(lambda: write(cache, writer, range(20), 10)) for writer in range(2)]
cache.close()
children += [fork(lambda: write_and_reopen(writer)) for writer in range(2, 4)]
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""

KILLED_WRITERS = """
import itertools
chance = random.Random(seed)

def write_and_tell(writer, pipe):
    with Cache(path) as cache:
        write(cache, writer, [0], 50)
        os.write(pipe, b"!")
        write(cache, writer, itertools.count(1), 50)

for writer in range(14):
    reader, pipe = os.pipe()
    child = fork(lambda: write_and_tell(writer, pipe))
    os.close(pipe)
    if writer % 2:
        os.read(reader, 1)
    time.sleep(chance.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the writer ended by itself"
"""


def run(script: str, path: Path) -> None:
    arguments = [sys.executable, "-c", SCRIPT + script, str(path), str(random.randrange(2**31))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (arguments[-1], done.stderr)


@FORK
def test_four_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    run(FOUR_WRITERS, tmp_path / "cache.db")
    with Cache(tmp_path / "cache.db") as cache:
        assert {one.program for one in cache.entries(KEY)} == {
            f"w{writer}b{batch}r{row}" for writer in range(4) for batch in range(20) for row in range(10)
        }


@FORK
def test_a_killed_writer_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    run(KILLED_WRITERS, path)
    with Cache(path) as cache:
        found = [one.program for one in cache.entries(KEY)]
        batches = {name.split("r")[0] for name in found}
        assert batches >= {f"w{writer}b0" for writer in range(1, 14, 2)}
        assert set(found) == {f"{batch}r{row}" for batch in batches for row in range(50)}
        for batch in batches:
            writer, number = batch.split("b")
            assert all(f"{writer}b{earlier}" in batches for earlier in range(int(number)))
        cache.store(KEY, [entry()])
        assert cache.lookup(KEY, "neg(pred)", 2) == entry()


@FORK
def test_a_forked_child_does_not_disturb_its_parent() -> None:
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder) / "cache.db") as cache:
        cache.store(KEY, [entry("parent")])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(cache.lookup(KEY, "parent", 1) is None)
                cache.store(KEY, [entry("child")])
                cache.close()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert [one.program for one in cache.entries(KEY)] == ["parent", "child"]
