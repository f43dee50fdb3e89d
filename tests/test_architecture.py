"""The arrows between modules go one way, and what is promised of every module holds."""

from __future__ import annotations

import ast
import doctest
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gploss", "rl", "recmodels", "experiments")

#: What each may import of the others.
ALLOWED = {
    "gploss": set(),
    "rl": {"gploss"},
    "recmodels": {"gploss"},
    "experiments": {"gploss", "rl", "recmodels"},
}


def sources() -> dict[str, Path]:
    """Every module by its dotted name; a package by its own."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


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


GRAPH = {name: {target for target in imports(tree_of(path)) if target in SOURCES} for name, path in SOURCES.items()}


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 30
    assert "gploss.operators" in GRAPH["gploss.expression"]
    assert "gploss.expression" in GRAPH["rl.searcher"]


@pytest.mark.parametrize("name", SOURCES)
def test_packages_import_in_one_direction(name: str) -> None:
    package = name.split(".")[0]
    others = {target.split(".")[0] for target in GRAPH[name]} - {package}
    assert others <= ALLOWED[package], f"{name} imports {others - ALLOWED[package]}"


@pytest.mark.parametrize("name", SOURCES)
def test_users_need_no_tools_of_development(name: str) -> None:
    tops = {target.split(".")[0] for target in imports(tree_of(SOURCES[name]))}
    assert not tops & {"tests", "pytest", "hypothesis"}
    if not name.startswith("experiments"):  # the benchmark compares with scikit-learn
        assert "sklearn" not in tops


def test_no_cycle() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in sorted(GRAPH[name]):
                visit(target, (*way, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


@pytest.mark.parametrize("name", SOURCES)
def test_imports_stand_at_the_top(name: str) -> None:
    for node in ast.walk(tree_of(SOURCES[name])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            hidden = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
            assert not hidden, f"line {hidden[0].lineno}"


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_executed_or_unpickled(name: str) -> None:
    tree = tree_of(SOURCES[name])
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {"pickle", "shelve", "dill"} & {target.split(".")[0] for target in imports(tree)}


def test_every_package_is_listed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    listed = project["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("gploss", "rl", "recmodels")
        for path in (ROOT / package).rglob("*.py")
    }
    assert sorted(listed) == sorted(found)
    for package in found:
        assert (ROOT / package.replace(".", "/") / "__init__.py").exists(), package


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split(".")[0] == "gploss"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))  # prints what differs
    assert result.failed == 0
