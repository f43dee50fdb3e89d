from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gploss.compute.cpu import _generate, cache_folder, load_kernels
from gploss.compute.kernel_files import KernelError
from gploss.compute.tables import Tables
from gploss.language.expression import Expression
from gploss.language.operators import Operator
from gploss.tasks.pointwise import POINTWISE
from tests.pointwise import OPERATORS_HERE, compiled, run

SCRIPT = """
import numpy as np
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS
from tests.pointwise import compiled, run

for name in OPERATORS.names():  # few operators compile in a moment
    if name not in ("add", "neg", "square"):
        OPERATORS.unregister(name)
program = compiled([Expression.parse("square(label - pred)")])
print(run(program, np.array([0.0, 0.0]), np.array([1.0, 0.5]))[0].tolist())
"""


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "GPLOSS_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )


def test_two_processes_compile_into_a_fresh_cache_at_the_same_time(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there yet"
    for process in [start(cache), start(cache)]:
        output, errors = process.communicate(timeout=300)
        assert output.strip() == "[[0.25, 0.0]]", errors
        assert errors.count("compiling: kernels (") == 1
    (folder,) = (cache / "kernels").iterdir()
    assert (folder / f"{folder.name}.py").exists()
    assert not list(folder.glob("*.tmp"))
    made = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}
    assert made
    output, errors = start(cache).communicate(timeout=300)
    assert output.strip() == "[[0.25, 0.0]]" and not errors
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")} == made  # found, not made again


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    _, errors = start(blocked).communicate(timeout=300)
    last = errors.strip().splitlines()[-1]
    assert last.startswith("gploss.compute.kernel_files.KernelError: compiled kernels cannot be stored in ")
    assert str(blocked) in last
    assert "set the environment variable GPLOSS_CACHE to a folder that can be written" in last
    assert blocked.read_text() == "in the way"
    assert issubclass(KernelError, RuntimeError)


def test_the_cache_folder_is_the_users_or_the_named_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPLOSS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("GPLOSS_CACHE")
        else:
            monkeypatch.setenv("GPLOSS_CACHE", unset)
        assert cache_folder().name == "gploss"
        assert cache_folder().is_absolute()


def test_kernels_are_loaded_once_and_named_by_their_content() -> None:
    tables = Tables.of(POINTWISE)
    assert load_kernels("float64", tables) is load_kernels("float64", Tables.of(POINTWISE))
    assert load_kernels("float32", tables) is not load_kernels("float64", tables)
    assert load_kernels("float32", tables).__name__ != load_kernels("float64", tables).__name__
    assert load_kernels("float32", tables).REAL is np.float32


def test_opcodes_are_places_in_the_table(softramp: Operator) -> None:
    program = compiled([Expression.parse(f"{softramp.name}(logit) + label")])
    names = [row.name for row in program.tables.operators]
    assert program.instructions[:, 0].tolist() == [names.index(softramp.name), names.index("add")]
    assert program.tables.operators[-1] is softramp


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_generated_source_is_complete(precision: str) -> None:
    source = _generate(precision, Tables.of(POINTWISE))  # type: ignore[arg-type]
    ast.parse(source)
    assert f"REAL = np.{precision}" in source
    assert not re.search(r"# @\w+$", source, re.MULTILINE)  # every place of the template is filled
    for name in (row.name for row in OPERATORS_HERE):
        assert source.count(f":  # {name}\n") == 2  # forwards and backwards


SPECIAL = [
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    1e-38,
    1.0,
    -1.0,
    0.625,
    0.6250001,
    88.7,
    88.8,
    -87.4,
    -103.0,
    -104.0,
    1e30,
    -1e38,
]


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("exp(logit)", np.exp),
        ("pred", lambda x: 1 / (1 + np.exp(-x))),
        ("sigmoid(logit)", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh(logit)", np.tanh),
        ("log(logit)", lambda x: np.sign(x) * np.log((np.abs(x.astype("f")) + np.float32(1e-6)).astype(float))),
        ("sqrt(logit)", lambda x: np.sign(x) * np.sqrt(np.abs(x) + 1e-6)),
        ("softplus(logit)", lambda x: np.logaddexp(x, 0)),
        ("inv(logit)", lambda x: np.sign(x) / (np.abs(x) + 1e-6)),
    ],
)
def test_functions_in_single_precision_are_right_everywhere(text: str, function: np.ufunc) -> None:
    grid = np.concatenate([np.linspace(-110, 110, 20_001), np.geomspace(1e-44, 3e38, 5_000), SPECIAL])
    scores = np.concatenate([grid, -grid]).astype(np.float32)
    (found,), _ = run(compiled([Expression.parse(text)]), scores, np.zeros_like(scores))
    with np.errstate(over="ignore"):
        exact = function(scores.astype(np.float64))
        expected = exact.astype(np.float32)
    normal = np.isfinite(expected) & ((np.abs(expected) > 1.2e-38) | (expected == 0))
    np.testing.assert_allclose(found[normal], exact[normal], rtol=5e-7, atol=1.2e-38)
    np.testing.assert_array_equal(found[~np.isfinite(expected)], expected[~np.isfinite(expected)])
    np.testing.assert_allclose(found[~normal], expected[~normal], rtol=0, atol=1.2e-38)
    assert not np.isnan(found).any()


def test_special_values_in_either_precision() -> None:
    texts = (
        "exp(logit)",
        "sigmoid(logit)",
        "tanh(logit)",
        "log(logit)",
        "pred",
        "sqrt(logit)",
        "max(logit, 0)",
        "abs(logit)",
    )
    program = compiled([Expression.parse(text) for text in texts])
    nan, inf = np.nan, np.inf
    for dtype in (np.float32, np.float64):
        losses, _ = run(program, np.array([nan, inf, -inf], dtype), np.zeros(3))
        expected = [
            [nan, inf, 0],
            [nan, 1, 0],
            [nan, 1, -1],
            [nan, inf, -inf],
            [nan, 1, 0],
            [nan, inf, -inf],
            [nan, inf, 0],
            [nan, inf, inf],
        ]
        np.testing.assert_array_equal(losses, np.array(expected, dtype))
