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

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gploss.files.packed import Grown
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.search.cache import Cache
from gploss.search.checkpoint import Checkpoint, CheckpointError
from gploss.search.evaluation import Evaluation, Status

PRED = Expression.parse("neg(pred)")

arrays = hnp.arrays(
    dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.array_dtypes(),
    shape=hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def trained(reward: float) -> Evaluation:
    return Evaluation(PRED, Status.TRAINED, reward=reward, metrics={"auc": [reward, math.nan]})


def same(left: Any, right: Any) -> bool:
    """Equal in every type, bit and order; NaN equals NaN."""
    if isinstance(left, np.ndarray):
        equal: bool = (
            isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
        return equal
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@settings(max_examples=200)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_state_comes_back_exactly(state: dict[str, Any]) -> None:
    with Checkpoint(":memory:") as checkpoint:
        checkpoint.save([], [], state)
        saved = checkpoint.load()
        assert saved is not None and same(saved.state, state)


def test_the_state_of_a_generator_and_of_a_network_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32))
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.save([], [], {"rng": rng.bit_generator.state, "layers": [{"weights": weights}]})
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        saved = checkpoint.load()
    assert saved is not None
    again = np.random.default_rng(1)
    again.bit_generator.state = saved.state["rng"]
    assert again.random() == rng.random()
    assert saved.state["layers"][0]["weights"].flags.f_contiguous


def test_evaluations_are_appended_and_the_state_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        assert checkpoint.load() is None
        checkpoint.save([trained(0.1), trained(0.2)], [1.0, 1.5], {"round": 1})
        checkpoint.save([], [], {"round": 2})
    with Checkpoint(path) as checkpoint:
        saved = checkpoint.load()
        assert saved is not None and saved.state == {"round": 2}
        checkpoint.save([trained(0.3)], [2.5], {"round": 3})
        evaluations, elapsed, state = checkpoint.load() or pytest.fail("nothing was saved")
    assert [repr(one) for one in evaluations] == [repr(trained(reward)) for reward in (0.1, 0.2, 0.3)]
    assert (elapsed, state) == ([1.0, 1.5, 2.5], {"round": 3})


def test_other_settings_are_refused_with_their_differences(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    settings_then: dict[str, JSON] = {
        "seed": 0,
        "evaluator": {"model": "mf", "rate": 0.05, "epochs": 5},
        "layers": [64, 16],
    }
    settings_now: dict[str, JSON] = {
        "evaluator": {"model": "mf", "rate": 0.1, "split": "time"},
        "layers": [64],
        "seed": 0,
    }
    with Checkpoint(path) as checkpoint:
        checkpoint.begin(settings_then)
        checkpoint.begin(dict(reversed(settings_then.items())))
        checkpoint.save([trained(0.5)], [1.0], {})
    with Checkpoint(path) as checkpoint:
        with pytest.raises(CheckpointError, match=r"run\.db holds a run with other settings") as caught:
            checkpoint.begin(settings_now)
        assert str(caught.value).splitlines()[1:] == [
            "settings.evaluator.epochs: 5 in the file, absent now",
            "settings.evaluator.rate: 0.05 in the file, 0.1 now",
            "settings.evaluator.split: absent in the file, 'time' now",
            "settings.layers: [64, 16] in the file, [64] now",
        ]
        checkpoint.begin(settings_then)
        assert checkpoint.load() is not None


def test_settings_must_be_json() -> None:
    with Checkpoint(":memory:") as checkpoint, pytest.raises(ValueError, match=r"\['rate'\] is nan"):
        checkpoint.begin({"rate": math.nan})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [0, (1, 2)]}}, r"state\['a'\]\['b'\]\[1\] is a tuple"),
        ({"a": {1: 2}}, r"state\['a'\] has the key 1: keys must be text"),
        ({"a": np.array([{}])}, r"state\['a'\] is an array of a kind that cannot be stored"),
        ({"a": np.ma.masked_array([1], [True])}, r"state\['a'\] is an array of a kind"),
        ({"a": np.int64(1)}, r"state\['a'\] is a int64, which cannot be stored"),
    ],
)
def test_a_state_that_cannot_be_stored_names_the_place(state: dict[str, Any], message: str) -> None:
    with Checkpoint(":memory:") as checkpoint:
        with pytest.raises(ValueError, match=message):
            checkpoint.save([trained(0.5)], [1.0], state)
        assert checkpoint.load() is None


@pytest.mark.parametrize(("elapsed", "message"), [([], "as many elapsed"), ([math.nan], "must be finite")])
def test_each_evaluation_needs_a_time(elapsed: list[float], message: str) -> None:
    with Checkpoint(":memory:") as checkpoint, pytest.raises(ValueError, match=message):
        checkpoint.save([trained(0.5)], elapsed, {})


def test_two_runs_cannot_write_one_checkpoint(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "run.db") as first, Checkpoint(tmp_path / "run.db") as second:
        first.save([trained(0.1)], [1.0], {})
        with pytest.raises(CheckpointError, match="at turn 1, this run at 0: another run writes to it"):
            second.save([trained(0.2)], [1.0], {})
        saved = first.load()
        assert saved is not None and [one and one.reward for one in saved.evaluations] == [0.1]


def test_a_cache_is_no_checkpoint(tmp_path: Path) -> None:
    Cache(tmp_path / "file.db").close()
    with pytest.raises(CheckpointError, match=r"file\.db is a SQLite file of another kind, no checkpoint"):
        Checkpoint(tmp_path / "file.db")


def spoil(path: Path, statement: str, *values: Any) -> None:
    """Change a file behind the back of whoever has it open."""
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE state SET state = '{'",
        "UPDATE state SET arrays = x'00'",
        "UPDATE state SET arrays = x''",
        "UPDATE state SET evaluations = 0",
        "UPDATE state SET state = CAST(x'ff' || state AS TEXT)",
        "UPDATE grown SET rows = x''",
        "UPDATE grown SET start = 1",
        "DELETE FROM grown",
    ],
)
def test_a_state_that_has_changed_is_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.save([trained(0.1)], [1.0], {"weights": np.zeros(3), "keys": Grown(np.arange(4))})
        spoil(path, damage)
        with pytest.raises(CheckpointError, match=r"run\.db is damaged.*move it away"):
            checkpoint.load()


def test_settings_that_have_changed_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.begin({"seed": 0})
        spoil(path, "UPDATE settings SET settings = replace(settings, '0', '1')")
        with pytest.raises(CheckpointError, match=r"run\.db is damaged.*its settings have changed"):
            checkpoint.begin({"seed": 1})


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE evaluations SET evaluation = replace(evaluation, '0.2', '0.3') WHERE step = 2",
        "UPDATE evaluations SET evaluation = CAST(x'ff' || evaluation AS TEXT) WHERE step = 2",
        "UPDATE evaluations SET elapsed = 1.25 WHERE step = 2",
        "UPDATE evaluations SET step = 7 WHERE step = 2",
        "DELETE FROM evaluations WHERE step = 2",
    ],
)
def test_a_damaged_evaluation_is_named_and_left_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.save([trained(0.1), trained(0.2)], [1.0, 1.5], {"turn": 1})
        checkpoint.save([trained(0.3)], [2.0], {"turn": 2})
    spoil(path, damage)
    with Checkpoint(path) as checkpoint:
        with pytest.warns(UserWarning, match=r"run\.db holds damaged evaluations, .* 1 in all, of step 2$"):
            saved = checkpoint.load()
        assert saved is not None and saved.state == {"turn": 2}
        assert [one and one.reward for one in saved.evaluations] == [0.1, None, 0.3]
        assert saved.elapsed == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(("damaged", "end"), [(20, "20$"), (21, "20 and others$")])
def test_at_most_twenty_damaged_steps_are_named(tmp_path: Path, damaged: int, end: str) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.save([trained(0.1)] * 50, [1.0] * 50, {"turn": 1})
    spoil(path, "UPDATE evaluations SET elapsed = 2.5 WHERE step <= ?", damaged)
    with Checkpoint(path) as checkpoint:
        with pytest.warns(UserWarning, match=f" {damaged} in all, of step 1, 2, .*, {end}") as caught:
            saved = checkpoint.load()
        assert caught[0].filename == __file__
        assert saved is not None and saved.evaluations.count(None) == damaged
        assert saved.elapsed == [0.0] * damaged + [1.0] * (50 - damaged)


def test_more_lost_than_kept_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.save([trained(0.1)] * 4, [1.0] * 4, {"turn": 1})
    spoil(path, "DELETE FROM evaluations WHERE step > 2")
    with Checkpoint(path) as checkpoint, pytest.warns(UserWarning, match="2 in all, of step 3, 4"):
        assert checkpoint.load() is not None
    spoil(path, "DELETE FROM evaluations WHERE step > 1")
    with (
        Checkpoint(path) as checkpoint,
        pytest.raises(CheckpointError, match="it has 1 evaluations and should have 4"),
    ):
        checkpoint.load()


def test_what_is_forgotten_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Checkpoint(path) as checkpoint:
        checkpoint.save([trained(reward) for reward in (0.1, 0.2, 0.3)], [1.0, 2.0, 3.0], {})
        checkpoint.forget(1)
        checkpoint.save([trained(0.4)], [4.0], {})
    with Checkpoint(path) as checkpoint:
        saved = checkpoint.load()
        assert saved is not None and [one and one.reward for one in saved.evaluations] == [0.1, 0.4]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=4), min_size=1, max_size=4), st.data())
def test_arrays_that_grow_come_back_whole(pieces: list[list[int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.db"
        keys = np.empty(0, np.uint64)
        for piece in pieces:
            with Checkpoint(path) as checkpoint:
                checkpoint.load()
                for key in piece:
                    keys = np.append(keys, np.uint64(key))
                    if data.draw(st.booleans()):
                        checkpoint.save([], [], {"searcher": {"keys": Grown(keys)}})
                checkpoint.save([], [], {"searcher": {"keys": Grown(keys)}})
                saved = checkpoint.load()
        assert saved is not None
        again = saved.state["searcher"]["keys"]
        assert isinstance(again, Grown) and same(again.array, keys)


def test_only_what_is_new_of_a_growing_array_is_written(tmp_path: Path) -> None:
    keys = np.arange(200_000, dtype=np.uint64)
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        for length in range(100_000, 200_001, 1000):
            checkpoint.save([], [], {"keys": Grown(keys[:length])})
    # Written whole each time, it would be 120 MB.
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 3e6


def test_an_array_that_grows_cannot_shrink() -> None:
    with Checkpoint(":memory:") as checkpoint:
        checkpoint.save([], [], {"keys": Grown(np.arange(3))})
        with pytest.raises(ValueError, match=r"the array at \[\"keys\"\] has 2 rows, fewer than the 3"):
            checkpoint.save([], [], {"keys": Grown(np.arange(2))})


def test_a_full_disk_keeps_the_round_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect_small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_small)
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.save([trained(0.1)], [1.0], {"weights": np.zeros(3)})
        with pytest.raises(CheckpointError, match=r"run\.db cannot grow, the disk is full"):
            checkpoint.save([trained(0.2)], [2.0], {"weights": np.zeros(10**6)})
        checkpoint.save([trained(0.3)], [3.0], {"weights": np.ones(3)})
        saved = checkpoint.load()
        assert saved is not None and [one and one.reward for one in saved.evaluations] == [0.1, 0.3]
        assert saved.state["weights"].tolist() == [1, 1, 1]


def test_a_pickled_checkpoint_opens_the_same_file(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "run.db") as checkpoint:
        checkpoint.save([trained(0.1)], [1.0], {})
        with pickle.loads(pickle.dumps(checkpoint)) as other:  # noqa: S301
            assert other.path == checkpoint.path
            other.save([trained(0.2)], [2.0], {})


KILLED_RUNS = """
import os, random, signal, sys, time
import numpy as np
from gploss.search.checkpoint import Checkpoint
from gploss.search.evaluation import Evaluation, Status
from gploss.language.expression import Expression

path, seed = sys.argv[1], int(sys.argv[2])
pred = Expression.parse("neg(pred)")
chance = random.Random(seed)

def go_on(pipe):
    checkpoint = Checkpoint(path)
    checkpoint.begin({"seed": 0})
    saved = checkpoint.load()
    done = saved.state["rounds"] if saved else 0
    while True:
        done += 1
        new = [Evaluation(pred, Status.TRAINED, reward=float(done)) for _ in range(10)]
        state = {"rounds": done, "weights": np.full(3000, done)}
        checkpoint.save(new, [float(done)] * 10, state)
        os.write(pipe, b"!")

for run in range(14):
    reader, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            go_on(pipe)
        finally:
            os._exit(1)
    os.close(pipe)
    if run % 2:
        os.read(reader, 1)
    time.sleep(chance.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run ended by itself"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_killed_run_leaves_whole_rounds(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    arguments = [sys.executable, "-c", KILLED_RUNS, str(path), str(random.randrange(2**31))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (arguments[-1], done.stderr)
    with Checkpoint(path) as checkpoint:
        saved = checkpoint.load()
    assert saved is not None
    rounds = saved.state["rounds"]
    assert rounds >= 7
    assert saved.state["weights"].tolist() == [rounds] * 3000
    assert [one and one.reward for one in saved.evaluations] == [
        number for number in range(1, rounds + 1) for _ in range(10)
    ]
    assert saved.elapsed == [one and one.reward for one in saved.evaluations]
