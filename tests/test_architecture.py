"""The project as a whole: arrows go one way, what is promised of every module holds, pins and versions agree."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.documents import PROJECT

#: What each package may import of the others.
MAY_IMPORT = {
    "gploss": {"gploss"},
    "rl": {"rl", "gploss"},
    "recmodels": {"recmodels", "gploss"},
    "experiments": {"experiments", "gploss", "rl", "recmodels"},
}
LIBRARIES = ("gploss", "rl", "recmodels")
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())

#: Dataclasses that are no records: what has been spent, where a run stands, weights that are trained.
MAY_CHANGE = {
    "gploss.search.budget.Spending",
    "gploss.search.run.Turn",
    "experiments.command.folder.Record",
    "recmodels.training.fused.gpu.Weights",
}

MOST_NAMES = 13
MOST_LINES = 400


def sources() -> dict[str, Path]:
    """Every module by its dotted name; a package by its own."""
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in SOURCES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported, names within a package included; under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow goes"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else str(node.module)


GRAPH = {name: {target for target in imports(tree) if target in SOURCES} for name, tree in TREES.items()}


#: What only the pointwise task, its data and its metrics may name.
POINTWISE_WORDS = {"label", "labels", "labelled", "auc", "gauc", "roc", "auroc"}
KNOWS_POINTWISE = ("gploss.tasks.pointwise", "recmodels.data", "recmodels.datasets", "recmodels.metrics")

#: Who else says them, and why.
SAYS_SO = {
    "experiments.command.options": "the command line names columns of tables",
    "experiments.bench.benchmark": "one figure compares the AUC of many models with scikit-learn's",
    "experiments.bench.reference_loop": "the plain loop that training is compared with",
    "experiments.bench.resampling": "made-up targets",
}
PLOTS = "gploss.report.plots"  # where labels stand at axes


def words_said(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each word in identifiers and texts, docstrings aside, with its line."""
    for node in ast.walk(tree):
        texts: list[str | None] = []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None  # a docstring, of a variable too
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.arg | ast.keyword):
            texts = [node.arg]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts = [node.name]
        elif isinstance(node, ast.alias):
            texts = [node.name, node.asname]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [node.value]
        for text in texts:
            for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text or ""):
                yield word.lower(), getattr(node, "lineno", 0)


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_pointwise_task_knows_labels(name: str) -> None:
    if name.startswith(KNOWS_POINTWISE) or name in SAYS_SO:
        return
    forbidden = POINTWISE_WORDS - {"label", "labels"} if name.startswith(PLOTS) else POINTWISE_WORDS
    said = words_said(ast.parse(SOURCES[name].read_text(encoding="utf-8")))
    assert not [f"{word!r} in line {line}" for word, line in said if word in forbidden]


def test_who_may_say_label_does() -> None:
    for name in SAYS_SO:
        said = {word for word, _ in words_said(ast.parse(SOURCES[name].read_text(encoding="utf-8")))}
        assert said & POINTWISE_WORDS, f"{name} need not be an exception any more"


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 30
    assert "gploss.language.operators" in GRAPH["gploss.language.expression"]
    assert "gploss.language.expression" in GRAPH["rl.searcher"]


@pytest.mark.parametrize("name", SOURCES)
def test_packages_import_in_one_direction(name: str) -> None:
    package = name.split(".")[0]
    assert {target.split(".")[0] for target in GRAPH[name]} <= MAY_IMPORT[package]
    # What a package's __init__ exports is for users: modules import from where things are.
    assert not GRAPH[name] & set(LIBRARIES)


def test_no_cycle() -> None:
    TopologicalSorter(GRAPH).prepare()  # raises CycleError, with the cycle


@pytest.mark.parametrize("name", SOURCES)
def test_users_need_no_tools_of_development(name: str) -> None:
    tops = {target.split(".")[0] for target in imports(TREES[name])}
    assert not tops & {"tests", "pytest", "hypothesis"}
    if not name.startswith("experiments"):  # the benchmark compares with scikit-learn
        assert "sklearn" not in tops


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_executed_or_unpickled(name: str) -> None:
    nodes = list(ast.walk(TREES[name]))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    unpicklers = {"pickle", "cPickle", "shelve", "dill", "cloudpickle"}
    assert not unpicklers & {target.split(".")[0] for target in imports(TREES[name])}


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] in LIBRARIES])
def test_imports_stand_at_the_top(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            hidden = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
            assert not hidden, f"line {hidden[0].lineno}"


def test_every_folder_is_a_package() -> None:
    for path in SOURCES.values():
        assert (path.parent / "__init__.py").exists(), path


def test_no_folder_shows_too_much() -> None:
    for folder in {path.parent for path in SOURCES.values()}:
        shown = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
        names = [path.name for path in shown if not path.name.startswith("__")]
        assert len(names) <= MOST_NAMES, f"{folder}: {len(names)} names"


def test_no_file_is_long() -> None:
    for path in [*SOURCES.values(), *(PROJECT / "tests").rglob("*.py")]:
        count = len(path.read_text(encoding="utf-8").splitlines())
        assert count <= MOST_LINES, f"{path}: {count} lines"


@pytest.mark.parametrize("name", SOURCES)
def test_every_argument_is_annotated(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            several = [own for own in (given.vararg, given.kwarg) if own is not None]
            for own in [*given.posonlyargs, *given.args, *given.kwonlyargs, *several]:
                assert own.annotation is not None or own.arg in ("self", "cls"), f"line {own.lineno}: {own.arg}"


@pytest.mark.parametrize("package", LIBRARIES)
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (PROJECT / package / "py.typed").exists()


@pytest.mark.parametrize("package", LIBRARIES)
def test_public_names_exist_and_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        thing = getattr(module, name)
        own = isinstance(thing, type) or type(thing).__name__ == "function"
        assert not own or thing.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", LIBRARIES)
def test_each_package_imports_alone(package: str) -> None:
    code = f"import sys, {package}; print(*sorted(set({tuple(MAY_IMPORT)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= MAY_IMPORT[package]


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "gploss"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))  # prints what differs
    assert result.failed == 0


def pinned() -> dict[str, Version]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    rows = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins: dict[str, Version] = {}
    for row in rows:
        (pin,) = row.specifier
        assert pin.operator == "==" and row.url is None
        assert canonicalize_name(row.name) not in pins, f"{row.name} stands there twice"
        pins[canonicalize_name(row.name)] = Version(pin.version)
    return pins


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pins = pinned()
    project = SETTINGS["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_pins_name_no_build() -> None:
    assert not [name for name, version in pinned().items() if version.local]
    assert pinned()["torch"] == Version("2.13.0")


def test_the_lock_file_has_the_pinned_versions_with_hashes() -> None:
    text = (PROJECT / "requirements.lock").read_text().replace("\\\n", " ")
    rows = [line.partition(" --hash=") for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}(\s+--hash=sha256:[0-9a-f]{64})*", after) for *_, after in rows)
    locked = {}
    for row in rows:
        requirement = Requirement(row[0].strip())
        (pin,) = requirement.specifier
        locked[canonicalize_name(requirement.name)] = Version(pin.version)
    del locked["colorama"]  # which Windows alone needs
    assert locked | {"torch": Version("2.13.0")} == pinned()
    assert "torch" not in locked


def test_versions_agree() -> None:
    version = SETTINGS["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    oldest = SpecifierSet(SETTINGS["project"]["requires-python"])
    assert "3.11" in oldest and "3.10" not in oldest
    assert "sys.version_info < (3, 11)" in (PROJECT / "Makefile").read_text()


def dataclasses_that_change() -> Iterator[str]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for decorator in map(ast.unparse, node.decorator_list):
                    if decorator.startswith("dataclass") and "frozen=True" not in decorator:
                        yield f"{name}.{node.name}"


def test_records_do_not_change() -> None:
    assert set(dataclasses_that_change()) == MAY_CHANGE
